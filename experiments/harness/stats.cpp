#include "experiments/harness/stats.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "tensor/error.h"

namespace graft {
namespace {

// The x in [low, high] where the rising function f crosses p.
template <class F>
double invert(F f, double p, double low, double high) {
  for (int i = 0; i < 200 && low < high; ++i) {
    double middle = low + (high - low) / 2;
    if (middle == low || middle == high) break;
    (f(middle) < p ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

// The continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22).
double beta_fraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300;
  auto away_from_zero = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), h = d;
  for (int m = 1; m <= 500; ++m) {
    double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    h *= d * c;
    double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    h *= d * c;
    if (std::abs(d * c - 1) < 1e-15) break;
  }
  return h;
}

double incomplete_beta(double x, double a, double b) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) +
                          b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(x, a, b) / a;
  return 1 - front * beta_fraction(1 - x, b, a) / b;
}

// SplitMix64's finaliser: the random bits at an address.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// The mean of n values drawn with replacement; `stream` names the draw.
double resampled_mean(std::span<const double> x, std::uint64_t stream) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    std::uint64_t bits = mix(stream + i) >> 32;
    sum += x[(bits * x.size()) >> 32];
  }
  return sum / static_cast<double>(x.size());
}

// What remains of a contrast within one test set: means over seeds, and over examples.
struct TestSet {
  std::vector<std::vector<double>> values;  // [seed][example], weighted and summed over terms
  std::vector<double> examples;             // deviation of each example's mean over the seeds
  double example_variance = 0;              // of the mean, without the residual's share
  double scale = 1;                         // of the resampled example deviations
  bool varied = false;                      // over seeds or examples, beyond rounding
};

void add_term(std::map<std::string, TestSet>& sets, const Term& term, std::size_t seeds) {
  check(term.scores.size() == seeds, "bootstrap: one arm has {} seeds, another {}; need the same",
        term.scores.size(), seeds);
  std::size_t n = term.scores[0].size();
  auto& values = sets[term.test_set].values;
  if (values.empty()) values.assign(seeds, std::vector<double>(n, 0.0));
  for (std::size_t s = 0; s < seeds; ++s) {
    check(n > 0 && term.scores[s].size() == n && values[s].size() == n,
          "bootstrap: test set {} has {} examples for seed {} of one arm and {} for another; need "
          "the same examples in the same order",
          term.test_set, term.scores[s].size(), s, values[s].size());
    for (std::size_t e = 0; e < n; ++e) values[s][e] += term.weight * term.scores[s][e];
  }
}

// Splits one test set into seed means (added to `seed_means`) and example deviations.
void decompose(TestSet& set, std::vector<double>& seed_means) {
  std::size_t seeds = set.values.size(), n = set.values[0].size();
  std::vector<double> row(seeds);
  for (std::size_t s = 0; s < seeds; ++s) seed_means[s] += row[s] = mean(set.values[s]);
  double all = mean(row), main = 0, residual = 0, largest = 1;
  set.examples.assign(n, 0.0);
  for (std::size_t e = 0; e < n; ++e) {
    double sum = 0;
    for (std::size_t s = 0; s < seeds; ++s) {
      sum += set.values[s][e];
      largest = std::max(largest, std::abs(set.values[s][e]));
    }
    set.examples[e] = sum / static_cast<double>(seeds) - all;
    main += set.examples[e] * set.examples[e];
    for (std::size_t s = 0; s < seeds; ++s) {
      double r = set.values[s][e] - row[s] - set.examples[e];
      residual += r * r;
    }
  }
  set.varied = main + residual > 1e-18 * static_cast<double>(n * seeds) * largest * largest;
  if (n < 2) return;
  auto count = static_cast<double>(n), blocks = static_cast<double>(seeds);
  double naive = main / (count - 1) / count;
  double shared = seeds > 1 ? residual / ((blocks - 1) * (count - 1)) / (blocks * count) : 0;
  set.example_variance = std::max(0.0, naive - shared);
  if (main > 0) set.scale = std::sqrt(set.example_variance / (main / count / count));
}

