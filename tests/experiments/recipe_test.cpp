// The recipe of training: finetune() and multitask() against loops written out here, of the
// library's parts alone. Every number that a run reports and learns is that of the loop, bit for
// bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "experiments/runs/multitask.h"
#include "experiments/runs/run_parts.h"
#include "tests/experiments/small_task.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Values = std::vector<Array>;

// Everything that is not the standard, so that what is not handed on shows.
RunSpec recipe(std::uint32_t seed) {
  return {.method = "lora:r=2,on=q+v,dropout=0.1",
          .lr = 0.05,
          .decay = 0.3,
          .clip = 0.05,
          .warmup = 0.3,
          .eps = 1e-4,
          .epochs = 4,
          .batch = 4,
          .seed = seed};
}

// Up to the rate over the warm-up, and down to 0 over the rest.
double rate_of(const RunSpec& s, int step, int steps) {
  const int rising = static_cast<int>(s.warmup * steps);
  if (step < rising) return s.lr * (step + 1) / rising;
  return s.lr * (1 - static_cast<double>(step - rising) / (steps - rising));
}

Optimizer optimizer_of(const Parameters& parameters, const RunSpec& s) {
  return {parameters,
          {.kind = OptimSpec::Kind::adamw, .eps = s.eps, .decay = s.decay, .clip = s.clip}};
}

Values copies(const Parameters& parameters) {
  Values all;
  for (const auto& p : parameters) all.push_back(p->value.value().clone());
  return all;
}

bool same(const Values& a, const Values& b) {
  return std::ranges::equal(a, b, [](const Array& x, const Array& y) { return same_bits(x, y); });
}

// What a loop did: its steps, and after each epoch its scores on dev and its values.
struct Loop {
  std::vector<StepNote> steps;
  std::vector<double> train_loss;
  std::vector<std::vector<double>> dev;  // of each task
  std::vector<Values> values;
  std::size_t best = 0;
  std::vector<Score> test;
  std::uint64_t hash = 0;

  double mean(std::size_t epoch) const {
    return std::accumulate(dev[epoch].begin(), dev[epoch].end(), 0.0) /
           static_cast<double>(dev[epoch].size());
  }
  void end_epoch(double loss, std::vector<double> scores, const Parameters& parameters) {
    train_loss.push_back(loss);
    dev.push_back(std::move(scores));
    values.push_back(copies(parameters));
    if (mean(dev.size() - 1) > mean(best)) best = dev.size() - 1;
  }
  // The best epoch's values, and what they score on test.
  void finish(const Parameters& parameters) {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      parameters[i]->value.value().copy_from(values[best][i]);
    hash = hash_of(parameters);
  }
};

// A model with a linear head for each task and the method attached.
struct Bench {
  Bench(const std::vector<EncodedTask>& of, const RunSpec& spec)
      : tasks(of), base(arch_of(Stack::encoder)) {
    Build build = base.build();
    build.seed = spec.seed;
    base.set_build(build);
    for (const EncodedTask& task : tasks) {
      const int classes = task.goal == Goal::regression ? 0 : static_cast<int>(task.labels.size());
      base.set_head(std::make_unique<LinearHead>(build, base.arch(), classes, Pool::mean));
      of_head.push_back(train_head(base));
      heads.push_back(base.set_head(nullptr));
    }
    adaptation.emplace(all_methods(), spec.method, base);
    all = shared = adaptation->parameters();
    for (const Parameters& head : of_head) all.insert(all.end(), head.begin(), head.end());
  }

  void use(std::size_t task) {
    if (now < heads.size()) heads[now] = base.set_head(nullptr);
    base.set_head(std::move(heads[task]));
    now = task;
  }
  std::vector<double> scores() {
    std::vector<double> of_dev;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      use(t);
      of_dev.push_back(evaluate(base, tasks[t], tasks[t].dev).metric);
    }
    return of_dev;
  }
  void test(Loop& loop) {
    loop.finish(all);
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      use(t);
      loop.test.push_back(evaluate(base, tasks[t], tasks[t].test));
    }
  }

  // One pass with dropout over these rows, and its gradients.
  struct Pass {
    double loss;
    Gradients grads;
    std::vector<std::uint32_t> examples;
  };
  Pass pass(std::size_t t, const std::vector<std::int32_t>& rows, Key key) {
    use(t);
    const Batch batch = make_batch(tasks[t], tasks[t].train, rows, 0, rows.size());
    Ctx ctx{.train = true, .key = key};
    const Tensor loss = base.head().loss(base.scores(batch, ctx), batch);
    return {loss.item(), backward(loss), batch.example};
  }

  std::vector<EncodedTask> tasks;
  SmallModel base;
  std::vector<std::unique_ptr<Head>> heads;
  std::vector<Parameters> of_head;
  std::optional<Adaptation> adaptation;
  Parameters shared, all;
  std::size_t now = static_cast<std::size_t>(-1);
};

