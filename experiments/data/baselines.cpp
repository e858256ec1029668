// Majority, linear and cosine baselines over TaskData.
#include "experiments/data/baselines.h"

#include <algorithm>

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

BaselineResult linear_baseline(const TaskData& task, const LinearOptions& options) {
  check_labelled(task);
  check(task.pair || options.side == Side::both,
        "baseline: task {} has one text per row; side is both", task.name);
  const data::TfIdf tfidf(options.terms, training_texts(task, options.side));
  const bool both = task.pair && options.side == Side::both;
  const auto features = [&](const Example& e) {
    if (both) return data::pair_row(tfidf.row(e.a), tfidf.row(e.b), tfidf.columns());
    return tfidf.row(options.side == Side::only_b ? e.b : e.a);
  };
  std::vector<data::SparseRow> rows;
  std::vector<int> labels;
  std::vector<float> values;
  for (const Example& e : task.train) {
    rows.push_back(features(e));
    labels.push_back(e.label);
    values.push_back(e.score);
  }
  BaselineResult result;
  result.features = both ? 4 * tfidf.columns() + 1 : tfidf.columns();
  const data::LinearModel model =
      is_regression(task) ? data::fit_ridge(rows, values, result.features, options)
                          : data::fit_logistic(rows, labels, static_cast<int>(task.labels.size()),
                                               result.features, options);
  predict(
      task, result, [&](const Example& e) { return model.label(features(e)); },
      [&](const Example& e) { return static_cast<float>(model(features(e))[0]); });
  return result;
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
