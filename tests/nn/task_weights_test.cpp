// Weighing tasks: closed forms, what each scheme keeps, and what it says of wrong figures.
#include "nn/optim/task_weights.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Kind = WeightSpec::Kind;
using Vector = std::vector<double>;

// A gradient of two parameters, the second of one number.
TaskGradient gradient(const Vector& x) {
  const std::vector<double> head(x.begin(), x.end() - 1);
  return {Array::of(head, {std::int64_t(head.size())}).to(Dtype::f64),
          Array::of(Vector{x.back()}, {1}).to(Dtype::f64)};
}
Vector values(const TaskGradient& g) {
  Vector all;
  for (const Array& a : g)
    for (double v : a.to_vector()) all.push_back(v);
  return all;
}

std::vector<Vector> gram_of(const std::vector<Vector>& vectors) {
  std::vector<Vector> gram(vectors.size(), Vector(vectors.size()));
  for (std::size_t i = 0; i < vectors.size(); ++i)
    for (std::size_t j = 0; j < vectors.size(); ++j)
      gram[i][j] =
          std::inner_product(vectors[i].begin(), vectors[i].end(), vectors[j].begin(), 0.0);
  return gram;
}

Vector drawn(std::uint32_t stream, int n) {
  Vector x;
  for (int i = 0; i < n; ++i) x.push_back(normal({31, 0}, stream, std::uint64_t(i)));
  return x;
}

double total(const Vector& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

}  // namespace

TEST_CASE("the general solver finds the closed form of two tasks, at the ends and between") {
  bool low = false, high = false, between = false;
  for (std::uint32_t i = 0; i < 200; ++i) {
    Vector a = drawn(2 * i, 3), b = drawn(2 * i + 1, 3);
    if (i % 4 == 0)
      for (int k = 0; k < 3; ++k) b[k] = 3 * a[k] + 0.1 * b[k];  // along a, and longer
    if (i % 4 == 1)
      for (int k = 0; k < 3; ++k) b[k] = 0.2 * a[k] + 0.01 * b[k];
    const auto gram = gram_of({a, b});
    const double lambda = min_norm_pair(gram[0][0], gram[0][1], gram[1][1]);
    const Vector w = min_norm_weights(gram);
    CHECK(w[0] == doctest::Approx(lambda).epsilon(1e-9));
    CHECK(w[0] + w[1] == doctest::Approx(1));
    low |= lambda == 0, high |= lambda == 1, between |= lambda > 0.1 && lambda < 0.9;
  }
  CHECK((low && high && between));
  CHECK(min_norm_pair(1, 1, 1) == 0.5);  // the same vector twice
}

TEST_CASE("the solver's point of many tasks is the hull's nearest to zero") {
  for (std::uint32_t i = 0; i < 50; ++i) {
    const int n = 3 + int(i % 6);
    std::vector<Vector> vectors;
    for (int v = 0; v < n; ++v) {
      vectors.push_back(drawn(1000 + 10 * i + std::uint32_t(v), 4 + int(i % 5)));
      vectors.back()[0] += i % 3;  // so that zero is not always in the hull
    }
    const auto gram = gram_of(vectors);
    const Vector w = min_norm_weights(gram);
    Vector slope(vectors.size());
    double square = 0;
    for (std::size_t a = 0; a < w.size(); ++a) {
      CHECK(w[a] >= 0);
      for (std::size_t b = 0; b < w.size(); ++b) slope[a] += gram[a][b] * w[b];
      square += w[a] * slope[a];
    }
    CHECK(total(w) == doctest::Approx(1));
    // No vertex lies lower along the point's direction, and those with weight lie even with it.
    for (std::size_t a = 0; a < w.size(); ++a) {
      CHECK(slope[a] >= square - 1e-8);
      if (w[a] > 1e-6) CHECK(slope[a] == doctest::Approx(square).epsilon(1e-6));
    }
  }
  contains(error_of([] { min_norm_weights({}); }), "there is no vector");
  contains(error_of([] { min_norm_weights({{1, 2}, {2}}); }), "a row of 1 products of 2 vectors");
}

TEST_CASE("uniform weights are the mean of the gradients") {
  TaskWeights w({}, 2);
  CHECK(values(w.combine({1, 2}, {gradient({1, 2, 3}), gradient({3, -2, 5})}, 0)) ==
        Vector{2, 0, 4});
  CHECK(w.weights() == Vector{1, 1});
}

TEST_CASE("uncertainty's weights come to rest at 1 / (2 L), where its loss is least") {
  TaskWeights w({.kind = Kind::uncertainty, .rate = 0.1}, 2);
  const Vector loss{0.25, 3};
  const TaskGradient g = gradient({1, 1});
  CHECK(values(w.combine(loss, {g, g}, 0)) == Vector{0.5, 0.5});  // s = 1: half of each
  for (int i = 0; i < 2000; ++i) w.combine(loss, {g, g}, i);
  CHECK(w.weights()[0] == doctest::Approx(1 / (2 * 0.25)));
  CHECK(w.weights()[1] == doctest::Approx(1 / (2 * 3.0)));
}

