// TF-IDF features and linear models on sparse rows. Internal to the baselines.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "experiments/data/baselines.h"

namespace graft::data {

// Columns in ascending order with their values.
using SparseRow = std::vector<std::pair<int, float>>;

class TfIdf {
 public:
  // Learns columns and idf = ln((1 + n) / (1 + df)) + 1 from `texts`, as scikit-learn does.
  TfIdf(Terms terms, const std::vector<std::string_view>& texts);

  // The row of length 1 of `text`; unknown terms are ignored.
  SparseRow row(std::string_view text) const;
  int columns() const { return static_cast<int>(idf_.size()); }

 private:
  std::map<int, int> count(std::string_view text) const;

  Terms terms_;
  std::map<std::string, int, std::less<>> column_;
  std::vector<double> idf_;
};

// p, q, p * q, |p - q| and the sum of p * q side by side; the texts' rows have `columns` columns.
SparseRow pair_row(const SparseRow& p, const SparseRow& q, int columns);

double dot(const SparseRow& p, const SparseRow& q);

// W: [outputs, columns + 1], the last column being the bias.
struct LinearModel {
  int outputs = 1, columns = 0;
  std::vector<double> weight;

  std::vector<double> operator()(const SparseRow& x) const;
  // Greatest output, or for a single output whether it is positive.
  int label(const SparseRow& x) const;
};

// Two classes: one output. Throws Error where rows and labels differ in number.
LinearModel fit_logistic(const std::vector<SparseRow>& rows, const std::vector<int>& labels,
                         int classes, int columns, const LinearOptions& options);
LinearModel fit_ridge(const std::vector<SparseRow>& rows, const std::vector<float>& values,
                      int columns, const LinearOptions& options);

// Minimises `f` (which fills the gradient) from `x` by L-BFGS with a backtracking line search
// (Nocedal and Wright 2006, algorithms 7.4 and 3.1), until no entry of the gradient exceeds
// `tolerance`.
using Objective =
    std::function<double(const std::vector<double>& x, std::vector<double>& gradient)>;
void minimise(const Objective& f, std::vector<double>& x, int most_iterations, double tolerance);

}  // namespace graft::data