EncodedTask encoded(const TaskData& task) {
  return encode_task(task, tokenizer(), arch_of(Stack::encoder), {});
}

Loop by_hand(const EncodedTask& task, const RunSpec& spec) {
  Bench bench({task}, spec);
  Optimizer optimizer = optimizer_of(bench.all, spec);
  const int rows = static_cast<int>(task.train.size());
  const int per_epoch = (rows + spec.batch - 1) / spec.batch, steps = per_epoch * spec.epochs;
  Loop loop;
  for (int epoch = 0, step = 0; epoch < spec.epochs; ++epoch) {
    const auto order = shuffled(task.train.size(), spec.seed, epoch);
    double sum = 0;
    for (int at = 0; at < rows; at += spec.batch, ++step) {
      const std::vector<std::int32_t> some(order.begin() + at,
                                           order.begin() + std::min(at + spec.batch, rows));
      auto pass = bench.pass(0, some, {spec.seed, static_cast<std::uint32_t>(step)});
      const double rate = rate_of(spec, step, steps), norm = optimizer.step(pass.grads, rate);
      loop.steps.push_back({step, epoch, pass.loss, rate, norm, pass.examples});
      sum += pass.loss * static_cast<double>(some.size());
    }
    loop.end_epoch(sum / rows, bench.scores(), bench.all);
  }
  bench.test(loop);
  return loop;
}

void check_steps(const std::vector<StepNote>& got, const std::vector<StepNote>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i].step == want[i].step);
    CHECK(got[i].epoch == want[i].epoch);
    CHECK(got[i].loss == want[i].loss);
    CHECK(got[i].rate == want[i].rate);
    CHECK(got[i].norm == want[i].norm);
    CHECK(got[i].examples == want[i].examples);
  }
}

Values values_of(Model& model, const Adaptation& adaptation) {
  Values all = copies(adaptation.parameters());
  model.head().each([&](Weight& w) { all.push_back(w.value().value().clone()); });
  return all;
}

std::vector<EncodedTask> two_tasks() {
  TaskData second = data();
  second.name = "again";
  std::ranges::reverse(second.train);
  second.train.resize(7);
  std::vector<EncodedTask> tasks{encoded(data()), encoded(second)};
  for (std::size_t t = 0; t < tasks.size(); ++t) tasks[t].index = static_cast<int>(t);
  return tasks;
}

// Rows of one task in their order, epoch after epoch.
struct Stream {
  const EncodedTask& task;
  std::uint32_t seed;
  std::size_t at = 0;
  std::vector<std::int32_t> next(int count) {
    std::vector<std::int32_t> rows;
    const std::size_t n = task.train.size();
    for (; count > 0; --count, ++at)
      rows.push_back(shuffled(n, seed, static_cast<int>(at / n))[at % n]);
    return rows;
  }
};

// Uniform weights. `every`: a step is of both tasks, the mean of their gradients; else of one that
// is drawn. A head has an optimizer of its own, which steps where its task does.
Loop tasks_by_hand(const std::vector<EncodedTask>& tasks, const RunSpec& spec, bool every) {
  Bench bench(tasks, spec);
  Optimizer of_shared = optimizer_of(bench.shared, spec);
  std::vector<Optimizer> of_head;
  std::vector<Stream> streams;
  std::vector<std::size_t> sizes;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    of_head.push_back(optimizer_of(bench.of_head[t], spec));
    streams.push_back({tasks[t], spec.seed});
    sizes.push_back(tasks[t].train.size());
  }
  const std::vector<double> shares = task_shares(sizes, 10);
  const std::vector<int> parts = split_by(shares, spec.batch);
  const int rows = static_cast<int>(sizes[0] + sizes[1]);
  const int per_epoch = (rows + spec.batch - 1) / spec.batch, steps = per_epoch * spec.epochs;
  Loop loop;
  double sum = 0;
  for (int step = 0; step < steps; ++step) {
    const Key key{spec.seed, static_cast<std::uint32_t>(step)};
    const double rate = rate_of(spec, step, steps);
    StepNote note{step, step / per_epoch, 0, rate, 0, {}};
    std::vector<std::size_t> whose{static_cast<std::size_t>(drawn_task(shares, key))};
    if (every) whose = {0, 1};
    std::vector<Bench::Pass> passes;
    for (const std::size_t t : whose) {
      passes.push_back(bench.pass(t, streams[t].next(every ? parts[t] : spec.batch), key));
      note.loss += passes.back().loss / static_cast<double>(whose.size());
      const auto& ids = passes.back().examples;
      note.examples.insert(note.examples.end(), ids.begin(), ids.end());
    }
    Gradients grads = passes[0].grads;
    if (every)
      for (const auto& p : bench.shared) {
        Array mean = Array::zeros(p->value.shape());
        for (Bench::Pass& pass : passes) kernels::axpy(mean, pass.grads[p->value], 0.5);
        grads[p->value] = mean;
      }
    note.norm = of_shared.step(grads, rate);
    for (std::size_t i = 0; i < whose.size(); ++i) of_head[whose[i]].step(passes[i].grads, rate);
    loop.steps.push_back(note);
    sum += note.loss;
    if ((step + 1) % per_epoch != 0) continue;
    loop.end_epoch(sum / per_epoch, bench.scores(), bench.all);
    sum = 0;
  }
  bench.test(loop);
  return loop;
}

}  // namespace

