#include "experiments/runs/multitask.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "experiments/runs/multitask_parts.h"
#include "experiments/runs/run_parts.h"
#include "experiments/runs/run_state.h"
#include "tensor/cuda/runtime.h"

namespace graft {
namespace {

// A task's training rows: those that steps learn from and, for metaweighting, those held out.
struct Rows {
  std::vector<RowStream> support, query;
};

Rows rows_of(const std::vector<EncodedTask>& tasks, const MultitaskSpec& spec) {
  Rows rows;
  for (const EncodedTask& task : tasks) {
    std::vector<std::int32_t> all(task.train.size());
    std::iota(all.begin(), all.end(), 0);
    std::vector<std::int32_t> held;
    if (spec.weights == "metaweighting") {
      check(all.size() >= 2, "multitask: task {} has {} training row; metaweighting holds out some",
            task.name, all.size());
      all = shuffled(all.size(), spec.run.seed, -1);
      const auto part = spec.query * static_cast<double>(all.size());
      const auto n = std::clamp<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(part + 0.5), 1,
                                                static_cast<std::ptrdiff_t>(all.size()) - 1);
      held.assign(all.end() - n, all.end());
      all.resize(all.size() - static_cast<std::size_t>(n));
      rows.query.emplace_back(std::move(held), spec.run.seed);
    }
    rows.support.emplace_back(std::move(all), spec.run.seed);
  }
  return rows;
}

std::vector<const EncodedTask*> pointers(const std::vector<EncodedTask>& tasks) {
  std::vector<const EncodedTask*> all;
  for (const EncodedTask& t : tasks) all.push_back(&t);
  return all;
}

struct Trainer {
  Trainer(Model& m, std::vector<EncodedTask>& t, const MultitaskSpec& s, Adaptation& a,
          TaskHeads& h, const RunPlaces& p)
      : model(m), tasks(t), spec(s), adaptation(a), heads(h), places(p) {
    for (std::size_t i = 0; i < tasks.size(); ++i) sizes.push_back(rows.support[i].size());
    shares = task_shares(sizes, spec.temperature);
    per_task = split_by(shares, spec.run.batch);
    const OptimSpec optim{.kind = optim_named(spec.run.optimizer),
                          .eps = spec.run.eps,
                          .decay = spec.run.decay,
                          .clip = spec.run.clip};
    optimizers.push_back(std::make_unique<Optimizer>(shared, optim));
    for (int i = 0; i < count(); ++i)
      optimizers.push_back(heads.parameters(i).empty()
                               ? nullptr
                               : std::make_unique<Optimizer>(heads.parameters(i), optim));
    const std::size_t rows_in_all = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
    per_epoch = static_cast<int>((rows_in_all + spec.run.batch - 1) / spec.run.batch);
    steps = per_epoch * spec.run.epochs;
    schedule = {schedule_named(spec.run.schedule), spec.run.lr, steps,
                static_cast<int>(spec.run.warmup * steps)};
  }

  int count() const { return static_cast<int>(tasks.size()); }

  // One pass of a task over its next rows.
  struct Pass {
    double loss = 0;
    Gradients grads;
    std::vector<std::uint32_t> examples;
  };
  Pass pass(int t, RowStream& stream, int sequences, int step) {
    const EncodedTask& task = tasks[static_cast<std::size_t>(t)];
    const std::vector<std::int32_t> order = stream.next(sequences);
    heads.use(t);
    Pass p;
    cuda::gathered(model.build().device, [&] {
      p.loss = gather_gradients(model, adaptation, task, spec.run, order, 0, order.size(),
                                {spec.run.seed, static_cast<std::uint32_t>(step)}, p.grads)
                   .value();
    });
    p.examples = ids_of(task.train, order, 0, order.size());
    return p;
  }

  // The shared parameters' part, in arrays of its own.
  TaskGradient shared_part(Gradients& grads) const {
    TaskGradient all;
    for (const auto& p : shared) {
      check(grads.has(p->value), "multitask: no gradient reached '{}'", p->label());
      all.push_back(grads[p->value].clone());
    }
    return all;
  }
  void put(Gradients& grads, const TaskGradient& all) const {
    for (std::size_t i = 0; i < shared.size(); ++i) grads[shared[i]->value] = all[i];
  }

  void step_head(int t, Gradients& grads, double rate, double weight) {
    const auto& optimizer = optimizers[static_cast<std::size_t>(t) + 1];
    if (!optimizer) return;
    if (weight != 1)
      for (const auto& p : heads.parameters(t)) {
        Array scaled = grads[p->value].clone();
        kernels::scale(scaled, scaled, weight);
        grads[p->value] = scaled;
      }
    RuledStep ruled(rules, heads.parameters(t), {t}, spec.run.decay, true);
    optimizer->step(grads, rate);
    ruled.finish(rate);
  }

