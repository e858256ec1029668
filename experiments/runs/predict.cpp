#include "experiments/runs/predict.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace graft {
namespace {

std::vector<double> softmax(std::vector<double> row) {
  const double most = *std::ranges::max_element(row);
  double sum = 0;
  for (double& x : row) sum += x = std::exp(x - most);
  for (double& x : row) x /= sum;
  return row;
}

}  // namespace

std::vector<Predicted> predict(Model& model, const EncodedTask& task,
                               const std::vector<EncodedExample>& rows, const RowsDone& done) {
  check(task.goal != Goal::language, "predict: task {} is a language task, which has no labels",
        task.name);
  constexpr std::size_t kAtOnce = 64;
  NoRecord off;
  std::vector<std::int32_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<float> values;
  std::vector<Predicted> all;
  for (std::size_t at = 0; at < rows.size(); at += kAtOnce) {
    if (done) done(at);
    const Batch batch = make_batch(task, rows, order, at, std::min(kAtOnce, rows.size() - at));
    const auto outputs = output_rows(model, task, batch);
    append_predictions(task, outputs, values);
    for (const auto& row : outputs) {
      Predicted p;
      if (task.goal == Goal::regression)
        p.value = values[all.size()];
      else
        p.label = static_cast<int>(values[all.size()]), p.probabilities = softmax(row);
      all.push_back(std::move(p));
    }
  }
  return all;
}

}  // namespace graft
