// The baselines of tasks: linear models on words, and their search.
#include "experiments/data/baselines.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "experiments/data/sparse_linear.h"
#include "tests/experiments/fruit_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("the minimiser finds the bottom of a narrow valley") {
  const data::Objective rosenbrock = [](const std::vector<double>& x, std::vector<double>& g) {
    const double a = 1 - x[0], b = x[1] - x[0] * x[0];
    g = {-2 * a - 400 * x[0] * b, 200 * b};
    return a * a + 100 * b * b;
  };
  std::vector<double> x = {-1.2, 1};
  data::minimise(rosenbrock, x, 200, 1e-9);
  CHECK(x[0] == doctest::Approx(1).epsilon(1e-6));
  CHECK(x[1] == doctest::Approx(1).epsilon(1e-6));
}

TEST_CASE("ridge regression on one feature matches its closed form") {
  const std::vector<data::SparseRow> rows = {{{0, 1.f}}, {{0, 2.f}}, {{0, 4.f}}, {}};
  LinearOptions options;
  options.c = 0.5;
  const auto model = data::fit_ridge(rows, {1, 3, 5, 2}, 1, options);
  // Around the means: w = Sxy / (Sxx + 1 / c), bias = my - w mx.
  const double w = 7.75 / (8.75 + 2), mx = 1.75, my = 2.75;
  CHECK(model(rows[2])[0] == doctest::Approx(my + w * (4 - mx)).epsilon(1e-4));
  CHECK(model(rows[3])[0] == doctest::Approx(my - w * mx).epsilon(1e-4));
}

TEST_CASE("two classes as one output or as two give the same labels") {
  const std::vector<data::SparseRow> rows = {{{0, 1.f}}, {{1, 1.f}}, {{0, .5f}, {1, .1f}}};
  const std::vector<int> labels = {0, 1, 0};
  const auto one = data::fit_logistic(rows, labels, 2, 2, {});
  const auto three = data::fit_logistic(rows, labels, 3, 2, {});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CHECK(one.label(rows[i]) == labels[i]);
    CHECK(three.label(rows[i]) == labels[i]);
  }
}

TEST_CASE("a pair's features are both rows, their product, their distance and its sum") {
  const data::SparseRow p = {{0, .5f}, {2, .5f}}, q = {{1, .25f}, {2, .5f}};
  CHECK(data::pair_row(p, q, 3) ==
        data::SparseRow{
            {0, .5f}, {2, .5f}, {4, .25f}, {5, .5f}, {8, .25f}, {9, .5f}, {10, .25f}, {12, .25f}});
}

TEST_CASE("baselines learn a toy task and give the same answer twice") {
  const TaskData task = fruit_task();
  CHECK(majority_baseline(task).dev_labels == std::vector<int>{0, 0});
  CHECK(majority_baseline(task).dev == doctest::Approx(0.5));
  for (const Terms terms : {Terms::words, Terms::words_1_3, Terms::chars_2_4}) {
    LinearOptions options;
    options.terms = terms;
    const auto first = linear_baseline(task, options), second = linear_baseline(task, options);
    CHECK(first.dev == 1);
    CHECK(first.test == 1);
    CHECK(first.dev_labels == second.dev_labels);
    CHECK(first.features == second.features);
  }
  LinearOptions one_side;
  one_side.side = Side::only_a;
  contains(error_of([&] { linear_baseline(task, one_side); }), "one text per row");
}

TEST_CASE(
    "a linear model's c is chosen on dev, and the search goes on where the best lies at an end") {
  const TaskData toy = fruit_task();
  const TunedBaseline easy = tuned_linear_baseline(toy);
  CHECK(easy.result.dev == 1);
  CHECK(easy.tried.front().first < easy.c);  // no end of what was tried
  for (const auto& [c, dev] : easy.tried) CHECK((dev < 1 || c >= easy.c));  // the least of the best
  // Each row's own word tells its label, under a common word that tells nothing.
  TaskData task = toy;
  task.train.clear(), task.dev.clear(), task.test.clear();
  std::uint32_t id = 0;
  for (int i = 0; i < 40; ++i) {
    const std::string word = "word" + std::to_string(i % 20);
    Example e;
    e.a = word + (i % 3 ? " common filler" : " other filler"), e.label = i % 20 < 3, e.id = id++;
    (i < 20 ? task.train : i < 30 ? task.dev : task.test).push_back(e);
  }
  const TunedBaseline tuned = tuned_linear_baseline(task);
  CHECK(tuned.tried.size() >= 5);
  double most = 0;
  for (const auto& [c, dev] : tuned.tried) {
    LinearOptions options;
    options.c = c;
    CHECK(linear_baseline(task, options).dev == dev);
    most = std::max(most, dev);
  }
  CHECK(tuned.result.dev == most);
  LinearOptions options;
  options.c = tuned.c;
  CHECK(linear_baseline(task, options).test_labels == tuned.result.test_labels);
  CHECK(std::is_sorted(tuned.tried.begin(), tuned.tried.end()));
}
