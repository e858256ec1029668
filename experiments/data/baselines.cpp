// Majority, linear and cosine baselines over TaskData.
#include "experiments/data/baselines.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "experiments/data/metrics.h"
#include "experiments/data/sparse_linear.h"
#include "tensor/error.h"

namespace graft {
namespace {

bool is_regression(const TaskData& task) { return task.kind == TaskData::Kind::regression; }

void check_labelled(const TaskData& task) {
  check(task.kind != TaskData::Kind::language,
        "baseline: task {} is a language task and has no labels; what a model must beat there is a "
        "unigram model, and the base with nothing trained",
        task.name);
}

// Predicts dev and test row by row and scores them. `label` and `value` take an Example.
template <class Label, class Value>
void predict(const TaskData& task, BaselineResult& result, const Label& label, const Value& value) {
  const auto run = [&](const std::vector<Example>& rows, std::vector<int>& labels,
                       std::vector<float>& values) {
    std::vector<int> true_labels;
    std::vector<float> true_values;
    for (const Example& e : rows) {
      if (is_regression(task))
        values.push_back(value(e)), true_values.push_back(e.score);
      else
        labels.push_back(label(e)), true_labels.push_back(e.label);
    }
    return is_regression(task) ? value_score(task.metric, true_values, values)
                               : class_score(task.metric, true_labels, labels);
  };
  result.dev = run(task.dev, result.dev_labels, result.dev_values);
  result.test = run(task.test, result.test_labels, result.test_values);
}

std::vector<std::string_view> training_texts(const TaskData& task, Side side) {
  std::vector<std::string_view> texts;
  for (const Example& e : task.train) {
    if (side != Side::only_b) texts.push_back(e.a);
    if (task.pair && side != Side::only_a) texts.push_back(e.b);
  }
  return texts;
}

}  // namespace

BaselineResult majority_baseline(const TaskData& task) {
  check_labelled(task);
  std::vector<int> counts(task.labels.size() + 1, 0);
  double sum = 0;
  for (const Example& e : task.train) {
    if (!is_regression(task)) ++counts[e.label];
    sum += e.score;
  }
  const int label =
      static_cast<int>(std::max_element(counts.begin(), counts.end()) - counts.begin());
  const auto mean = static_cast<float>(sum / static_cast<double>(task.train.size()));
  BaselineResult result;
  predict(
      task, result, [&](const Example&) { return label; }, [&](const Example&) { return mean; });
  return result;
}

namespace {

// A task's texts as rows of features, and the linear models fitted to them.
class Linear {
 public:
  Linear(const TaskData& task, const LinearOptions& options)
      : task_(task),
        options_(options),
        tfidf_(options.terms, training_texts(task, options.side)),
        both_(task.pair && options.side == Side::both) {
    for (const Example& e : task.train) {
      rows_.push_back(features(e));
      labels_.push_back(e.label);
      values_.push_back(e.score);
    }
  }

  BaselineResult with(double c) const {
    LinearOptions options = options_;
    options.c = c;
    BaselineResult result;
    result.features = both_ ? 4 * tfidf_.columns() + 1 : tfidf_.columns();
    const data::LinearModel model =
        is_regression(task_)
            ? data::fit_ridge(rows_, values_, result.features, options)
            : data::fit_logistic(rows_, labels_, static_cast<int>(task_.labels.size()),
                                 result.features, options);
    predict(
        task_, result, [&](const Example& e) { return model.label(features(e)); },
        [&](const Example& e) { return static_cast<float>(model(features(e))[0]); });
    return result;
  }

 private:
  data::SparseRow features(const Example& e) const {
    if (both_) return data::pair_row(tfidf_.row(e.a), tfidf_.row(e.b), tfidf_.columns());
    return tfidf_.row(options_.side == Side::only_b ? e.b : e.a);
  }

  const TaskData& task_;
  LinearOptions options_;
  data::TfIdf tfidf_;
  bool both_;
  std::vector<data::SparseRow> rows_;
  std::vector<int> labels_;
  std::vector<float> values_;
};

void check_linear(const TaskData& task, const LinearOptions& options) {
  check_labelled(task);
  check(task.pair || options.side == Side::both,
        "baseline: task {} has one text per row; side is both", task.name);
}

}  // namespace

BaselineResult linear_baseline(const TaskData& task, const LinearOptions& options) {
  check_linear(task, options);
  return Linear(task, options).with(options.c);
}

TunedBaseline tuned_linear_baseline(const TaskData& task, const LinearOptions& options) {
  check_linear(task, options);
  constexpr double kLeast = 1e-3, kMost = 1e4;
  const Linear linear(task, options);
  std::map<int, BaselineResult> tried;  // by half decades from options.c
  const auto c_at = [&](int half_decades) { return options.c * std::pow(10, half_decades / 2.0); };
  const auto best = [&] {
    auto at = tried.begin();
    for (auto it = tried.begin(); it != tried.end(); ++it)
      if (it->second.dev > at->second.dev) at = it;
    return at->first;
  };
  for (int k = -2; k <= 2; ++k) tried.emplace(k, linear.with(c_at(k)));
  for (;;) {
    const int at = best();
    const int next = at == tried.begin()->first    ? at - 1
                     : at == tried.rbegin()->first ? at + 1
                                                   : at;
    if (next == at || c_at(next) < kLeast || c_at(next) > kMost) break;
    tried.emplace(next, linear.with(c_at(next)));
  }
  TunedBaseline tuned{tried.at(best()), c_at(best()), {}};
  for (const auto& [k, result] : tried) tuned.tried.emplace_back(c_at(k), result.dev);
  return tuned;
}

BaselineResult cosine_baseline(const TaskData& task, Terms terms) {
  check(task.pair && is_regression(task), "cosine baseline: task {} is no regression over pairs",
        task.name);
  const data::TfIdf tfidf(terms, training_texts(task, Side::both));
  BaselineResult result;
  predict(
      task, result, [](const Example&) { return -1; },
      [&](const Example& e) {
        return static_cast<float>(data::dot(tfidf.row(e.a), tfidf.row(e.b)));
      });
  return result;
}

}  // namespace graft
