// The statistics that verdicts rest on: intervals, a paired bootstrap, equivalence, trend, many
// tests.
//
// Every function is deterministic: random draws come from a counter (seed, draw, index), never from
// a shared stream, so the same records always give the same numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace graft {

struct Interval {
  double low = 0, high = 0;
};

double mean(std::span<const double> x);
double sd(std::span<const double> x);  // n - 1 in the denominator; throws for fewer than two values

double normal_cdf(double z);
double normal_quantile(double p);
double t_cdf(double t, double df);
double t_quantile(double p, double df);

// mean +- t sd / sqrt(n), two-sided; throws for fewer than two values.
Interval t_interval(std::span<const double> x, double level = 0.95);

// scores[seed][example]: what one arm scored on each test example, one row for each seed.
using Scores = std::vector<std::vector<float>>;

// One arm's share of a contrast. Terms with the same test set see the same resampled examples.
struct Term {
  Scores scores;
  double weight = 1;
  std::string test_set = "test";
};

// constant + sum of weight * (mean score of the arm), e.g. {{lora, 100}, {full, -100}}: points.
struct Contrast {
  std::vector<Term> terms;
  double constant = 0;
};

// An estimated contrast with what the bootstrap says about its error.
struct Effect {
  double value = 0;
  Interval interval;            // two-sided, at the level asked for
  int seeds = 0;                // 1: the interval covers the choice of test examples only
  int examples = 0;             // over all test sets
  double df = 0;                // Satterthwaite's degrees of freedom of the error
  double error = 0;             // standard error
  double seed_variance = 0;     // shrinks with the number of seeds: error^2 = this / seeds + ...
  double example_variance = 0;  // ... the part that only more test examples make smaller
  std::vector<double> draws;    // sorted

  bool constant = false;  // neither over seeds nor over examples anything varied

  // Where nothing varies over two seeds or more each p is 0 or 1.
  double p_above(double null) const;         // one-sided p against "the effect is <= null"
  double p_below(double null) const;         // one-sided p against "the effect is >= null"
  double p_equivalent(double margin) const;  // two one-sided tests: p against "|effect| >= margin"
};

struct Bootstrap {
  int draws = 10000;
  double level = 0.95;
  std::uint64_t seed = 1;
};

// Paired two-level bootstrap over seeds and test examples. Seed i of every term is the same draw of
// everything the seed decides, and example j the same example, so both are resampled jointly.
//
// Each draw is the estimate + a resampled mean of the seeds' deviations + a resampled mean of the
// examples' deviations, each scaled so that the two variances add up to the unbiased estimate for a
// crossed design: plain resampling is (S-1)/S too narrow at S seeds and counts the seed-by-example
// residual three times (Owen 2007, "The pigeonhole bootstrap"). Tails are widened from normal to
// Student's t with Satterthwaite's df (Hesterberg 2015, the expanded percentile interval).
//
// Throws when terms differ in their number of seeds, or in examples within one test set.
Effect bootstrap(const Contrast& contrast, const Bootstrap& options = {});

// Page's trend test. table[block][level]: H1 says that values rise with the level.
// p is exact (conditional on ties) up to 8 levels, by the normal approximation above.
struct Trend {
  double statistic = 0;  // Page's L
  double p_rising = 1, p_falling = 1;
  bool exact = false;
  double z = 0;  // standardised L, for planning
};
Trend page_trend(const std::vector<std::vector<double>>& table);

// Holm's step-down adjustment: reject where the adjusted p <= alpha.
std::vector<double> holm(std::span<const double> p);

// "Some level inside beats both ends": for each inner level its gain over the first and the last.
struct Peak {
  std::vector<Effect> over_first, over_last;  // [inner level]
  int best = 0;                               // index into both: the inner level with the best mean
  double p_peak() const;  // min over inner levels of max over the ends, times the inner levels
  double p_none() const;  // for every inner level, an end beats it
};
Peak peak(std::span<const Scores> levels, double weight = 1, const Bootstrap& options = {});

// The seeds with which an effect this far from its null would be decided at one-sided `alpha` in
// four of five repetitions. Empty: no number of seeds up to `most` would; it takes test examples.
std::optional<int> seeds_to_decide(const Effect& effect, double distance, double alpha = 0.05,
                                   int most = 1000);

}  // namespace graft