  StepNote one_task(int step) {
    const int t = drawn_task(shares, {spec.run.seed, static_cast<std::uint32_t>(step)});
    Pass p = pass(t, rows.support[static_cast<std::size_t>(t)], spec.run.batch, step);
    TaskGradient g = shared_part(p.grads);
    rules.shape(t, shared, start, g, false);
    put(p.grads, g);
    adaptation.after_backward(step);
    const double rate = schedule.at(step);
    RuledStep ruled(rules, shared, {t}, spec.run.decay, true);
    const double norm = optimizers[0]->step(p.grads, rate);
    ruled.finish(rate);
    step_head(t, p.grads, rate, 1);
    ++state->task_steps[static_cast<std::size_t>(t)];
    return {step, step / per_epoch, p.loss, rate, norm, p.examples};
  }

  std::vector<TaskGradient> shaped(std::vector<Pass>& passes) {
    std::vector<TaskGradient> all;
    for (int t = 0; t < count(); ++t) {
      all.push_back(shared_part(passes[static_cast<std::size_t>(t)].grads));
      rules.shape(t, shared, start, all.back(), true);
    }
    return all;
  }

  StepNote all_tasks(int step) {
    std::vector<Pass> passes;
    std::vector<double> loss;
    StepNote note{step, step / per_epoch, 0, schedule.at(step), 0, {}};
    for (int t = 0; t < count(); ++t) {
      const auto i = static_cast<std::size_t>(t);
      passes.push_back(pass(t, rows.support[i], per_task[i], step));
      loss.push_back(passes[i].loss);
      note.loss += loss[i] / count();
      note.examples.insert(note.examples.end(), passes[i].examples.begin(),
                           passes[i].examples.end());
      ++state->task_steps[i];
    }
    put(passes[0].grads, weights.combine(loss, shaped(passes), step));
    adaptation.after_backward(step);
    std::vector<int> all(tasks.size());
    std::iota(all.begin(), all.end(), 0);
    {
      RuledStep ruled(rules, shared, all, spec.run.decay, false);
      note.norm = optimizers[0]->step(passes[0].grads, note.rate);
      ruled.finish(note.rate);
    }
    for (int t = 0; t < count(); ++t)
      step_head(t, passes[static_cast<std::size_t>(t)].grads, note.rate,
                weights.applied()[static_cast<std::size_t>(t)]);
    if (!weights.looks_ahead()) return note;
    std::vector<Pass> query;
    for (int t = 0; t < count(); ++t) {
      const auto i = static_cast<std::size_t>(t);
      query.push_back(pass(t, rows.query[i], per_task[i], step));
    }
    weights.look_ahead(shaped(query), note.rate);
    return note;
  }

  void train() {
    int step = state->load();
    while (step < steps) {
      const StepNote note = spec.sampling == "one" ? one_task(step) : all_tasks(step);
      if (places.log) places.log(note);
      state->loss_sum += note.loss;
      ++step;
      if (places.progress) places.progress(step, steps, note.loss);
      if (step % per_epoch == 0) {
        std::vector<double> dev;
        for (int t = 0; t < count(); ++t) {
          heads.use(t);
          const EncodedTask& task = tasks[static_cast<std::size_t>(t)];
          dev.push_back(evaluate(model, task, task.dev).metric);
        }
        state->end_epoch(std::move(dev), per_epoch);
      }
      state->save_if_due(step);
    }
    state->restore_best();
  }

  Model& model;
  std::vector<EncodedTask>& tasks;
  const MultitaskSpec& spec;
  Adaptation& adaptation;
  TaskHeads& heads;
  const RunPlaces& places;
  Rows rows = rows_of(tasks, spec);
  TaskRules rules = rules_of(spec, tasks, model.arch());
  TaskWeights weights{{.kind = weights_named(spec.weights),
                       .rate = spec.weight_rate,
                       .alpha = spec.gradnorm_alpha,
                       .seed = spec.run.seed},
                      static_cast<int>(tasks.size())};
  Parameters shared = adaptation.parameters();
  std::vector<Array> start;  // of the shared parameters, where a rule pulls towards it
  std::vector<std::size_t> sizes;
  std::vector<double> shares;
  std::vector<int> per_task;
  std::vector<std::unique_ptr<Optimizer>> optimizers;  // the shared one, then the heads'
  int per_epoch = 0, steps = 0;
  Schedule schedule;
  std::optional<MultitaskState> state;
};

void check_tasks(const Model& base, std::vector<EncodedTask>& tasks) {
  check(tasks.size() >= 2, "multitask: {} task; need two or more (graft train has one)",
        tasks.size());
  std::set<std::string> names;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    check(names.insert(tasks[t].name).second, "multitask: task {} is there twice", tasks[t].name);
    check(tasks[t].text() == base.arch().crosses(),
          "multitask: task {} is encoded for another kind of model", tasks[t].name);
    tasks[t].index = static_cast<int>(t);
  }
}

