// Plain double-precision sums in the order given.
#include "experiments/data/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include "tensor/error.h"

namespace graft {
namespace {

void check_lengths(std::size_t truth, std::size_t predicted, const char* metric) {
  check(truth == predicted && truth > 0,
        "{}: {} true values, {} predicted; need as many, at least one", metric, truth, predicted);
}

int class_count(std::span<const int> truth, std::span<const int> predicted, const char* metric) {
  check_lengths(truth.size(), predicted.size(), metric);
  int most = -1;
  for (const auto list : {truth, predicted})
    for (const int label : list) {
      check(label >= 0, "{}: label {}; need 0 or more", metric, label);
      most = std::max(most, label);
    }
  return most + 1;
}

double correlation(std::span<const double> x, std::span<const double> y) {
  const double n = static_cast<double>(x.size());
  const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double my = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, yy = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
    xy += (x[i] - mx) * (y[i] - my);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx) / std::sqrt(yy) : 0;
}

std::vector<double> ranks(std::span<const float> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t x, std::size_t y) { return values[x] < values[y]; });
  std::vector<double> rank(values.size());
  for (std::size_t from = 0, to = 0; from < order.size(); from = to) {
    while (to < order.size() && values[order[to]] == values[order[from]]) ++to;
    for (std::size_t i = from; i < to; ++i) rank[order[i]] = (from + to - 1) / 2.0;
  }
  return rank;
}

}  // namespace

double accuracy(std::span<const int> truth, std::span<const int> predicted) {
  check_lengths(truth.size(), predicted.size(), "accuracy");
  int right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) right += truth[i] == predicted[i];
  return right / static_cast<double>(truth.size());
}

double macro_f1(std::span<const int> truth, std::span<const int> predicted) {
  const int classes = class_count(truth, predicted, "macro_f1");
  std::vector<double> both(classes), named(classes);
  for (std::size_t i = 0; i < truth.size(); ++i) {
    both[truth[i]] += truth[i] == predicted[i];
    ++named[truth[i]];
    ++named[predicted[i]];
  }
  double sum = 0;
  int present = 0;
  for (int c = 0; c < classes; ++c) {
    if (named[c] == 0) continue;
    sum += 2 * both[c] / named[c];
    ++present;
  }
  return sum / present;
}

double f1(std::span<const int> truth, std::span<const int> predicted) {
  check(class_count(truth, predicted, "f1") <= 2, "f1: it is of two classes; take macro_f1");
  double both = 0, named = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    both += truth[i] == 1 && predicted[i] == 1;
    named += truth[i] + predicted[i];
  }
  return named > 0 ? 2 * both / named : 0;
}

double matthews(std::span<const int> truth, std::span<const int> predicted) {
  const int classes = class_count(truth, predicted, "matthews");
  std::vector<double> t(classes), p(classes);
  double right = 0;
  const double n = static_cast<double>(truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    ++t[truth[i]];
    ++p[predicted[i]];
    right += truth[i] == predicted[i];
  }
  const double tp = std::inner_product(t.begin(), t.end(), p.begin(), 0.0);
  const double tt = n * n - std::inner_product(t.begin(), t.end(), t.begin(), 0.0);
  const double pp = n * n - std::inner_product(p.begin(), p.end(), p.begin(), 0.0);
  return tt > 0 && pp > 0 ? (right * n - tp) / std::sqrt(tt) / std::sqrt(pp) : 0;
}

double pearson(std::span<const float> truth, std::span<const float> predicted) {
  check_lengths(truth.size(), predicted.size(), "pearson");
  return correlation(std::vector<double>(truth.begin(), truth.end()),
                     std::vector<double>(predicted.begin(), predicted.end()));
}

double spearman(std::span<const float> truth, std::span<const float> predicted) {
  check_lengths(truth.size(), predicted.size(), "spearman");
  return correlation(ranks(truth), ranks(predicted));
}

double class_score(std::string_view metric, std::span<const int> truth,
                   std::span<const int> predicted) {
  if (metric == "accuracy") return accuracy(truth, predicted);
  if (metric == "f1") return f1(truth, predicted);
  if (metric == "macro_f1") return macro_f1(truth, predicted);
  if (metric == "matthews") return matthews(truth, predicted);
  fail("metric: '{}' does not score classes; known are accuracy, f1, macro_f1, matthews", metric);
}

void check_metric(std::string_view metric, std::size_t classes) {
  const int one[] = {0, 1};
  const float other[] = {0, 1};
  if (classes == 0)
    (void)value_score(metric, other, other);
  else
    (void)class_score(metric, one, one);
  check(metric != "f1" || classes == 2, "f1: it is of two classes, these are {}; take macro_f1",
        classes);
}

NamedScores other_class_scores(std::string_view metric, std::size_t classes,
                               std::span<const int> truth, std::span<const int> predicted) {
  NamedScores all;
  for (const char* name : {"accuracy", "f1", "macro_f1", "matthews"})
    if (name != metric && (name != std::string_view("f1") || classes == 2))
      all.emplace_back(name, class_score(name, truth, predicted));
  return all;
}

NamedScores other_value_scores(std::string_view metric, std::span<const float> truth,
                               std::span<const float> predicted) {
  NamedScores all;
  for (const char* name : {"pearson", "spearman"})
    if (name != metric) all.emplace_back(name, value_score(name, truth, predicted));
  return all;
}

double value_score(std::string_view metric, std::span<const float> truth,
                   std::span<const float> predicted) {
  if (metric == "pearson") return pearson(truth, predicted);
  if (metric == "spearman") return spearman(truth, predicted);
  fail("metric: '{}' does not score values; known are pearson, spearman", metric);
}

bool higher_is_better(std::string_view metric) { return metric != "loss"; }

double turned(std::string_view metric, double value) {
  return higher_is_better(metric) ? value : -value;
}

}  // namespace graft
