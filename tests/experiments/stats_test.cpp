// The harness's statistics against closed forms, printed tables and simulated truth.
#include "experiments/harness/stats.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tensor/error.h"

using namespace graft;
using doctest::Approx;

namespace {

// Independent standard normals for simulations, by Box and Muller.
struct Normals {
  std::uint64_t state = 12345;
  double uniform() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (static_cast<double>(state >> 11) + 0.5) / 9007199254740992.0;
  }
  double operator()() {
    return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::acos(-1.0) * uniform());
  }
};

Scores constant_rows(std::vector<float> values, std::size_t examples = 20) {
  Scores scores;
  for (float v : values) scores.push_back(std::vector<float>(examples, v));
  return scores;
}

}  // namespace

TEST_CASE("mean, sd and the t interval have their closed forms") {
  std::vector<double> x = {2, 4, 4, 4, 5, 5, 7, 9};
  CHECK(mean(x) == Approx(5));
  CHECK(sd(x) == Approx(std::sqrt(32.0 / 7)));
  Interval interval = t_interval(x);
  CHECK(interval.high - 5 == Approx(2.364624 * sd(x) / std::sqrt(8.0)));
  CHECK(interval.low + interval.high == Approx(10));
  CHECK_THROWS_AS(sd(std::vector<double>{1}), Error);
  CHECK_THROWS_AS(mean(std::vector<double>{}), Error);
}

TEST_CASE("quantiles agree with printed tables") {
  CHECK(normal_quantile(0.975) == Approx(1.959964).epsilon(1e-6));
  CHECK(normal_quantile(1e-6) == Approx(-4.753424).epsilon(1e-6));
  CHECK(t_quantile(0.975, 1) == Approx(12.7062).epsilon(1e-5));
  CHECK(t_quantile(0.95, 4) == Approx(2.131847).epsilon(1e-6));
  CHECK(t_quantile(0.995, 10) == Approx(3.169273).epsilon(1e-6));
  CHECK(t_quantile(0.025, 120) == Approx(-1.979930).epsilon(1e-6));
  CHECK(t_cdf(1, 1) == Approx(0.75));                             // Cauchy
  CHECK(t_cdf(-2, 2) == Approx(0.5 * (1 - 2 / std::sqrt(6.0))));  // closed form at df 2
  CHECK(t_cdf(1.96, 1e7) == Approx(normal_cdf(1.96)).epsilon(1e-5));
}

TEST_CASE("the bootstrap's error is exact where only seeds vary") {
  Effect e = bootstrap({{{constant_rows({1, 2, 3, 4, 5}), 2}}, 10});
  CHECK(e.value == Approx(16));
  CHECK(e.seed_variance == Approx(10));
  CHECK(e.example_variance == 0);
  CHECK(e.error == Approx(std::sqrt(2.0)));
  CHECK(e.df == Approx(4));
  CHECK(e.seeds == 5);
  // Near Student's t interval; the resampled tail is a little lighter than the normal one.
  CHECK(e.interval.high - 16 == Approx(2.776 * std::sqrt(2.0)).epsilon(0.15));
}

TEST_CASE("the bootstrap's error is exact where only examples vary") {
  std::vector<float> half(100, 0);
  for (std::size_t i = 0; i < 50; ++i) half[i] = 1;
  Effect e = bootstrap({{{Scores(4, half)}}});
  CHECK(e.seed_variance == Approx(0));
  CHECK(e.error == Approx(std::sqrt(0.25 * 100 / 99 / 100)));
  CHECK(e.interval.low == Approx(0.5 - 1.984 * e.error).epsilon(0.03));
  CHECK(e.p_above(0.5 - 2 * e.error) == Approx(0.024).epsilon(0.3));
}