TEST_CASE("GradNorm brings the norms together, and a task that lags gets more") {
  TaskWeights even({.kind = Kind::gradnorm, .rate = 0.01}, 2);
  const TaskGradient large = gradient({4, 0}), small = gradient({0, 1});
  for (int i = 0; i < 2000; ++i) even.combine({1, 1}, {large, small}, i);
  Vector w = even.weights();
  CHECK(total(w) == doctest::Approx(2));
  CHECK(4 * w[0] == doctest::Approx(w[1]).epsilon(0.1));
  TaskWeights lag({.kind = Kind::gradnorm, .rate = 0.01}, 2);
  lag.combine({1, 1}, {small, small}, 0);
  for (int i = 1; i < 2000; ++i) lag.combine({0.9, 0.3}, {small, small}, i);
  w = lag.weights();  // w_t ~ r_t^1.5, of which alpha = 1.5
  CHECK(w[0] / w[1] == doctest::Approx(std::pow(3, 1.5)).epsilon(0.1));
}

TEST_CASE("PCGrad takes out what opposes another task, and leaves what does not") {
  TaskWeights w({.kind = Kind::pcgrad}, 2);
  const Vector a{1, 0, 0}, b{-1, 1, 0};
  // a loses its part along b: a - (a.b / b.b) b = (0.5, 0.5, 0); b becomes (0, 1, 0).
  const Vector both = values(w.combine({1, 1}, {gradient(a), gradient(b)}, 0));
  CHECK(both[0] == doctest::Approx(0.25));
  CHECK(both[1] == doctest::Approx(0.75));
  const Vector calm = values(w.combine({1, 1}, {gradient({1, 1, 0}), gradient({1, 0, 2})}, 0));
  CHECK(calm == Vector{1, 0.5, 1});
  // Of three tasks the order matters, and is drawn anew for each step, alike for a seed.
  const std::vector<TaskGradient> three{gradient({1, 0.2, 0}), gradient({-1, 1, 0.3}),
                                        gradient({-0.5, -1, 1})};
  TaskWeights x({.kind = Kind::pcgrad, .seed = 4}, 3), y({.kind = Kind::pcgrad, .seed = 4}, 3);
  bool differs = false;
  const Vector first = values(x.combine({1, 1, 1}, three, 0));
  for (int step = 0; step < 8; ++step) {
    const Vector now = values(x.combine({1, 1, 1}, three, step));
    CHECK(now == values(y.combine({1, 1, 1}, three, step)));
    differs |= now != first;
  }
  CHECK(differs);
}

TEST_CASE("MetaWeighting weighs up the task whose step helps the held out rows of all") {
  TaskWeights w({.kind = Kind::metaweighting, .rate = 0.5}, 2);
  const TaskGradient helps = gradient({1, 1}), harms = gradient({-1, -1});
  contains(error_of([&] { w.look_ahead({helps, helps}, 1); }), "before a step");
  w.combine({1, 1}, {helps, harms}, 0);
  // d_t = -eta / T <query_t, support_j> = -(1, -1): w goes up for the first, down for the second.
  w.look_ahead({helps, helps}, 1);
  CHECK(w.weights()[0] == doctest::Approx(1.5));
  CHECK(w.weights()[1] == doctest::Approx(0.5));
  // Tasks whose held out rows want opposite things: the common direction is 0, nothing moves.
  TaskWeights v({.kind = Kind::metaweighting, .rate = 0.5}, 2);
  v.combine({1, 1}, {helps, harms}, 0);
  v.look_ahead({helps, harms}, 1);
  CHECK(v.weights()[0] == doctest::Approx(1));
}

TEST_CASE("weights go on from their state as if there had been no break") {
  for (Kind kind :
       {Kind::uniform, Kind::uncertainty, Kind::gradnorm, Kind::pcgrad, Kind::metaweighting}) {
    const WeightSpec spec{.kind = kind, .seed = 3};
    TaskWeights whole(spec, 2), first(spec, 2), second(spec, 2);
    const auto step = [](TaskWeights& w, int i) {
      const TaskGradient a = gradient(drawn(5 + i, 3)), b = gradient(drawn(50 + i, 3));
      const Vector out = values(w.combine({1.0 / (i + 1), 2}, {a, b}, i));
      if (w.looks_ahead()) w.look_ahead({b, a}, 0.3);
      return out;
    };
    for (int i = 0; i < 5; ++i) step(whole, i), step(first, i);
    second.load(first.state());
    for (int i = 5; i < 9; ++i) CHECK(step(whole, i) == step(second, i));
    CHECK(whole.state() == second.state());
    contains(error_of([&] { second.load({1, 2, 3, 4, 5}); }), "a state of 5 numbers; need 2");
  }
}

TEST_CASE("shares follow the rows at temperature 1, and are nearly alike at 10") {
  const Vector one = task_shares({100, 300}, 1);
  CHECK(one[0] == doctest::Approx(0.25));
  const Vector ten = task_shares({100, 300}, 10);
  CHECK(ten[1] / ten[0] == doctest::Approx(std::pow(3, 0.1)));
  Vector drawn(2, 0);
  for (std::uint32_t step = 0; step < 20000; ++step) ++drawn[drawn_task(one, {7, step})];
  CHECK(drawn[0] / 20000 == doctest::Approx(0.25).epsilon(0.05));
  CHECK(split_by(one, 8) == std::vector<int>{2, 6});
  CHECK(split_by({0.01, 0.99}, 8) == std::vector<int>{1, 7});
  CHECK(split_by({0.5, 0.5}, 1) == std::vector<int>{1, 1});
  contains(error_of([] { task_shares({100}, 0); }), "temperature 0; need above 0");
  contains(error_of([] { task_shares({100, 0}, 1); }), "task 1 has no rows");
  contains(error_of([] { weights_named("even"); }), "'even' are unknown; there are uniform");
  contains(error_of([] { TaskWeights({.rate = 0}, 2); }), "need a rate above 0");
}
