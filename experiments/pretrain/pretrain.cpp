#include "experiments/pretrain/pretrain.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "experiments/harness/progress.h"
#include "experiments/pretrain/pretrain_state.h"
#include "experiments/runs/out_folder.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/text/sentinels.h"
#include "peft/files.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

Parameters train_everything(Model& model) {
  Parameters all;
  model.each([&](Weight& w) {
    auto p = std::make_shared<Parameter>(w.parameter());
    p->value = Tensor::leaf(p->value.value(), p->label());
    w.put(p);
    all.push_back(p);
  });
  return all;
}

Tokenizer tokenizer_for(const PretrainSpec& spec, Objective objective) {
  Tokenizer tokenizer = Tokenizer::load(spec.tokenizer);
  const auto& specials = tokenizer.specials();
  const bool marked =
      std::ranges::any_of(specials, [](const SpecialToken& t) { return t.content == sentinel(0); });
  if (objective == Objective::span && !marked) {
    check(tokenizer.size() < spec.arch.vocab,
          "pretrain: the tokenizer has {} tokens, the model {}: no room for sentinels",
          tokenizer.size(), spec.arch.vocab);
    tokenizer = tokenizer.with_sentinels(spec.arch.vocab - tokenizer.size());
  }
  check(tokenizer.size() == spec.arch.vocab, "pretrain: the tokenizer has {} tokens, the model {}",
        tokenizer.size(), spec.arch.vocab);
  check(objective != Objective::span || tokenizer.pad() == spec.arch.start,
        "pretrain: the decoder begins with token {}, the tokenizer's [PAD] is {}", spec.arch.start,
        tokenizer.pad());
  return tokenizer;
}

// The model's hash is that of its file, which has half precision.
void save_edits(const PretrainSpec& spec, const Adaptation& edits) {
  const fs::path base = spec.out / "model";
  save_adapter(spec.out / "adapter", spec.method, edits.stored(),
               {{"model", fs::absolute(base).lexically_normal().string()},
                {"base_hash", fmt::format("{:016x}", load_model(base)->hash())},
                {"head", ""},
                {"pool", ""},
                {"labels", nlohmann::json::array()},
                {"language", true}});
}