TEST_CASE("pairing cancels what two arms share") {
  Normals normal;
  Scores a, b;
  for (int s = 0; s < 5; ++s) {
    double seed = normal();
    a.emplace_back(), b.emplace_back();
    for (int e = 0; e < 100; ++e) {
      b[s].push_back(static_cast<float>(seed + std::sin(e)));
      a[s].push_back(b[s].back() + 0.5f);
    }
  }
  Effect paired = bootstrap({{{a, 1}, {b, -1}}});
  CHECK(paired.value == Approx(0.5));
  CHECK(paired.error < 1e-6);
  CHECK(paired.p_above(0) < 0.02);
  CHECK(bootstrap({{{a}}}).error > 0.1);
}

TEST_CASE("the bootstrap gives the same numbers every time, and its draws are the estimate's") {
  Scores scores = {{1, 0, 1, 1}, {0, 1, 1, 0}, {1, 1, 1, 1}};
  Effect a = bootstrap({{{scores}}}), b = bootstrap({{{scores}}});
  CHECK(a.draws == b.draws);
  CHECK(bootstrap({{{scores}}}, {.seed = 2}).draws != a.draws);
  CHECK(mean(a.draws) == Approx(a.value).epsilon(0.01));
  CHECK(sd(a.draws) == Approx(a.error).epsilon(0.03));
  CHECK(a.p_above(0.5) + a.p_below(0.5) == Approx(1));
  CHECK(a.p_above(-1) <= a.p_above(0));
  CHECK_THROWS_AS(bootstrap({{{scores}, {Scores{{1, 0, 1, 1}}}}}), Error);
  CHECK_THROWS_AS(bootstrap({{{scores}, {Scores{{1}, {1}, {1}}}}}), Error);
  CHECK_NOTHROW(bootstrap({{{scores, 0.5}, {Scores{{1}, {1}, {1}}, 0.5, "another test"}}}));
}

TEST_CASE("under a true null the bootstrap errs about as often as it says") {
  Normals normal;
  int errors = 0, covered = 0;
  constexpr int kRepeats = 600;
  for (int r = 0; r < kRepeats; ++r) {
    Scores scores(5, std::vector<float>(60));
    double example[60];
    for (double& e : example) e = 0.1 * normal();
    for (auto& row : scores) {
      double seed = 0.05 * normal();
      for (std::size_t e = 0; e < row.size(); ++e)
        row[e] = static_cast<float>(seed + example[e] + 0.3 * normal());
    }
    Effect effect = bootstrap({{{scores}}}, {.draws = 400});
    errors += effect.p_above(0) <= 0.05;
    covered += effect.interval.low <= 0 && effect.interval.high >= 0;
  }
  CHECK(errors < 0.08 * kRepeats);
  CHECK(errors > 0.02 * kRepeats);
  CHECK(covered > 0.92 * kRepeats);
  CHECK(covered < 0.98 * kRepeats);
}

TEST_CASE("equivalence needs the whole error inside the margin") {
  Effect near = bootstrap({{{constant_rows({-1, -0.5, 0, 0.5, 1})}}, 0.1});
  CHECK(near.p_equivalent(2) < 0.05);
  CHECK(near.p_equivalent(0.5) > 0.05);
  CHECK(near.p_equivalent(0.05) > 0.5);
  CHECK(near.p_equivalent(2) == Approx(near.p_below(2)));
  CHECK_THROWS_AS(near.p_equivalent(0), Error);
}

TEST_CASE("where nothing varies there is nothing to test: p is 0 or 1, as the interval is") {
  const Scores same = constant_rows({1, 1, 1, 1, 1});
  const Effect alike = bootstrap({{{same, 100}, {same, -100}}});
  CHECK(alike.error == 0);
  CHECK(alike.interval.low == 0);
  CHECK(alike.interval.high == 0);
  CHECK(alike.p_equivalent(1) == 0);
  CHECK(alike.p_above(-1) == 0);
  CHECK(alike.p_above(0) == 1);  // it is not beyond
  CHECK(alike.p_below(0) == 1);
  CHECK(alike.p_above(1) == 1);
  CHECK(alike.p_below(1) == 0);
  // One seed cannot show that nothing varies with it.
  CHECK(bootstrap({{{constant_rows({1}), 1}}}).p_above(0) > 0);
}