// Welch and Satterthwaite: the df of a sum of variances of which each has its own.
double satterthwaite(const Effect& effect, const std::map<std::string, TestSet>& sets) {
  double of_seeds = effect.seeds > 1 ? effect.seed_variance / effect.seeds : 0, below = 0;
  if (effect.seeds > 1) below += of_seeds * of_seeds / (effect.seeds - 1);
  for (const auto& [name, set] : sets)
    if (set.examples.size() > 1)
      below += set.example_variance * set.example_variance /
               static_cast<double>(set.examples.size() - 1);
  double total = of_seeds + effect.example_variance;
  return below > 0 ? total * total / below : std::max(1, effect.seeds - 1);
}

// How many draws a tail must hold for its own quantile to be trusted; beyond, it is normal.
constexpr double kTail = 10;

// Nothing varied, neither over seeds nor over examples: the draws are the estimate, and there is no
// tail. One seed cannot show that.
bool varies(const Effect& e) { return !e.constant || e.seeds < 2; }

// The share of the draws' distribution, widened to t, that lies beyond `null` from the estimate.
double lower_tail(const Effect& e, double null) {
  if (e.value == null) return 0.5;
  auto n = static_cast<double>(e.draws.size());
  auto low = std::lower_bound(e.draws.begin(), e.draws.end(), null);
  auto high = std::upper_bound(low, e.draws.end(), null);
  auto beyond = static_cast<double>(e.value > null ? high - e.draws.begin() : e.draws.end() - low);
  double z = normal_quantile((std::clamp(beyond, kTail, n - 0.5) + 0.5) / (n + 1));
  if (beyond <= kTail && e.error > 0) z = std::min(z, -std::abs(e.value - null) / e.error);
  return t_cdf(z, e.df);
}

double expanded_quantile(const Effect& e, double p) {
  double z = t_quantile(p, e.df), share = normal_cdf(z), n = static_cast<double>(e.draws.size());
  double rank = share * (n - 1);
  auto at = [&](double r) {
    auto i = static_cast<std::size_t>(r);
    double next = e.draws[std::min(i + 1, e.draws.size() - 1)];
    return e.draws[i] + (r - static_cast<double>(i)) * (next - e.draws[i]);
  };
  double normal = e.value + z * e.error;
  if (rank < kTail) return std::min(at(std::min(kTail, n - 1)), normal);
  if (rank > n - 1 - kTail) return std::max(at(std::max(n - 1 - kTail, 0.0)), normal);
  return at(rank);
}

}  // namespace