TEST_CASE("fine-tuning is its recipe: every step, rate, loss and value is that of a plain loop") {
  const Threads one(1);
  int early = 0, late = 0, clipped = 0;
  for (const auto kind : {TaskData::Kind::classification, TaskData::Kind::regression})
    for (std::uint32_t seed = 1; seed <= 5; ++seed) {
      CAPTURE(seed);
      const EncodedTask task = encoded(data(kind));
      const RunSpec spec = recipe(seed);
      const Loop want = by_hand(task, spec);

      std::vector<StepNote> notes;
      RunPlaces places;
      places.log = [&](const StepNote& note) { notes.push_back(note); };
      Values at_best;
      SmallModel base(arch_of(Stack::encoder));
      const RunResult got = finetune(
          base, task, spec, all_methods(),
          [&](Model& model, Adaptation& adaptation, const EncodedTask&) {
            at_best = values_of(model, adaptation);
          },
          places);

      check_steps(notes, want.steps);
      CHECK(got.train_loss == want.train_loss);
      REQUIRE(got.dev.size() == want.dev.size());
      for (std::size_t e = 0; e < got.dev.size(); ++e) CHECK(got.dev[e] == want.dev[e][0]);
      CHECK(got.best_epoch == static_cast<int>(want.best));
      CHECK(got.dev_best == want.dev[want.best][0]);
      CHECK(same(at_best, want.values[want.best]));
      CHECK(got.weights_hash == want.hash);
      CHECK(got.test == want.test[0].metric);
      CHECK(got.test_predictions == want.test[0].predictions);

      if (got.best_epoch + 1 < spec.epochs) {
        ++early;
        CHECK_FALSE(same(at_best, want.values.back()));
      }
      late += got.best_epoch > 0;
      clipped += std::ranges::any_of(notes, [&](const auto& n) { return n.norm > spec.clip; });
      CHECK_FALSE(notes[0].examples == notes[4].examples);  // the second epoch has another order
      CHECK(notes[0].rate < notes[3].rate);
      CHECK(notes[15].rate < notes[4].rate);
    }
  // Or some of what is held here would not be.
  CHECK(early > 0);
  CHECK(late > 0);
  CHECK(clipped == 10);
}

TEST_CASE("training on several tasks is its recipe, one task a step or all of them") {
  const Threads one(1);
  const std::vector<EncodedTask> tasks = two_tasks();
  int early = 0;
  for (const bool every : {false, true})
    for (std::uint32_t seed = 1; seed <= 3; ++seed) {
      CAPTURE(every);
      CAPTURE(seed);
      MultitaskSpec spec{.run = recipe(seed)};
      spec.sampling = every ? "all" : "one";
      const Loop want = tasks_by_hand(tasks, spec.run, every);

      std::vector<StepNote> notes;
      RunPlaces places;
      places.log = [&](const StepNote& note) { notes.push_back(note); };
      std::vector<Values> at_best;
      SmallModel base(arch_of(Stack::encoder));
      const MultitaskResult got = multitask(
          base, tasks, spec, all_methods(),
          [&](Model& model, Adaptation& adaptation, const EncodedTask&, int) {
            at_best.push_back(values_of(model, adaptation));
          },
          places);

      check_steps(notes, want.steps);
      CHECK(got.train_loss == want.train_loss);
      CHECK(got.best_epoch == static_cast<int>(want.best));
      CHECK(got.weights_hash == want.hash);
      REQUIRE(got.tasks.size() == 2);
      for (std::size_t t = 0; t < 2; ++t) {
        REQUIRE(got.tasks[t].dev.size() == want.dev.size());
        for (std::size_t e = 0; e < want.dev.size(); ++e)
          CHECK(got.tasks[t].dev[e] == want.dev[e][t]);
        CHECK(got.tasks[t].test == want.test[t].metric);
        CHECK(got.tasks[t].test_predictions == want.test[t].predictions);
      }
      // The adapter, a matrix and a bias of the one head, and of the other.
      const Values& best = want.values[want.best];
      const std::ptrdiff_t shared = std::ssize(best) - 4;
      Values second(best.begin(), best.begin() + shared);
      second.insert(second.end(), best.end() - 2, best.end());
      REQUIRE(at_best.size() == 2);
      CHECK(same(at_best[0], Values(best.begin(), best.end() - 2)));
      CHECK(same(at_best[1], second));
      early += got.best_epoch + 1 < spec.run.epochs;
    }
  CHECK(early > 0);
}