TEST_CASE("Page's test gives the exact chances of its tables") {
  std::vector<double> rising = {1, 2, 3};
  Trend two = page_trend({rising, rising});
  CHECK(two.statistic == 28);
  CHECK(two.exact);
  CHECK(two.p_rising == Approx(1.0 / 36));  // one of 6 x 6 orderings
  CHECK(two.p_falling == Approx(1));
  // Page (1963), levels of .05: L = 41 for three blocks of 3, 54 for four, 84 for three of 4.
  Trend three = page_trend({rising, rising, {1, 3, 2}});
  CHECK(three.statistic == 41);
  CHECK(three.p_rising <= 0.05);
  CHECK(page_trend({rising, rising, {2, 3, 1}}).p_rising > 0.05);
  Trend four = page_trend({{1, 2, 3, 4}, {1, 2, 4, 3}, {1, 3, 2, 4}});
  CHECK(four.statistic == 88);
  CHECK(four.p_rising < 0.01);
  CHECK(page_trend({{3, 2, 1}, {3, 2, 1}}).p_falling == Approx(1.0 / 36));
  Trend tied = page_trend({{1, 1, 1}, {2, 2, 2}});
  CHECK(tied.p_rising == Approx(1));
  CHECK(tied.p_falling == Approx(1));
}

TEST_CASE("Page's test beyond eight levels is normal, near the exact one at eight") {
  std::vector<std::vector<double>> eight, nine;
  Normals normal;
  for (int b = 0; b < 6; ++b) {
    eight.emplace_back(), nine.emplace_back();
    for (int j = 0; j < 9; ++j) {
      double v = 0.15 * j + normal();
      if (j < 8) eight[b].push_back(v);
      nine[b].push_back(v);
    }
  }
  Trend exact = page_trend(eight), approximate = page_trend(nine);
  CHECK(exact.exact);
  CHECK_FALSE(approximate.exact);
  CHECK(exact.p_rising == Approx(normal_cdf(-exact.z)).epsilon(0.15));
  CHECK(approximate.p_rising == Approx(normal_cdf(-approximate.z)).epsilon(0.15));
}

TEST_CASE("Holm's adjustment steps down and never falls") {
  auto adjusted = holm(std::vector<double>{0.01, 0.04, 0.03, 0.005});
  CHECK(adjusted[0] == Approx(0.03));
  CHECK(adjusted[1] == Approx(0.06));
  CHECK(adjusted[2] == Approx(0.06));
  CHECK(adjusted[3] == Approx(0.02));
  CHECK(holm(std::vector<double>{0.7, 0.8}) == std::vector<double>{1, 1});
  CHECK(holm(std::vector<double>{}).empty());
}

TEST_CASE("an inner level must beat both ends to be a peak") {
  Scores low = constant_rows({1.0f, 1.1f, 0.9f, 1.05f, 0.95f});
  Scores high = constant_rows({2.0f, 2.2f, 1.9f, 2.05f, 1.95f});
  std::vector<Scores> hill = {low, high, low}, rise = {low, low, high}, bowl = {high, low, high};
  CHECK(peak(hill).p_peak() < 0.01);
  CHECK(peak(rise).p_peak() > 0.5);
  CHECK(peak(bowl).p_none() < 0.01);
  CHECK(peak(hill).p_none() > 0.5);
  CHECK_THROWS_AS(peak(std::vector<Scores>{low, high}), Error);
}

TEST_CASE("the seeds that would decide follow the power of the t test") {
  Effect e;
  e.seed_variance = 1;
  auto n = seeds_to_decide(e, 0.5);
  REQUIRE(n);
  CHECK(*n >= 26);  // the normal approximation says (1.645 + 0.842)^2 / 0.25 = 24.7
  CHECK(*n <= 28);
  CHECK(*seeds_to_decide(e, 50) == 2);
  e.example_variance = 1;
  CHECK_FALSE(seeds_to_decide(e, 0.5));  // no seed makes the test set larger
}
