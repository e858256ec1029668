// One thread and fixed orders: the same bits each time.
#include "experiments/data/sparse_linear.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <set>

#include "tensor/error.h"

namespace graft::data {
namespace {

// Lower-case runs of two or more letters, digits, underscores or non-ASCII bytes.
std::vector<std::string> long_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const unsigned char c : std::string(text) + " ") {
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c >= 0x80) {
      word.push_back(static_cast<char>(upper ? c + 32 : c));
      continue;
    }
    if (word.size() > 1) words.push_back(word);
    word.clear();
  }
  return words;
}

std::vector<std::string> terms_of(Terms terms, std::string_view text) {
  std::vector<std::string> out;
  if (terms == Terms::chars_2_4) {
    std::string lower(text);
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    for (std::size_t n = 2; n <= 4; ++n)
      for (std::size_t i = 0; i + n <= lower.size(); ++i) out.push_back(lower.substr(i, n));
    return out;
  }
  out = long_words(text);
  const std::size_t words = out.size();
  if (terms == Terms::words_1_3) {
    for (std::size_t i = 0; i + 1 < words; ++i) out.push_back(out[i] + ' ' + out[i + 1]);
    for (std::size_t i = 0; i + 2 < words; ++i)
      out.push_back(out[i] + ' ' + out[i + 1] + ' ' + out[i + 2]);
  }
  return out;
}

double inner(const std::vector<double>& x, const std::vector<double>& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

// Loss of one row and, into `slope`, its derivative by each output.
double log_loss(std::vector<double>& slope, int label) {
  if (slope.size() == 1) {
    const double sign = label == 1 ? 1 : -1, z = sign * slope[0];
    slope[0] = -sign / (1 + std::exp(z));
    return z > 0 ? std::log1p(std::exp(-z)) : -z + std::log1p(std::exp(z));
  }
  const double top = *std::max_element(slope.begin(), slope.end()), own = slope[label];
  double sum = 0;
  for (double& s : slope) sum += s = std::exp(s - top);
  for (double& s : slope) s /= sum;
  slope[label] -= 1;
  return std::log(sum) + top - own;
}

// Weights are stored column by column here, so that one feature's outputs lie together.
template <class Loss>
LinearModel fit(const std::vector<SparseRow>& rows, int outputs, int columns, double scale,
                int most_iterations, const Loss& loss) {
  const std::size_t size = static_cast<std::size_t>(outputs) * (columns + 1);
  const std::size_t bias = size - outputs;
  std::vector<double> w(size, 0), z(outputs);
  const Objective objective = [&](const std::vector<double>& x, std::vector<double>& gradient) {
    double total = 0;
    for (std::size_t i = 0; i < bias; ++i) total += 0.5 * x[i] * x[i], gradient[i] = x[i];
    std::fill(gradient.begin() + bias, gradient.end(), 0.0);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      std::copy(x.begin() + bias, x.end(), z.begin());
      for (const auto& [column, value] : rows[r])
        for (int o = 0; o < outputs; ++o) z[o] += value * x[std::size_t(column) * outputs + o];
      total += scale * loss(z, r);
      for (int o = 0; o < outputs; ++o) gradient[bias + o] += scale * z[o];
      for (const auto& [column, value] : rows[r])
        for (int o = 0; o < outputs; ++o)
          gradient[std::size_t(column) * outputs + o] += scale * value * z[o];
    }
    return total;
  };
  minimise(objective, w, most_iterations, 1e-4 * scale);
  return {outputs, columns, std::move(w)};
}

}  // namespace

TfIdf::TfIdf(Terms terms, const std::vector<std::string_view>& texts) : terms_(terms) {
  std::map<std::string, int, std::less<>> documents;
  for (const auto text : texts) {
    const auto found = terms_of(terms, text);
    for (const std::string& term : std::set<std::string>(found.begin(), found.end()))
      ++documents[term];
  }
  for (const auto& [term, df] : documents) {
    column_.emplace(term, columns());
    idf_.push_back(std::log((1.0 + texts.size()) / (1.0 + df)) + 1);
  }
}

SparseRow TfIdf::row(std::string_view text) const {
  std::map<int, double> values;
  for (const std::string& term : terms_of(terms_, text))
    if (const auto found = column_.find(term); found != column_.end())
      values[found->second] += idf_[found->second];
  double square = 0;
  for (const auto& [column, value] : values) square += value * value;
  SparseRow out;
  for (const auto& [column, value] : values)
    out.emplace_back(column, static_cast<float>(value / std::sqrt(square)));
  return out;
}

