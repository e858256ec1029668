#include "nn/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "nn/optim/diverged.h"
#include "tensor/kernels.h"

namespace graft {

OptimSpec::Kind optim_named(const std::string& name) {
  if (name == "adamw") return OptimSpec::Kind::adamw;
  if (name == "sgd") return OptimSpec::Kind::sgd;
  if (name == "adafactor") return OptimSpec::Kind::adafactor;
  fail("optimizer: '{}' is unknown; there are adamw, sgd and adafactor", name);
}

Schedule::Kind schedule_named(const std::string& name) {
  if (name == "constant") return Schedule::Kind::constant;
  if (name == "linear") return Schedule::Kind::linear;
  if (name == "cosine") return Schedule::Kind::cosine;
  if (name == "trapezoid") return Schedule::Kind::trapezoid;
  fail("schedule: '{}' is unknown; there are constant, linear, cosine and trapezoid", name);
}

double Schedule::at(int step) const {
  if (step < warmup) return peak * (step + 1) / warmup;
  if (kind == Kind::constant || steps <= warmup) return peak;
  if (kind == Kind::trapezoid) {
    const int left = std::max(0, steps - step);
    return left >= cooldown ? peak : peak * (floor + (1 - floor) * left / cooldown);
  }
  const double part = std::min(1.0, static_cast<double>(step - warmup) / (steps - warmup));
  const double left =
      kind == Kind::linear ? 1 - part : 0.5 * (1 + std::cos(std::numbers::pi * part));
  return peak * (floor + (1 - floor) * left);
}

Optimizer::Optimizer(Parameters parameters, OptimSpec spec)
    : parameters_(std::move(parameters)), spec_(spec) {
  check(!parameters_.empty(), "optimizer: there is nothing to train");
  const pool::Purpose purpose("the optimizer");
  for (const auto& p : parameters_) {
    check(p->trains(), "optimizer: '{}' is frozen", p->label());
    auto& state = state_.emplace_back();
    for (const auto& [name, shape] : state_shapes(*p))
      state.push_back(Array::zeros(shape, p->value.kind()));
  }
}

std::vector<std::pair<std::string, Shape>> Optimizer::state_shapes(const Parameter& p) const {
  const Shape& shape = p.value.shape();
  if (spec_.kind == OptimSpec::Kind::sgd) return {{"velocity", shape}};
  if (spec_.kind == OptimSpec::Kind::adamw) return {{"mean", shape}, {"square", shape}};
  if (shape.size() == 2) return {{"rows", {shape[0]}}, {"columns", {shape[1]}}};
  return {{"square", shape}};
}

double Optimizer::step(Gradients& grads, double lr) {
  start(grads, lr);
  return finish();
}

void Optimizer::start(Gradients& grads, double lr, double scale) {
  std::vector<Array> all;
  for (const auto& p : parameters_) {
    check(grads.has(p->value), "optimizer: no gradient reached '{}'", p->label());
    all.push_back(grads[p->value].as_contiguous());
  }
  squares_ = kernels::sum_squares(all);
  each_.clear();
  scale_ = scale;
  if (spec_.kind == OptimSpec::Kind::adamw) return adamw(all, lr);
  if (overflowed()) return;
  double squares = 0;
  for (const double one : squares_of_started()) squares += one;
  const double norm = std::sqrt(squares) / scale;
  const double shrink = (spec_.clip > 0 && norm > spec_.clip ? spec_.clip / norm : 1) / scale;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Array grad = all[i];
    if (shrink != 1) {
      grad = Array::empty(all[i].shape(), all[i].kind());
      kernels::scale(grad, all[i], shrink);
    }
    update(i, grad, lr * parameters_[i]->lr_scale);
  }
}

bool Optimizer::overflowed() const {
  const std::vector<double>& each = squares_of_started();
  return !std::isfinite(std::accumulate(each.begin(), each.end(), 0.0));
}

double Optimizer::finish() {
  double squares = 0;
  const std::vector<double>& each = squares_of_started();
  for (std::size_t i = 0; i < each.size(); ++i) {
    squares += each[i];
    check_converges(std::isfinite(squares),
                    "optimizer: the gradient of '{}' is not finite at step {}; lower the rate",
                    parameters_[i]->label(), steps_ + 1);
  }
  ++steps_;
  squares_ = {};
  return std::sqrt(squares) / scale_;
}

const std::vector<double>& Optimizer::squares_of_started() const {
  check(squares_.defined(), "optimizer: no step was started");
  if (each_.empty()) each_ = squares_.to_vector();
  return each_;
}

