#include "nn/optim/task_weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/kernels.h"

namespace graft {
namespace {

using Kind = WeightSpec::Kind;

constexpr double kLeastWeight = 0.01;  // gradnorm's and metaweighting's stay above 0

void add(TaskGradient& to, const TaskGradient& from, double by) {
  for (std::size_t i = 0; i < to.size(); ++i) kernels::axpy(to[i], from[i].as_contiguous(), by);
}

TaskGradient copy(const TaskGradient& g) {
  TaskGradient all;
  for (const Array& a : g) all.push_back(a.clone());
  return all;
}

double sum(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

// None below the least, and all together as many as there are.
void renormalise(std::vector<double>& w) {
  for (double& x : w) x = std::max(x, kLeastWeight);
  const double scale = static_cast<double>(w.size()) / sum(w);
  for (double& x : w) x *= scale;
}

}  // namespace

double dot(const TaskGradient& a, const TaskGradient& b) {
  check(a.size() == b.size(), "dot: gradients of {} and of {} parameters", a.size(), b.size());
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const Array x = a[i].to(Device::cpu).as_contiguous(), y = b[i].to(Device::cpu).as_contiguous();
    dispatch(x, [&]<class T>(T) {
      const T *p = x.data<T>(), *q = y.data<T>();
      for (std::int64_t k = 0; k < x.numel(); ++k) total += double(p[k]) * double(q[k]);
    });
  }
  return total;
}

double min_norm_pair(double aa, double ab, double bb) {
  const double apart = aa - 2 * ab + bb;
  return apart <= 0 ? 0.5 : std::clamp((bb - ab) / apart, 0.0, 1.0);
}

std::vector<double> min_norm_weights(const std::vector<std::vector<double>>& gram) {
  const std::size_t n = gram.size();
  check(n > 0, "min_norm: there is no vector");
  double largest = 0;
  for (const auto& row : gram) {
    check(row.size() == n, "min_norm: a row of {} products of {} vectors", row.size(), n);
    for (double g : row) largest = std::max(largest, std::abs(g));
  }
  std::vector<double> w(n, 1.0 / static_cast<double>(n)), slope(n);
  for (int round = 0; round < 10000; ++round) {
    for (std::size_t i = 0; i < n; ++i)
      slope[i] = std::inner_product(gram[i].begin(), gram[i].end(), w.begin(), 0.0);
    const auto to = static_cast<std::size_t>(std::ranges::min_element(slope) - slope.begin());
    std::size_t from = to;  // the steepest of those that have weight to give
    for (std::size_t i = 0; i < n; ++i)
      if (w[i] > 0 && slope[i] > slope[from]) from = i;
    const double gap = slope[from] - slope[to];
    if (gap <= 1e-12 * largest) break;
    const double curve = gram[to][to] - 2 * gram[to][from] + gram[from][from];
    const double step = curve > 0 ? std::min(w[from], gap / curve) : w[from];
    w[to] += step;
    w[from] = step == w[from] ? 0 : w[from] - step;
  }
  return w;
}

std::vector<double> task_shares(const std::vector<std::size_t>& rows, double temperature) {
  check(!rows.empty(), "tasks: there are none");
  check(temperature > 0 && std::isfinite(temperature),
        "tasks: temperature {}; need above 0 (1: as often as there are rows, 10: nearly alike)",
        temperature);
  std::vector<double> p;
  const std::size_t most = *std::ranges::max_element(rows);
  for (std::size_t n : rows) {
    check(n > 0, "tasks: task {} has no rows", p.size());
    p.push_back(std::pow(double(n) / double(most), 1 / temperature));
  }
  const double total = sum(p);
  for (double& x : p) x /= total;
  return p;
}

int drawn_task(const std::vector<double>& shares, Key key) {
  double left = uniform(key, stream_id("task of a step"), 0);
  for (std::size_t t = 0; t + 1 < shares.size(); ++t)
    if ((left -= shares[t]) < 0) return static_cast<int>(t);
  return static_cast<int>(shares.size()) - 1;
}

std::vector<int> split_by(const std::vector<double>& shares, int total) {
  const int tasks = static_cast<int>(shares.size());
  std::vector<int> n(shares.size(), 1);
  for (int left = total - tasks; left > 0; --left) {  // to whoever is furthest below its share
    std::size_t to = 0;
    for (std::size_t t = 1; t < n.size(); ++t)
      if (shares[t] * total - n[t] > shares[to] * total - n[to]) to = t;
    ++n[to];
  }
  return n;
}

Kind weights_named(const std::string& name) {
  if (name == "uniform") return Kind::uniform;
  if (name == "uncertainty") return Kind::uncertainty;
  if (name == "gradnorm") return Kind::gradnorm;
  if (name == "pcgrad") return Kind::pcgrad;
  if (name == "metaweighting") return Kind::metaweighting;
  fail(
      "weights '{}' are unknown; there are uniform, uncertainty, gradnorm, pcgrad and "
      "metaweighting",
      name);
}

TaskWeights::TaskWeights(const WeightSpec& spec, int tasks)
    : spec_(spec),
      value_(static_cast<std::size_t>(tasks), spec.kind == Kind::uncertainty ? 0 : 1),
      applied_(static_cast<std::size_t>(tasks), 1) {
  check(tasks > 0, "weights: there are no tasks");
  check(spec.rate > 0 && spec.alpha >= 0 && std::isfinite(spec.rate + spec.alpha),
        "weights: rate {}, alpha {}; need a rate above 0 and an alpha of at least 0", spec.rate,
        spec.alpha);
}

std::vector<double> TaskWeights::weights() const {
  if (spec_.kind != Kind::uncertainty) return value_;
  std::vector<double> w;
  for (double log_variance : value_) w.push_back(0.5 * std::exp(-log_variance));
  return w;
}

TaskGradient TaskWeights::combine(const std::vector<double>& loss,
                                  const std::vector<TaskGradient>& grads, int step) {
  const std::size_t tasks = value_.size();
  check(loss.size() == tasks && grads.size() == tasks,
        "weights: {} losses and {} gradients of {} tasks", loss.size(), grads.size(), tasks);
  applied_ = weights();
  const std::vector<TaskGradient> projected =
      spec_.kind == Kind::pcgrad ? without_conflicts(grads, step) : std::vector<TaskGradient>{};
  TaskGradient all;
  for (const Array& g : grads[0]) all.push_back(Array::zeros(g.shape(), g.kind()));
  for (std::size_t t = 0; t < tasks; ++t)
    add(all, projected.empty() ? grads[t] : projected[t], applied_[t] / double(tasks));
  if (spec_.kind == Kind::uncertainty)  // d/ds of exp(-s) L / 2 + s / 2
    for (std::size_t t = 0; t < tasks; ++t)
      value_[t] -= spec_.rate * (0.5 - 0.5 * std::exp(-value_[t]) * loss[t]);
  if (spec_.kind == Kind::gradnorm) follow_norms(loss, grads);
  if (looks_ahead()) {
    support_.clear();
    for (const TaskGradient& g : grads) support_.push_back(copy(g));
  }
  return all;
}

// Chen et al. 2018, algorithm 1: L_grad = sum_t | |w_t g_t| - mean |w g| r_t^alpha |, whose target
// is taken as constant; dL_grad / dw_t = sign(...) |g_t|.
void TaskWeights::follow_norms(const std::vector<double>& loss,
                               const std::vector<TaskGradient>& grads) {
  const std::size_t tasks = value_.size();
  if (first_.empty()) first_ = loss;
  std::vector<double> norm, rate;
  double mean_norm = 0, mean_rate = 0;
  for (std::size_t t = 0; t < tasks; ++t) {
    norm.push_back(std::sqrt(dot(grads[t], grads[t])));
    rate.push_back(loss[t] / std::max(first_[t], 1e-12));
    mean_norm += value_[t] * norm[t] / double(tasks);
    mean_rate += rate[t] / double(tasks);
  }
  for (std::size_t t = 0; t < tasks; ++t) {
    const double target = mean_norm * std::pow(rate[t] / std::max(mean_rate, 1e-12), spec_.alpha);
    const double off = value_[t] * norm[t] - target;
    value_[t] -= spec_.rate * (off > 0 ? norm[t] : off < 0 ? -norm[t] : 0);
  }
  renormalise(value_);
}

std::vector<TaskGradient> TaskWeights::without_conflicts(const std::vector<TaskGradient>& grads,
                                                         int step) const {
  const std::size_t tasks = grads.size();
  std::vector<double> squares;
  for (const TaskGradient& g : grads) squares.push_back(dot(g, g));
  std::vector<TaskGradient> out;
  for (std::size_t t = 0; t < tasks; ++t) {
    TaskGradient g = copy(grads[t]);
    std::vector<std::size_t> others;
    for (std::size_t o = 0; o < tasks; ++o)
      if (o != t) others.push_back(o);
    const Key key{spec_.seed, static_cast<std::uint32_t>(step)};
    for (std::size_t i = others.size(); i > 1; --i)
      std::swap(others[i - 1],
                others[static_cast<std::size_t>(
                    uniform(key, stream_id("order of conflicts"), t * tasks + i) * double(i))]);
    for (std::size_t o : others) {
      const double along = dot(g, grads[o]);
      if (along < 0 && squares[o] > 0) add(g, grads[o], -along / squares[o]);
    }
    out.push_back(std::move(g));
  }
  return out;
}

// d_t = dL^q_t / dw = -eta [<g^q_t, g^s_j>]_j; w goes down the vector of least norm among them.
// The paper does not say whether w is normalised: here it stays positive, with sum T. The 1 / T of
// the step's gradient is in eta. The paper's step is theta - eta g, though it trains with Adam; d
// is then too small by about the root of Adam's second moments, and so are the moves of w: alpha
// makes up for it.
void TaskWeights::look_ahead(const std::vector<TaskGradient>& query, double eta) {
  check(looks_ahead() && !support_.empty() && query.size() == value_.size(),
        "weights: query gradients of {} tasks before a step of {}", query.size(), value_.size());
  const std::size_t tasks = value_.size();
  std::vector<std::vector<double>> d(tasks, std::vector<double>(tasks)), gram = d;
  for (std::size_t t = 0; t < tasks; ++t)
    for (std::size_t j = 0; j < tasks; ++j)
      d[t][j] = -eta / double(tasks) * dot(query[t], support_[j]);
  for (std::size_t t = 0; t < tasks; ++t)
    for (std::size_t u = 0; u < tasks; ++u)
      gram[t][u] = std::inner_product(d[t].begin(), d[t].end(), d[u].begin(), 0.0);
  const std::vector<double> lambda = min_norm_weights(gram);
  for (std::size_t t = 0; t < tasks; ++t)
    for (std::size_t j = 0; j < tasks; ++j) value_[j] -= spec_.rate * lambda[t] * d[t][j];
  renormalise(value_);
}

std::vector<double> TaskWeights::state() const {
  std::vector<double> all = value_;
  all.insert(all.end(), first_.begin(), first_.end());
  return all;
}

void TaskWeights::load(const std::vector<double>& state) {
  const std::size_t tasks = value_.size();
  const bool begun = spec_.kind == Kind::gradnorm && state.size() == 2 * tasks;
  check(begun || state.size() == tasks, "weights: a state of {} numbers; need {}", state.size(),
        tasks);
  const auto split = state.begin() + static_cast<std::ptrdiff_t>(tasks);
  value_.assign(state.begin(), split);
  first_.assign(split, state.end());
}

}  // namespace graft