// Lines of the log up to `step`: what a killed run logged after its checkpoint is trained again.
std::string log_until(const fs::path& log, std::int64_t step) {
  std::string kept, line;
  std::ifstream in(log);
  while (std::getline(in, line)) {
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (!row.is_discarded() && row.value("step", step + 1) <= step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

double heldout_loss(const Model& model, const CorpusWindows& text, std::int64_t windows,
                    const MaskingRule& rule) {
  NoRecord off;
  double total = 0, labels = 0;
  windows = std::min(windows, text.windows(0, 0));
  for (std::int64_t at = 0; at < windows; at += 32) {
    Batch b = text.batch(0, 0, at, std::min<std::int64_t>(32, windows - at), rule);
    b.divisor = 1;
    Ctx ctx;
    total += model.lm_loss(b, ctx).item();
    for (std::int32_t l : b.token_label) labels += l >= 0;
  }
  return total / labels;
}

void stack_from(Model& deep, Model& shallow) {
  const Arch& d = deep.arch();
  const Arch& s = shallow.arch();
  Arch alike = s;
  alike.layers = d.layers;
  if (d.crosses() && s.crosses()) alike.encoder_layers = d.encoder_layers;
  check(d == alike,
        "stack: the models may differ in their number of layers only; {} (width {}, heads {}, "
        "feed-forward {}, vocabulary {}, positions {}) is to start from {} ({}, {}, {}, {}, {})",
        d.family, d.width, d.heads, d.hidden, d.vocab, d.positions, s.family, s.width, s.heads,
        s.hidden, s.vocab, s.positions);
  std::map<std::string, Array> from;
  shallow.each([&](Weight& w) { from[w.parameter().label()] = w.value().value(); });
  deep.each([&](Weight& w) {
    Parameter p = w.parameter();
    const bool encoder = s.crosses() && p.site.stack == Stack::encoder;
    if (p.site.layer >= 0) p.site.layer %= encoder ? s.encoder_layers : s.layers;
    check(from.contains(p.label()), "stack: the smaller model has no '{}'", p.label());
    w.parameter().value.value().copy_from(from.at(p.label()));
  });
}

Objective objective_of(const Arch& arch, const std::string& asked) {
  const Objective own = arch.crosses() ? Objective::span
                        : arch.causal  ? Objective::causal
                                       : Objective::masked;
  check(asked.empty() || asked == name(own),
        "pretrain: objective '{}': a model of family {} is {}, which learns by '{}'; leave it out",
        asked, arch.family,
        own == Objective::span     ? "an encoder-decoder"
        : own == Objective::causal ? "a decoder"
                                   : "an encoder",
        name(own));
  return own;
}

void validate(const PretrainSpec& s) {
  check(
      s.batch >= 1 && s.steps >= 1 && s.eval_every >= 1 && s.warmup >= 0 && s.cooldown >= 0,
      "pretrain: batch {}, steps {}, eval-every {}, warmup {}, cooldown {}; need at least 1, 1, 1, "
      "0, 0",
      s.batch, s.steps, s.eval_every, s.warmup, s.cooldown);
  check(s.masking > 0 && s.masking <= 1, "pretrain: masking {}; need 0 < masking <= 1", s.masking);
  check(s.span >= 1 && s.span <= s.length, "pretrain: spans of {} tokens on average; need 1 to {}",
        s.span, s.length);
  check(s.lr > 0 && s.decay >= 0 && std::isfinite(s.lr) && std::isfinite(s.decay),
        "pretrain: lr {}, decay {}; need lr > 0, decay >= 0", s.lr, s.decay);
  check(!s.arch.learned_positions || s.length <= s.arch.positions,
        "pretrain: length {}; the model has {} positions", s.length, s.arch.positions);
}

PretrainResult pretrain(const PretrainSpec& spec) {
  validate(spec);
  const Objective objective = objective_of(spec.arch, spec.objective);
  const OutFolder out("pretrain", spec.out);
  const Tokenizer tokenizer = tokenizer_for(spec, objective);
  const CorpusWindows train(spec.train, tokenizer, spec.length, objective);
  const CorpusWindows heldout(spec.heldout, tokenizer, spec.length, objective);
  fmt::print("corpus: {} training tokens, {} held out\n", train.tokens(), heldout.tokens());

  Model model(spec.arch, {Dtype::f32, true, spec.seed});
  std::string started_from;
  if (!spec.start_from.empty()) {
    const auto smaller = load_model(spec.start_from);
    started_from = fmt::format("{:016x}", smaller->hash());
    stack_from(model, *smaller);
  }
  Parameters trained = train_everything(model);
  std::optional<Adaptation> edits;
  if (!spec.method.empty()) {
    edits.emplace(spec.methods, spec.method, model);
    const Parameters own = edits->parameters();
    trained.insert(trained.end(), own.begin(), own.end());
  }
  Optimizer optimizer(trained, {.beta2 = 0.98, .eps = 1e-6, .decay = spec.decay});
  PretrainState state(spec, started_from, optimizer);
  std::int64_t step = state.load();
  std::string log = log_until(spec.out / "log.jsonl", step);
  if (step > 0) fmt::print("resumed at step {}\n", step);

  const MaskingRule rule{spec.masking, spec.span};
  int epoch = 0;  // a whole number of steps per epoch: what does not fill a batch is left out
  std::int64_t epoch_start = 0;
  const std::int64_t last =
      spec.stop_after > 0 ? std::min(spec.stop_after, spec.steps) : spec.steps;
  const auto begun = Clock::now();
  auto saved = begun;
  const std::int64_t first = step;
  double held = 0;
  StepProgress progress(stdout);
  while (step < last) {
    state.before_step(step);
    while (step - epoch_start >= train.windows(spec.seed, epoch) / spec.batch) {
      check(train.windows(spec.seed, epoch) >= spec.batch,
            "pretrain: the text has {} windows of {} tokens; one step takes {}",
            train.windows(spec.seed, epoch), spec.length, spec.batch);
      epoch_start += train.windows(spec.seed, epoch++) / spec.batch;
    }
    const Batch batch =
        train.batch(spec.seed, epoch, (step - epoch_start) * spec.batch, spec.batch, rule);
    Ctx ctx{.train = true, .key = {spec.seed, static_cast<std::uint32_t>(step)}};
    const Tensor loss = model.lm_loss(batch, ctx);
    check(std::isfinite(loss.item()), "pretrain: the loss is {} at step {}; lower --lr",
          loss.item(), step);
    Gradients grads = backward(loss);
    optimizer.step(grads, state.rate(step));
    state.loss_sum += loss.item();
    ++state.losses;
    ++step;
    const bool power = step >= 256 && (step & (step - 1)) == 0;
    if (step % spec.eval_every == 0 || step == last) {
      held = heldout_loss(model, heldout, 512, rule);
      const double rate = double(step - first) * spec.batch * spec.length / seconds_since(begun);
      const nlohmann::json row{{"step", step},
                               {"epoch", epoch},
                               {"train_loss", state.loss_sum / state.losses},
                               {"heldout_loss", held},
                               {"lr", state.rate(step - 1)},
                               {"tokens", step * spec.batch * spec.length}};
      log += row.dump() + "\n";
      write_file_atomically(spec.out / "log.jsonl", log);
      progress.end();
      fmt::print(
          "step {:>7}/{}  epoch {:>3}  loss {:.4f}  held out {:.4f}  {:.0f} tokens/s  {:.0f} min "
          "left\n",
          step, spec.steps, epoch, state.loss_sum / state.losses, held, rate,
          double(last - step) * spec.batch * spec.length / rate / 60);
      std::fflush(stdout);
      state.loss_sum = 0, state.losses = 0;
    } else if (progress.on_terminal()) {  // elsewhere the evaluations' lines are enough
      progress.at(step, last, loss.item());
    }
    if (seconds_since(saved) > 60 * spec.save_minutes || step == last) {
      state.save(step);
      saved = Clock::now();
    }
    if (power)
      save_model(model, spec.out / fmt::format("step-{}", step), FileDtype::f16, &tokenizer);
  }
  if (step == first) held = heldout_loss(model, heldout, 512, rule);
  save_model(model, spec.out / "model", FileDtype::f16, &tokenizer);
  if (edits) save_edits(spec, *edits);
  return {step, held, model.hash()};
}

}  // namespace graft