double mean(std::span<const double> x) {
  check(!x.empty(), "mean: no values");
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

double sd(std::span<const double> x) {
  check(x.size() > 1, "sd: {} value(s); need at least 2", x.size());
  double m = mean(x), sum = 0;
  for (double v : x) sum += (v - m) * (v - m);
  return std::sqrt(sum / static_cast<double>(x.size() - 1));
}

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

double normal_quantile(double p) {
  check(p > 0 && p < 1, "normal_quantile: p is {}; need 0 < p < 1", p);
  // In the lower half, where the distribution function keeps its relative precision.
  return p <= 0.5 ? invert(normal_cdf, p, -40, 0) : -invert(normal_cdf, 1 - p, -40, 0);
}

double t_cdf(double t, double df) {
  check(df > 0, "t_cdf: df is {}; need df > 0", df);
  double tail = 0.5 * incomplete_beta(df / (df + t * t), df / 2, 0.5);
  return t < 0 ? tail : 1 - tail;
}

double t_quantile(double p, double df) {
  check(p > 0 && p < 1, "t_quantile: p is {}; need 0 < p < 1", p);
  if (p > 0.5) return -t_quantile(1 - p, df);
  return invert([df](double t) { return t_cdf(t, df); }, p, -1e9, 0);
}

Interval t_interval(std::span<const double> x, double level) {
  double half = t_quantile(0.5 + level / 2, static_cast<double>(x.size()) - 1) * sd(x) /
                std::sqrt(static_cast<double>(x.size()));
  return {mean(x) - half, mean(x) + half};
}

Effect bootstrap(const Contrast& contrast, const Bootstrap& options) {
  check(!contrast.terms.empty() && !contrast.terms[0].scores.empty(), "bootstrap: no scores");
  check(options.draws >= 100, "bootstrap: {} draws; need at least 100", options.draws);
  std::size_t seeds = contrast.terms[0].scores.size();
  std::map<std::string, TestSet> sets;
  for (const Term& term : contrast.terms) add_term(sets, term, seeds);

  Effect effect;
  std::vector<double> by_seed(seeds, contrast.constant);
  for (auto& [name, set] : sets) {
    decompose(set, by_seed);
    effect.example_variance += set.example_variance;
    effect.examples += static_cast<int>(set.examples.size());
  }
  effect.seeds = static_cast<int>(seeds);
  effect.value = mean(by_seed);
  for (double& v : by_seed) v -= effect.value;
  if (seeds > 1) effect.seed_variance = sd(by_seed) * sd(by_seed);
  effect.constant = effect.seed_variance <= 1e-18 * std::max(1.0, effect.value * effect.value);
  for (const auto& [name, set] : sets) effect.constant &= !set.varied;
  effect.error = std::sqrt(effect.seed_variance / effect.seeds + effect.example_variance);
  effect.df = satterthwaite(effect, sets);

  double widen = seeds > 1 ? std::sqrt(effect.seeds / (effect.seeds - 1.0)) : 0;
  effect.draws.resize(static_cast<std::size_t>(options.draws));
  for (std::size_t d = 0; d < effect.draws.size(); ++d) {
    std::uint64_t stream = mix(mix(options.seed) + d);
    double draw = effect.value + widen * resampled_mean(by_seed, stream);
    for (const auto& [name, set] : sets) {
      stream = mix(stream);
      draw += set.scale * resampled_mean(set.examples, stream);
    }
    effect.draws[d] = draw;
  }
  std::sort(effect.draws.begin(), effect.draws.end());
  effect.interval = {expanded_quantile(effect, 0.5 - options.level / 2),
                     expanded_quantile(effect, 0.5 + options.level / 2)};
  return effect;
}

double Effect::p_above(double null) const {
  if (!varies(*this)) return value > null ? 0 : 1;
  double tail = lower_tail(*this, null);
  return value > null ? tail : 1 - tail;
}

double Effect::p_below(double null) const {
  if (!varies(*this)) return value < null ? 0 : 1;
  double tail = lower_tail(*this, null);
  return value < null ? tail : 1 - tail;
}

double Effect::p_equivalent(double margin) const {
  check(margin > 0, "p_equivalent: margin is {}; need > 0", margin);
  return std::max(p_above(-margin), p_below(margin));
}

std::vector<double> holm(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size());
  double least = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    least = std::max(least, std::min(1.0, static_cast<double>(p.size() - i) * p[order[i]]));
    adjusted[order[i]] = least;
  }
  return adjusted;
}

double Peak::p_peak() const {
  double best_p = 1;
  for (std::size_t i = 0; i < over_first.size(); ++i)
    best_p = std::min(best_p, std::max(over_first[i].p_above(0), over_last[i].p_above(0)));
  return std::min(1.0, best_p * static_cast<double>(over_first.size()));
}

double Peak::p_none() const {
  double worst = 0;  // either end may be the one that beats it, hence twice
  for (std::size_t i = 0; i < over_first.size(); ++i)
    worst = std::max(worst, 2 * std::min(over_first[i].p_below(0), over_last[i].p_below(0)));
  return std::min(1.0, worst);
}

