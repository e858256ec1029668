#include "experiments/runs/finetune.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>

#include "experiments/data/metrics.h"
#include "experiments/runs/run_state.h"
#include "nn/choice.h"
#include "nn/models/heads.h"
#include "nn/pooling.h"
#include "tensor/hash.h"

namespace graft {
namespace {

// Whether what is learned is the next token, by the model's own vocabulary head.
bool by_token(const EncodedTask& task) { return task.goal == Goal::language || task.text(); }

Tensor batch_loss(const Model& model, const EncodedTask& task, const Batch& batch, Ctx& ctx) {
  const Sequence s = model.forward(batch, ctx);
  if (by_token(task)) return model.lm_loss(s, batch, ctx);
  return model.head().loss(model.head().scores(model, s, batch, ctx), batch);
}

double label_count(const EncodedTask& task, const Batch& batch) {
  if (!by_token(task)) return batch.sequences();
  double n = 0;
  for (std::int32_t l : batch.token_label) n += l >= 0;
  return n;
}

// One optimizer step's gradients, micro-batch after micro-batch: the bits do not depend on the cut,
// but where a method edits weights (Adapter::edits_weights).
double gather_gradients(const Model& model, const Adaptation& adaptation, const EncodedTask& task,
                        const RunSpec& spec, const std::vector<std::int32_t>& order,
                        std::size_t first, std::size_t count, Key key, Gradients& grads) {
  double divisor = 0;
  if (spec.micro > 0)
    divisor = label_count(task, make_batch(task, task.train, order, first, count));
  const std::size_t step = spec.micro > 0 ? spec.micro : count;
  double total = 0;
  for (std::size_t at = 0; at < count; at += step) {
    Batch batch = make_batch(task, task.train, order, first + at, std::min(step, count - at));
    batch.divisor = divisor;
    Ctx ctx{.train = true, .key = key, .checkpoint = spec.checkpoint_blocks};
    Tensor loss = batch_loss(model, task, batch, ctx);
    if (at == 0) {
      const Tensor penalty = adaptation.penalty();
      if (penalty.defined()) loss = loss + penalty;
    }
    check(std::isfinite(loss.item()), "train: the loss is {} (method {}, lr {}); lower the rate",
          loss.item(), adaptation.spec(), spec.lr);
    backward(loss, grads);
    total += loss.item();
  }
  return total;
}

std::uint64_t hash_of(const Parameters& parameters) {
  Hash h;
  for (const auto& p : parameters) h.word(p->value.value().hash());
  return h.value();
}

// Of every token and label: two tasks with one name are not one task.
std::uint64_t hash_of(const EncodedTask& task) {
  Hash h;
  for (const auto* split : {&task.train, &task.dev, &task.test})
    for (const EncodedExample& e : *split) {
      h.word(e.token.size());
      for (std::int32_t t : e.token) h.word(static_cast<std::uint64_t>(t));
      for (std::int32_t t : e.type) h.word(static_cast<std::uint64_t>(t));
      if (task.text()) h.word(e.source.size());
      for (std::int32_t t : e.source) h.word(static_cast<std::uint64_t>(t));
      h.word(static_cast<std::uint64_t>(e.label));
      h.word(std::bit_cast<std::uint32_t>(e.target));
    }
  return h.value();
}

// Of the head's start: a checkpoint's own is no new one.
std::uint64_t hash_of(Head& head) {
  Hash h;
  head.each([&](Weight& w) { h.word(w.value().value().hash()); });
  return h.value();
}

// A model's own head steps aside for a task's, and comes back.
class HeadAside {
 public:
  HeadAside(Model& model, std::unique_ptr<Head> head)
      : model_(model), before_(model.set_head(std::move(head))) {}
  ~HeadAside() { model_.set_head(std::move(before_)); }
  HeadAside(const HeadAside&) = delete;
  HeadAside& operator=(const HeadAside&) = delete;