TaskOutcome outcome(Trainer& trainer, int t) {
  const auto i = static_cast<std::size_t>(t);
  const EncodedTask& task = trainer.tasks[i];
  trainer.heads.use(t);
  const Score test = evaluate(trainer.model, task, task.test);
  TaskOutcome o{task.name,
                task.metric,
                {},
                test.metric,
                test.rows,
                test.predictions,
                {},
                0,
                trainer.state->task_steps[i],
                0};
  for (const auto& epoch : trainer.state->dev) o.dev.push_back(epoch[i]);
  for (const auto& epoch : trainer.state->task_weight) o.weight.push_back(epoch[i]);
  for (const auto& p : trainer.heads.parameters(t)) o.head += p->value.numel();
  const bool one = trainer.spec.sampling == "one";
  o.seen = std::int64_t{o.steps} * (one ? trainer.spec.run.batch : trainer.per_task[i]);
  return o;
}

}  // namespace

MultitaskResult multitask(Model& base, std::vector<EncodedTask> tasks, const MultitaskSpec& given,
                          const Methods& methods, const AtBestOfTask& at_best,
                          const RunPlaces& places) {
  MultitaskSpec spec = given.settled();
  spec.run = spec.run.on(base.arch());
  check(spec.run.device == name(base.build().device),
        "multitask: the run is for device {}, the base lies on {}", spec.run.device,
        name(base.build().device));
  check_tasks(base, tasks);
  const auto begun = std::chrono::steady_clock::now();
  const std::uint64_t base_hash = base.hash();
  pool::reset_peak();
  MultitaskResult out;
  out.base = base.parameters();
  {
    TaskHeads heads(base, tasks, spec.run);
    Build build = base.build();
    build.seed = spec.run.seed;
    const SeededBuild seeded(base, build);
    spec.run.method = spec_for_tasks(spec.run.method, methods, static_cast<int>(tasks.size()));
    Adaptation adaptation(methods, spec.run.method, base);
    out.trainable = adaptation.count();
    check(out.trainable > 0, "multitask: method {} has nothing that tasks share", spec.run.method);
    begin(base, pointers(tasks), spec.run, adaptation, {}, places);
    auto half = computing_in(base, spec.run.compute, adaptation.stored());
    Trainer trainer(base, tasks, spec, adaptation, heads, places);
    const std::vector<Handle> dropout =
        trainer.rules.add_dropout(base, static_cast<int>(tasks.size()));
    for (const auto& p : trainer.shared) trainer.start.push_back(p->value.value().clone());
    Parameters all = trainer.shared;
    std::string on = fmt::format("base {:016x}, heads {:016x}", base_hash, heads.start_hash());
    std::vector<RowStream*> streams;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const Parameters& head = heads.parameters(static_cast<int>(t));
      all.insert(all.end(), head.begin(), head.end());
      on += fmt::format(", task {} ({:016x})", tasks[t].name, hash_of(tasks[t]));
      streams.push_back(&trainer.rows.support[t]);
      if (trainer.weights.looks_ahead()) streams.push_back(&trainer.rows.query[t]);
    }
    if (!places.started_from.empty()) on += ", started from " + places.started_from;
    trainer.state.emplace(MultitaskState{places, spec.run.json().dump() + spec.json().dump(), on,
                                         all, trainer.optimizers, streams, trainer.weights});
    trainer.state->task_steps.assign(tasks.size(), 0);
    trainer.train();
    out.train_loss = trainer.state->train_loss;
    out.best_epoch = trainer.state->best_epoch;
    out.weights_hash = hash_of(all);
    out.peak_bytes = pool::peak_bytes(base.build().device);
    for (int t = 0; t < trainer.count(); ++t) {
      if (!half) half = computing_in(base, spec.run.compute, adaptation.stored());
      out.tasks.push_back(outcome(trainer, t));
      if (!at_best) continue;
      half.reset();  // what is saved now is what it was
      at_best(base, adaptation, tasks[static_cast<std::size_t>(t)], t);
    }
    if (!places.state.empty()) std::filesystem::remove(places.state);
  }
  check(base.hash() == base_hash, "multitask: method {} changed the frozen base", spec.run.method);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return out;
}

}  // namespace graft