Peak peak(std::span<const Scores> levels, double weight, const Bootstrap& options) {
  check(levels.size() >= 3, "peak: {} levels; need at least 3", levels.size());
  Peak found;
  auto gain = [&](const Scores& a, const Scores& b) {
    return bootstrap({{{a, weight}, {b, -weight}}}, options);
  };
  for (std::size_t i = 1; i + 1 < levels.size(); ++i) {
    found.over_first.push_back(gain(levels[i], levels.front()));
    found.over_last.push_back(gain(levels[i], levels.back()));
    auto best = static_cast<std::size_t>(found.best);
    if (found.over_first[i - 1].value > found.over_first[best].value)
      found.best = static_cast<int>(i - 1);
  }
  return found;
}

std::optional<int> seeds_to_decide(const Effect& effect, double distance, double alpha, int most) {
  for (int n = 2; n <= most; ++n) {
    double of_seeds = effect.seed_variance / n, total = of_seeds + effect.example_variance;
    double df = of_seeds > 0 ? (n - 1) * total * total / (of_seeds * of_seeds) : 1e6;
    double z = t_quantile(1 - alpha, df) + normal_quantile(0.8);
    if (std::abs(distance) >= z * std::sqrt(total)) return n;
  }
  return std::nullopt;
}

namespace {

// Twice each value's mid-rank within its block, so that ties stay whole numbers.
std::vector<int> double_ranks(const std::vector<double>& block) {
  std::vector<int> ranks;
  for (double v : block) {
    int below = 0, equal = 0;
    for (double w : block) below += w < v, equal += w == v;
    ranks.push_back(2 * below + equal + 1);
  }
  return ranks;
}

// Counts of the statistic over all orderings of one block's ranks (equal ranks are one ordering).
std::vector<double> orderings(std::vector<int> ranks, std::size_t size) {
  std::vector<double> share(size, 0.0);
  std::sort(ranks.begin(), ranks.end());
  double count = 0;
  do {
    std::size_t sum = 0;
    for (std::size_t j = 0; j < ranks.size(); ++j)
      sum += (j + 1) * static_cast<std::size_t>(ranks[j]);
    ++share[sum], ++count;
  } while (std::next_permutation(ranks.begin(), ranks.end()));
  for (double& s : share) s /= count;
  return share;
}

std::vector<double> convolve(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> sum(a.size() + b.size() - 1, 0.0);
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; a[i] > 0 && j < b.size(); ++j) sum[i + j] += a[i] * b[j];
  return sum;
}

}  // namespace

Trend page_trend(const std::vector<std::vector<double>>& table) {
  check(!table.empty() && table[0].size() >= 3, "page_trend: need a block of at least 3 levels");
  std::size_t levels = table[0].size();
  double doubled = 0, expected = 0, variance = 0;
  auto k = static_cast<double>(levels);
  std::vector<double> exact = {1.0};
  for (const auto& block : table) {
    check(block.size() == levels, "page_trend: blocks of {} and {} levels", levels, block.size());
    std::vector<int> ranks = double_ranks(block);
    double spread = 0;
    for (std::size_t j = 0; j < levels; ++j) {
      doubled += static_cast<double>(j + 1) * ranks[j];
      spread += (ranks[j] - (k + 1)) * (ranks[j] - (k + 1));
    }
    expected += k * (k + 1) * (k + 1) / 2;
    variance += k * (k * k - 1) / 12 * spread / (k - 1);
    if (levels <= 8) exact = convolve(exact, orderings(ranks, levels * levels * (levels + 1)));
  }
  Trend trend{.statistic = doubled / 2, .exact = levels <= 8};
  if (variance > 0) trend.z = (doubled - expected) / std::sqrt(variance);
  if (trend.exact) {
    auto at = exact.begin() + static_cast<long>(doubled);
    trend.p_rising = std::min(1.0, std::accumulate(at, exact.end(), 0.0));
    trend.p_falling = std::min(1.0, std::accumulate(exact.begin(), at + 1, 0.0));
  } else {  // L moves in steps of one, twice L in steps of two: half a step of continuity
    double step = variance > 0 ? 1 / std::sqrt(variance) : 0;
    trend.p_rising = normal_cdf(-(trend.z - step));
    trend.p_falling = normal_cdf(trend.z + step);
  }
  return trend;
}

}  // namespace graft