 private:
  Model& model_;
  std::unique_ptr<Head> before_;
};

StartedHead family_head(const EncodedTask& task, const RunSpec& spec, const Model& model) {
  check(spec.pool == "mean",
        "head=family: the family's own head has its own way of pooling; leave pool={} out",
        spec.pool);
  return start_family_head(
      {model.build().dtype, model.build().storage, spec.seed}, model,
      task.goal == Goal::regression ? std::vector<std::string>{} : task.labels);
}

std::vector<std::uint32_t> ids_of(const std::vector<EncodedExample>& examples,
                                  const std::vector<std::int32_t>& order, std::size_t first,
                                  std::size_t count) {
  std::vector<std::uint32_t> ids;
  for (std::size_t i = first; i < first + count; ++i)
    ids.push_back(examples[static_cast<std::size_t>(order[i])].id);
  return ids;
}

// Each sequence's own mean loss: one pass through the blocks for all, one through the vocabulary
// for each.
void append_losses(const Model& model, const Sequence& s, const Batch& batch, const Ctx& ctx,
                   std::vector<float>& into) {
  std::size_t from = 0;
  for (const int length : batch.length) {
    Batch one = batch;
    std::fill(one.token_label.begin(), one.token_label.end(), -1);
    const auto begin = batch.token_label.begin() + static_cast<std::ptrdiff_t>(from);
    std::copy(begin, begin + length, one.token_label.begin() + static_cast<std::ptrdiff_t>(from));
    from += static_cast<std::size_t>(length);
    into.push_back(static_cast<float>(model.lm_loss(s, one, ctx).item()));
  }
}

std::vector<std::vector<double>> rows_of(const Tensor& scores) {
  const std::vector<double> values = scores.value().to_vector();
  const auto k = static_cast<std::ptrdiff_t>(scores.dim(1));
  std::vector<std::vector<double>> rows;
  for (auto at = values.begin(); at != values.end(); at += k) rows.emplace_back(at, at + k);
  return rows;
}

void append_predictions(const EncodedTask& task, const std::vector<std::vector<double>>& rows,
                        std::vector<float>& into) {
  for (const auto& row : rows) {
    if (task.goal == Goal::regression && !task.text()) {
      into.push_back(static_cast<float>(row[0]));
      continue;
    }
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    into.push_back(task.goal == Goal::regression ? task.values.at(static_cast<std::size_t>(best))
                                                 : static_cast<float>(best));
  }
}

}  // namespace

std::unique_ptr<Head> make_head(const EncodedTask& task, const RunSpec& given, const Model& model) {
  const RunSpec spec = given.on(model.arch());
  if (task.text()) return nullptr;
  if (task.goal == Goal::language) {
    check(spec.head == "linear" && spec.pool == "mean",
          "task {}: a language task has no head of its own, so head={} and pool={} mean nothing; "
          "leave them out",
          task.name, spec.head, spec.pool);
    return nullptr;
  }
  const Build build{model.build().dtype, model.build().storage, spec.seed};
  const int classes = task.goal == Goal::regression ? 0 : static_cast<int>(task.labels.size());
  if (spec.head == "cloze") {
    check(classes >= 2, "head=cloze: task {} has no classes", task.name);
    return std::make_unique<ClozeHead>(task.label_words);
  }
  if (spec.head == "family") return family_head(task, spec, model).head;
  check(spec.head == "linear" || spec.head == "dense",
        "head={}: there are linear, dense, cloze and family", spec.head);
  auto head = std::make_unique<LinearHead>(build, model.arch(), classes, pool_named(spec.pool),
                                           spec.head == "dense");
  if (classes > 0) head->labels = task.labels;
  return head;
}

std::string why_not_handed_back(const RunSpec& spec, Goal goal) {
  if (goal == Goal::language || spec.head == "cloze" || spec.head == "family" ||
      spec.head == "text")
    return {};
  return fmt::format(
      "transformers has no class with this head (head={}, pool={}); --head family trains the one "
      "that it has",
      spec.head, spec.pool);
}

std::string head_in_words(const EncodedTask& task, const RunSpec& spec, const Model& model) {
  if (task.goal == Goal::language || task.text()) return "none of its own";
  if (spec.head == "cloze") return "the model's vocabulary head, read at each label's word";
  if (spec.head == "family") return family_head(task, spec, model).from;
  return fmt::format("a new one: {}, pool={}{}", spec.head, spec.pool,
                     model.has_head() ? "; the checkpoint's own is not used" : "");
}

void append_predictions(const EncodedTask& task, const Tensor& scores, std::vector<float>& into) {
  append_predictions(task, rows_of(scores), into);
}

std::vector<std::vector<double>> output_rows(const Model& model, const EncodedTask& task,
                                             const Batch& batch) {
  if (task.text()) return log_likelihoods(model, *batch.source, task.label_words);
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  return rows_of(model.head().scores(model, s, batch, ctx));
}

Score score_predictions(const EncodedTask& task, const std::vector<EncodedExample>& examples,
                        const std::vector<float>& predictions) {
  check(predictions.size() == examples.size(), "score: {} predictions for {} examples",
        predictions.size(), examples.size());
  Score out;
  out.predictions = predictions;
  if (task.goal == Goal::classification) {
    std::vector<int> truth, got;
    for (std::size_t i = 0; i < examples.size(); ++i) {
      truth.push_back(examples[i].label);
      got.push_back(static_cast<int>(predictions[i]));
      out.rows.push_back(truth.back() == got.back() ? 1.f : 0.f);
    }
    out.metric = class_score(task.metric, truth, got);
  } else if (task.goal == Goal::regression) {
    std::vector<float> truth;
    for (std::size_t i = 0; i < examples.size(); ++i) {
      truth.push_back(examples[i].target);
      const float d = predictions[i] - truth.back();
      out.rows.push_back(d * d);
    }
    out.metric = value_score(task.metric, truth, predictions);
  } else {
    out.rows = predictions;
    out.metric = std::accumulate(predictions.begin(), predictions.end(), 0.0) /
                 static_cast<double>(predictions.size());
  }
  out.metric = turned(task.metric, out.metric);
  return out;
}

Score evaluate(Model& model, const EncodedTask& task, const std::vector<EncodedExample>& examples) {
  NoRecord off;
  std::vector<std::int32_t> order(examples.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<float> predictions;
  for (std::size_t at = 0; at < examples.size(); at += 64) {
    const Batch batch =
        make_batch(task, examples, order, at, std::min<std::size_t>(64, examples.size() - at));
    if (task.goal != Goal::language) {
      append_predictions(task, output_rows(model, task, batch), predictions);
      continue;
    }
    Ctx ctx;
    const Sequence s = model.forward(batch, ctx);
    append_losses(model, s, batch, ctx, predictions);
  }
  return score_predictions(task, examples, predictions);
}

RunResult finetune(Model& base, const EncodedTask& task, const RunSpec& given,
                   const Methods& methods, const AtBest& at_best, const RunPlaces& places) {
  const RunSpec spec = given.on(base.arch());
  check(task.text() == base.arch().crosses(), "train: task {} is encoded for another kind of model",
        task.name);
  const auto begun = std::chrono::steady_clock::now();
  const std::uint64_t base_hash = base.hash();
  pool::reset_peak();
  RunResult out;
  out.base = base.parameters();
  const HeadAside aside(base, make_head(task, spec, base));
  const std::uint64_t head_hash = base.has_head() ? hash_of(base.head()) : 0;
  {
    Build build = base.build();
    build.seed = spec.seed;
    const SeededBuild seeded(base, build);
    Adaptation adaptation(methods, spec.method, base);
    Parameters parameters = adaptation.parameters();
    const Parameters head = train_head(base);
    parameters.insert(parameters.end(), head.begin(), head.end());
    out.trainable = adaptation.count();
    for (const auto& p : head) out.head += p->value.numel();
    check(!parameters.empty(),
          "train: method {} leaves nothing to train on task {}: {} has no head of its own; give a "
          "method that changes the model, such as lora:r=8,on=q+v",
          spec.method, task.name,
          task.goal == Goal::language ? "a language task" : "an encoder-decoder");
    if (places.start) places.start(parameters);

    Optimizer optimizer(parameters, {.kind = optim_named(spec.optimizer),
                                     .eps = spec.eps,
                                     .decay = spec.decay,
                                     .clip = spec.clip});
    const int per_epoch = static_cast<int>((task.train.size() + spec.batch - 1) / spec.batch);
    const int steps = per_epoch * spec.epochs;
    const Schedule schedule{schedule_named(spec.schedule), spec.lr, steps,
                            static_cast<int>(spec.warmup * steps)};
    RunState state(
        places, spec,
        fmt::format("base {:016x}, head {:016x}, task {} ({:016x}){}", base_hash, head_hash,
                    task.name, hash_of(task),
                    places.started_from.empty() ? "" : ", started from " + places.started_from),
        parameters, optimizer);
    int step = state.load();
    Gradients grads;
    while (step < steps) {
      const int epoch = step / per_epoch, within = step % per_epoch;
      const auto order = shuffled(task.train.size(), spec.seed, epoch);
      for (int i = within; i < per_epoch; ++i, ++step) {
        const std::size_t first = std::size_t(i) * spec.batch;
        const std::size_t count = std::min<std::size_t>(spec.batch, task.train.size() - first);
        grads.clear();
        const double loss = gather_gradients(base, adaptation, task, spec, order, first, count,
                                             {spec.seed, static_cast<std::uint32_t>(step)}, grads);
        adaptation.after_backward(step);
        const double norm = optimizer.step(grads, schedule.at(step));
        if (places.log)
          places.log({step, epoch, loss, schedule.at(step), norm,
                      ids_of(task.train, order, first, count)});
        state.loss_sum += loss * static_cast<double>(count);
        if (places.progress) places.progress(step + 1, steps, loss);
        if (i + 1 < per_epoch) state.save_if_due(step + 1);
      }
      grads.clear();
      state.end_epoch(evaluate(base, task, task.dev).metric, task.train.size());
      state.save_if_due(step);
    }
    state.restore_best();
    out.dev = state.dev;
    out.train_loss = state.train_loss;
    out.best_epoch = state.best_epoch;
    out.dev_best = state.dev[state.best_epoch];
    out.weights_hash = hash_of(parameters);
    const Score test = evaluate(base, task, task.test);
    out.test = test.metric;
    out.test_rows = test.rows;
    out.test_predictions = test.predictions;
    if (at_best) at_best(base, adaptation, task);
    state.remove();
  }
  check(base.hash() == base_hash, "train: method {} changed the frozen base", spec.method);
  out.peak_bytes = pool::peak_bytes();
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return out;
}

}  // namespace graft
