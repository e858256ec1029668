#include "experiments/runs/finetune.h"

#include <chrono>
#include <climits>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>

#include "experiments/data/metrics.h"
#include "experiments/runs/run_parts.h"
#include "experiments/runs/run_state.h"
#include "nn/choice.h"
#include "nn/models/heads.h"
#include "nn/optim/diverged.h"
#include "nn/pooling.h"
#include "tensor/cuda/runtime.h"

namespace graft {
namespace {

constexpr const char* kAstray =
    "the base, the head or the adapter holds such a value, or a product of theirs is too large; in "
    "training, lower the rate";

Build seeded(Build build, std::uint32_t seed) {
  build.seed = seed;
  return build;
}

StartedHead family_head(const EncodedTask& task, const RunSpec& spec, const Model& model) {
  check(spec.pool == "mean",
        "head=family: the family's own head has its own way of pooling; leave pool={} out",
        spec.pool);
  return start_family_head(
      seeded(model.build(), spec.seed), model,
      task.goal == Goal::regression ? std::vector<std::string>{} : task.labels);
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
    const double loss = model.lm_loss(s, one, ctx).item();
    check_converges(std::isfinite(loss), "score: row {}: its loss is {}; {}", into.size(), loss,
                    kAstray);
    into.push_back(static_cast<float>(loss));
  }
}

std::vector<std::vector<double>> rows_of(const Tensor& scores) {
  const std::vector<double> values = scores.value().to_vector();
  const auto k = static_cast<std::ptrdiff_t>(scores.dim(1));
  std::vector<std::vector<double>> rows;
  for (auto at = values.begin(); at != values.end(); at += k) rows.emplace_back(at, at + k);
  return rows;
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
  const Build build = seeded(model.build(), spec.seed);
  const int classes = task.goal == Goal::regression ? 0 : static_cast<int>(task.labels.size());
  if (spec.head == "cloze") {
    check(classes >= 2, "head=cloze: task {} has no classes", task.name);
    check(spec.pool == "mean",
          "head=cloze reads the mask's row, so pool={} means nothing; leave it out", spec.pool);
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

void append_predictions(const EncodedTask& task, const std::vector<std::vector<double>>& rows,
                        std::vector<float>& into) {
  for (const auto& row : rows) {
    for (const double score : row)  // the largest of scores among which is NaN means nothing
      check_converges(std::isfinite(score), "score: task {}, row {}: a score is {}; {}", task.name,
                      into.size(), score, kAstray);
    if (task.goal == Goal::regression && !task.text()) {
      into.push_back(static_cast<float>(row[0]));
      continue;
    }
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    into.push_back(task.goal == Goal::regression ? task.values.at(static_cast<std::size_t>(best))
                                                 : static_cast<float>(best));
  }
}

void append_predictions(const EncodedTask& task, const Tensor& scores, std::vector<float>& into) {
  append_predictions(task, rows_of(scores), into);
}

std::vector<std::vector<double>> output_rows(const Model& model, const EncodedTask& task,
                                             const Batch& batch, FrozenRows* frozen) {
  if (task.text()) return log_likelihoods(model, *batch.source, task.label_words);
  Ctx ctx{.frozen = frozen};
  return rows_of(model.scores(batch, ctx));
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
    out.also = other_class_scores(task.metric, task.labels.size(), truth, got);
  } else if (task.goal == Goal::regression) {
    std::vector<float> truth;
    for (std::size_t i = 0; i < examples.size(); ++i) {
      truth.push_back(examples[i].target);
      const float d = predictions[i] - truth.back();
      out.rows.push_back(d * d);
    }
    out.metric = value_score(task.metric, truth, predictions);
    out.also = other_value_scores(task.metric, truth, predictions);
  } else {
    out.rows = predictions;
    out.metric = std::accumulate(predictions.begin(), predictions.end(), 0.0) /
                 static_cast<double>(predictions.size());
  }
  out.metric = turned(task.metric, out.metric);
  return out;
}

Score evaluate(Model& model, const EncodedTask& task, const std::vector<EncodedExample>& examples,
               FrozenRows* frozen, const RowsDone& done) {
  NoRecord off;
  std::vector<std::int32_t> order(examples.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<float> predictions;
  for (std::size_t at = 0; at < examples.size(); at += 64) {
    if (done) done(at);
    const Batch batch =
        make_batch(task, examples, order, at, std::min<std::size_t>(64, examples.size() - at));
    if (task.goal != Goal::language) {
      append_predictions(task, output_rows(model, task, batch, frozen), predictions);
      continue;
    }
    Ctx ctx{.frozen = frozen};
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
  check(spec.device == name(base.build().device),
        "train: the run is for device {}, the base lies on {}", spec.device,
        name(base.build().device));
  const auto begun = std::chrono::steady_clock::now();
  const std::uint64_t base_hash = base.hash();
  pool::reset_peak();
  RunResult out;
  out.base = base.parameters();
  const HeadAside aside(base, make_head(task, spec, base));
  const std::uint64_t head_hash = base.has_head() ? hash_of(base.head()) : 0;
  {
    const SeededBuild by_seed(base, seeded(base.build(), spec.seed));
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
    begin(base, {&task}, spec, adaptation, head, places);
    auto half = computing_in(base, spec.compute, adaptation.stored());

    Optimizer optimizer(parameters, {.kind = optim_named(spec.optimizer),
                                     .eps = spec.eps,
                                     .decay = spec.decay,
                                     .clip = spec.clip});
    const int per_epoch = static_cast<int>((task.train.size() + spec.batch - 1) / spec.batch);
    const std::int64_t all = std::int64_t{per_epoch} * spec.epochs;
    check(all <= INT_MAX, "train: {} epochs of {} steps are {} steps; need {} at most", spec.epochs,
          per_epoch, all, INT_MAX);
    const int steps = static_cast<int>(all);
    const int until = places.stop_after > 0 && places.stop_after < spec.epochs
                          ? per_epoch * places.stop_after
                          : steps;
    const Schedule schedule = schedule_of(spec, steps);
    RunState state(
        places, spec,
        fmt::format("base {:016x}, head {:016x}, task ({:016x}){}", base_hash, head_hash,
                    hash_of(task),
                    places.started_from.empty() ? "" : ", started from " + places.started_from),
        parameters, adaptation.stored(), optimizer);
    int step = state.load(schedule, per_epoch);
    check(step <= until, "train: {} steps are done already; it cannot stop after {}", step, until);
    // One more pass over the examples would be no saving. And on the device a row's bits may depend
    // on the other rows of its batch, so that kept rows would make a resumed run another one.
    const bool keeps = until - step > per_epoch && base.build().device == Device::cpu;
    FrozenRows frozen(base, keeps ? places.frozen_bytes : 0);
    Gradients grads;
    while (step < until) {
      const int epoch = step / per_epoch, within = step % per_epoch;
      const auto order = shuffled(task.train.size(), spec.seed, epoch);
      for (int i = within; i < per_epoch; ++i, ++step) {
        const std::size_t first = std::size_t(i) * spec.batch;
        const std::size_t count = std::min<std::size_t>(spec.batch, task.train.size() - first);
        double loss = 0;
        const auto one_step = [&] {
          const StepLoss of_step =
              gather_gradients(base, adaptation, task, spec, order, first, count,
                               {spec.seed, static_cast<std::uint32_t>(step)}, grads, &frozen,
                               state.loss_scale.value);
          adaptation.after_backward(step);
          optimizer.start(grads, schedule.at(step), state.loss_scale.value);
          loss = of_step.value();
        };
        do {
          grads.clear();
          cuda::gathered(base.build().device, one_step);
        } while (optimizer.overflowed() && state.loss_scale.lower());
        const double norm = optimizer.finish();
        state.loss_scale.step_done();
        if (places.log)
          places.log({step, epoch, loss, schedule.at(step), norm,
                      ids_of(task.train, order, first, count)});
        state.loss_sum += loss * static_cast<double>(count);
        if (places.progress) places.progress(step + 1, steps, loss);
        if (i + 1 < per_epoch) state.save_if_due(step + 1);
      }
      grads.clear();
      state.end_epoch(evaluate(base, task, task.dev, &frozen).metric, task.train.size());
      state.save_if_due(step);
    }
    state.restore_best();
    out.frozen_blocks = frozen.blocks(), out.frozen_bytes = frozen.bytes();
    out.drawing_blocks = frozen.drawing();
    out.dev = state.dev;
    out.train_loss = state.train_loss;
    out.best_epoch = state.best_epoch;
    out.dev_best = state.dev[state.best_epoch];
    out.weights_hash = hash_of(parameters);
    const Score test = evaluate(base, task, task.test);
    out.test = test.metric;
    out.test_rows = test.rows;
    out.test_predictions = test.predictions;
    out.peak_bytes = pool::peak_bytes(base.build().device);  // before the wide base comes back
    if (places.measure) places.measure(base, adaptation, task);
    half.reset();  // what is saved now is what it was
    if (at_best) at_best(base, adaptation, task);
    state.keep();
    state.remove();
  }
  check(base.hash() == base_hash, "train: method {} changed the frozen base", spec.method);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return out;
}

}  // namespace graft