SparseRow pair_row(const SparseRow& p, const SparseRow& q, int columns) {
  std::map<int, std::pair<float, float>> both;
  for (const auto& [column, value] : p) both[column].first = value;
  for (const auto& [column, value] : q) both[column].second = value;
  SparseRow out = p, product, difference;
  for (const auto& [column, value] : q) out.emplace_back(columns + column, value);
  float sum = 0;
  for (const auto& [column, value] : both) {
    const auto [x, y] = value;
    if (x * y != 0) product.emplace_back(2 * columns + column, x * y);
    if (x != y) difference.emplace_back(3 * columns + column, std::abs(x - y));
    sum += x * y;
  }
  out.insert(out.end(), product.begin(), product.end());
  out.insert(out.end(), difference.begin(), difference.end());
  if (sum != 0) out.emplace_back(4 * columns, sum);
  return out;
}

double dot(const SparseRow& p, const SparseRow& q) {
  double sum = 0;
  auto at = q.begin();
  for (const auto& [column, value] : p) {
    while (at != q.end() && at->first < column) ++at;
    if (at != q.end() && at->first == column) sum += value * at->second;
  }
  return sum;
}

std::vector<double> LinearModel::operator()(const SparseRow& x) const {
  std::vector<double> z(weight.end() - outputs, weight.end());
  for (const auto& [column, value] : x)
    for (int o = 0; o < outputs; ++o) z[o] += value * weight[std::size_t(column) * outputs + o];
  return z;
}

int LinearModel::label(const SparseRow& x) const {
  const auto z = (*this)(x);
  if (outputs == 1) return z[0] > 0;
  return static_cast<int>(std::max_element(z.begin(), z.end()) - z.begin());
}

LinearModel fit_logistic(const std::vector<SparseRow>& rows, const std::vector<int>& labels,
                         int classes, int columns, const LinearOptions& options) {
  check(rows.size() == labels.size(), "logistic: {} rows, {} labels", rows.size(), labels.size());
  return fit(rows, classes == 2 ? 1 : classes, columns, options.c, options.most_iterations,
             [&](std::vector<double>& z, std::size_t r) { return log_loss(z, labels[r]); });
}

LinearModel fit_ridge(const std::vector<SparseRow>& rows, const std::vector<float>& values,
                      int columns, const LinearOptions& options) {
  check(rows.size() == values.size(), "ridge: {} rows, {} values", rows.size(), values.size());
  // scale x (error^2 / 2 + |w|^2 / (2 scale)) has the minimum of error^2 + |w|^2 / scale.
  return fit(rows, 1, columns, options.c, options.most_iterations,
             [&](std::vector<double>& z, std::size_t r) {
               z[0] -= values[r];
               return 0.5 * z[0] * z[0];
             });
}

void minimise(const Objective& f, std::vector<double>& x, int most_iterations, double tolerance) {
  constexpr std::size_t kMemory = 8;
  struct Change {
    std::vector<double> s, y;
    double rho;
  };
  std::deque<Change> memory;
  std::vector<double> g(x.size()), next_g(x.size()), next(x.size());
  double value = f(x, g);
  for (int iteration = 0; iteration < most_iterations; ++iteration) {
    double steepest = 0;
    for (const double v : g) steepest = std::max(steepest, std::abs(v));
    if (steepest <= tolerance) return;
    // Two-loop recursion: d = -H g.
    std::vector<double> d = g, alpha(memory.size());
    for (std::size_t i = memory.size(); i-- > 0;) {
      alpha[i] = memory[i].rho * inner(memory[i].s, d);
      for (std::size_t k = 0; k < d.size(); ++k) d[k] -= alpha[i] * memory[i].y[k];
    }
    const double scale = memory.empty()
                             ? 1 / std::sqrt(inner(g, g))
                             : 1 / (memory.back().rho * inner(memory.back().y, memory.back().y));
    for (double& v : d) v *= scale;
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const double beta = memory[i].rho * inner(memory[i].y, d);
      for (std::size_t k = 0; k < d.size(); ++k) d[k] += (alpha[i] - beta) * memory[i].s[k];
    }
    const double slope = -inner(g, d);
    double step = 1, next_value = value;
    for (int tries = 0;; ++tries, step *= 0.5) {
      if (tries == 40) return;  // rounding errors are as large as what is left to gain
      for (std::size_t k = 0; k < x.size(); ++k) next[k] = x[k] - step * d[k];
      next_value = f(next, next_g);
      if (next_value <= value + 1e-4 * step * slope) break;
    }
    Change change{std::vector<double>(x.size()), std::vector<double>(x.size()), 0};
    for (std::size_t k = 0; k < x.size(); ++k)
      change.s[k] = next[k] - x[k], change.y[k] = next_g[k] - g[k];
    const double curvature = inner(change.s, change.y);
    if (curvature > 0) {
      change.rho = 1 / curvature;
      memory.push_back(std::move(change));
      if (memory.size() > kMemory) memory.pop_front();
    }
    x.swap(next), g.swap(next_g), value = next_value;
  }
}

}  // namespace graft::data
