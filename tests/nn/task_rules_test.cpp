// What one task or some layers do otherwise: rates, decay, dropout, a pull to the start.
#include "nn/optim/task_rules.h"

#include <doctest/doctest.h>

#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Rules = std::vector<TaskRule>;

std::shared_ptr<Parameter> parameter(int layer, double value, bool decay = true) {
  const Site site{Stack::encoder, layer, Part::q};
  auto p = std::make_shared<Parameter>(Parameter{site, "p", {}, decay, 1});
  p->value = Tensor::leaf(Array::full({2}, value), p->label());
  return p;
}

Gradients ones(const Parameters& all) {
  Tensor total;
  for (const auto& p : all) total = total.defined() ? total + sum(p->value) : sum(p->value);
  return backward(total);
}

}  // namespace

TEST_CASE("of several rules the last that covers a task and a layer counts") {
  const TaskRules rules(
      Rules{{.lr = 0.5}, {.first = 0, .last = 1, .lr = 2.0}, {.task = 1, .lr = 0.0}});
  CHECK(rules.lr(0, 0) == 2);
  CHECK(rules.lr(0, 2) == 0.5);
  CHECK(rules.lr(0, -1) == 0.5);  // heads and embeddings are in no range of layers
  CHECK(rules.lr(1, 0) == 0);
  CHECK(rules.decay(0, 0, 0.01) == 0.01);
  CHECK(rules.dropout(0, 0) == 0);
  contains(error_of([] { TaskRules(Rules{{.task = 1}}); }), "says nothing");
  contains(error_of([] { TaskRules(Rules{{.dropout = 1.0}}); }),
           "dropout=1; need 0 <= dropout < 1");
  contains(error_of([] { TaskRules(Rules{{.pull = -1.0}}); }), "pull=-1; need at least 0");
}

TEST_CASE("a task's rate and decay hold for its steps, layer by layer, and no longer") {
  const TaskRules rules(Rules{{.task = 1, .first = 0, .last = 0, .lr = 3.0},
                              {.task = 1, .first = 1, .last = 1, .decay = 0.5}});
  const Parameters all{parameter(0, 1), parameter(1, 1), parameter(1, 1, false)};
  all[2]->name = "bias";
  Optimizer sgd(all, {.kind = OptimSpec::Kind::sgd, .decay = 0, .momentum = 0, .clip = 0});
  const auto step = [&](int task) {
    Gradients grads = ones(all);
    RuledStep ruled(rules, all, {task}, 0, true);
    sgd.step(grads, 0.1);
    ruled.finish(0.1);
  };
  step(0);
  for (const auto& p : all) CHECK(p->value.value().at(0) == doctest::Approx(0.9));
  step(1);
  CHECK(all[0]->value.value().at(0) == doctest::Approx(0.9 - 0.3));
  CHECK(all[1]->value.value().at(0) == doctest::Approx(0.8 * (1 - 0.1 * 0.5)));
  CHECK(all[2]->value.value().at(0) == doctest::Approx(0.8));  // a bias has no decay
  for (const auto& p : all) CHECK(p->lr_scale == 1);
  CHECK(all[1]->decay);
  CHECK_FALSE(all[2]->decay);
}

TEST_CASE("the pull is L2 towards the start, not towards zero") {
  const TaskRules rules(Rules{{.pull = 0.5}});
  const Parameters all{parameter(0, 3)};
  const std::vector<Array> start{Array::full({2}, 1.0)};
  TaskGradient g{Array::full({2}, 0.25)};
  rules.shape(0, all, start, g, false);
  CHECK(g[0].at(0) == doctest::Approx(0.25 + 0.5 * (3 - 1)));
  const TaskRules slow(Rules{{.task = 0, .lr = 0.1, .pull = 0.5}});
  g = {Array::full({2}, 0.25)};
  slow.shape(0, all, start, g, true);
  CHECK(g[0].at(0) == doctest::Approx(0.1 * 1.25));
  g = {Array::full({2}, 0.25)};
  slow.shape(1, all, start, g, true);
  CHECK(g[0].at(0) == 0.25);
}

TEST_CASE("with SGD a task's weight is the rate of what it alone trains; with Adam it is not") {
  const auto moved = [](OptimSpec::Kind kind, double weight) {
    const Parameters all{parameter(0, 1)};
    Optimizer optimizer(all, {.kind = kind, .decay = 0, .momentum = 0, .clip = 0});
    for (int i = 0; i < 5; ++i) {
      Gradients grads = ones(all);
      kernels::scale(grads[all[0]->value], grads[all[0]->value].clone(), weight);
      optimizer.step(grads, 0.01);
    }
    return 1 - all[0]->value.value().at(0);
  };
  CHECK(moved(OptimSpec::Kind::sgd, 0.2) ==
        doctest::Approx(0.2 * moved(OptimSpec::Kind::sgd, 1)).epsilon(1e-4));
  CHECK(moved(OptimSpec::Kind::adamw, 0.2) ==
        doctest::Approx(moved(OptimSpec::Kind::adamw, 1)).epsilon(1e-4));
}

TEST_CASE("dropout of a task falls on its own passes, in its layers, while training") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  const Batch batch = ragged(arch, {4, 3});
  const auto rows = [&](int task, bool train) {
    Ctx ctx{.train = train, .key = {3, 1}, .task = task};
    return model.forward(batch, ctx).rows.value();
  };
  const Array bare = rows(-1, false);
  {
    const TaskRules rules(Rules{{.task = 1, .first = 1, .last = 1, .dropout = 0.5}});
    const std::vector<Handle> handles = rules.add_dropout(model, 2);
    CHECK(handles.size() == 2);  // attention and mlp of one block
    CHECK(same_bits(rows(0, true), bare));
    CHECK(same_bits(rows(1, false), bare));
    CHECK(difference(rows(1, true), bare) > 1e-3);
    CHECK(same_bits(rows(1, true), rows(1, true)));
    contains(error_of([&] { rows(-1, true); }), "a batch does not say whose it is");
  }
  CHECK(same_bits(rows(1, true), bare));
}