void Optimizer::adamw(const std::vector<Array>& grads, double lr) {
  std::vector<AdamWTensor> all;
  for (std::size_t i = 0; i < grads.size(); ++i) {
    Parameter& p = *parameters_[i];
    all.push_back({p.value.value(), state_[i][0], state_[i][1], grads[i], lr * p.lr_scale,
                   p.decay ? spec_.decay : 0});
  }
  kernels::adamw(all, {spec_.beta1, spec_.beta2, spec_.eps, steps_ + 1, spec_.clip, scale_},
                 squares_);
}

void Optimizer::update(std::size_t i, const Array& grad, double lr) {
  Parameter& p = *parameters_[i];
  const double decay = p.decay ? spec_.decay : 0;
  if (spec_.kind == OptimSpec::Kind::sgd)
    kernels::sgd(p.value.value(), state_[i][0], grad, lr, spec_.momentum, decay);
  else
    adafactor(i, grad, lr, decay);
}

// Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors), without momentum, with update
// clipping at 1. The external rate takes the place of the paper's relative step. Decay comes before
// the update and after the size is measured, as in PyTorch. It is computed on the host: what lies
// on the device is copied there and back.
void Optimizer::adafactor(std::size_t i, const Array& gradient, double lr, double decay) {
  constexpr double kEps1 = 1e-30, kEps2 = 1e-3, kClip = 1;
  Array& value = parameters_[i]->value.value();
  Array w = value.to(Device::cpu);
  const Array grad = gradient.to(Device::cpu);
  std::vector<Array> state;
  for (const Array& a : state_[i]) state.push_back(a.to(Device::cpu));
  const double beta = 1 - std::pow(steps_ + 1, -spec_.factored_decay);
  dispatch(w, [&]<class T>(T) {
    const T* g = grad.data<T>();
    T* out = w.data<T>();
    const std::int64_t n = w.numel();
    std::vector<double> u(n);
    if (w.ndim() == 2) {
      const std::int64_t rows = w.dim(0), columns = w.dim(1);
      T* r = state[0].data<T>();
      T* c = state[1].data<T>();
      std::vector<double> column(columns, 0);
      double total = 0;
      for (std::int64_t a = 0; a < rows; ++a) {
        double row = 0;
        for (std::int64_t b = 0; b < columns; ++b) {
          const double s = double(g[a * columns + b]) * g[a * columns + b] + kEps1;
          row += s, column[b] += s;
        }
        r[a] = static_cast<T>(beta * r[a] + (1 - beta) * row / columns);
        total += r[a];
      }
      for (std::int64_t b = 0; b < columns; ++b)
        c[b] = static_cast<T>(beta * c[b] + (1 - beta) * column[b] / rows);
      for (std::int64_t a = 0; a < rows; ++a)
        for (std::int64_t b = 0; b < columns; ++b)
          u[a * columns + b] = g[a * columns + b] / std::sqrt(double(r[a]) * c[b] / (total / rows));
    } else {
      T* v = state[0].data<T>();
      for (std::int64_t a = 0; a < n; ++a) {
        v[a] = static_cast<T>(beta * v[a] + (1 - beta) * (double(g[a]) * g[a] + kEps1));
        u[a] = g[a] / std::sqrt(double(v[a]));
      }
    }
    double squares = 0, size = 0;
    for (std::int64_t a = 0; a < n; ++a) squares += u[a] * u[a], size += double(out[a]) * out[a];
    const double clip = std::max(1.0, std::sqrt(squares / n) / kClip);
    const double rate = lr * (spec_.scale_by_size ? std::max(kEps2, std::sqrt(size / n)) : 1);
    for (std::int64_t a = 0; a < n; ++a)
      out[a] = static_cast<T>(out[a] * (1 - lr * decay) - rate * u[a] / clip);
  });
  if (value.device() == Device::cpu) return;  // then these are the numbers themselves
  value.copy_from(w);
  for (std::size_t j = 0; j < state.size(); ++j) state_[i][j].copy_from(state[j]);
}

std::map<std::string, Array> Optimizer::state() const {
  std::map<std::string, Array> all;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto shapes = state_shapes(*parameters_[i]);
    for (std::size_t j = 0; j < shapes.size(); ++j)
      all[parameters_[i]->label() + " " + shapes[j].first] = state_[i][j];
  }
  return all;
}

void Optimizer::load(const std::map<std::string, Array>& saved, int steps) {
  std::map<std::string, Array> own = state();
  for (const auto& [key, array] : own) {
    const auto at = saved.find(key);
    check(at != saved.end(), "optimizer state: '{}' is missing", key);
    check(at->second.shape() == array.shape(), "optimizer state: '{}' has shape {}, need {}", key,
          at->second.shape(), array.shape());
  }
  check(own.size() == saved.size(), "optimizer state: {} entries, of which this run uses {}",
        saved.size(), own.size());
  for (auto& [key, array] : own) array.copy_from(saved.at(key));  // shares the state's storage
  steps_ = steps;
}

}  // namespace graft
