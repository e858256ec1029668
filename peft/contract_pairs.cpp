// Pairs of methods: in either order they compose, or attaching says why not.
#include <algorithm>
#include <cmath>

#include "peft/contract_trial.h"
#include "peft/values.h"

namespace graft {
namespace {

struct Broken {
  std::string why;
};
template <class... Args>
void keep(bool kept, fmt::format_string<Args...> why, Args&&... args) {
  if (!kept) throw Broken{fmt::format(why, std::forward<Args>(args)...)};
}

double largest(const Array& a) {
  double most = 0;
  for (const double v : a.to_vector()) most = std::max(most, std::abs(v));
  return most;
}

// The slope of the loss along a random direction of one adapter's parameters, by central
// differences, against the gradient's. A kink of a ReLU between two points is missed by nearer
// ones.
void slope(Trial& t, const Adapter& adapter, const Gradients& grads) {
  double along = 0, squares = 0, length = 0;
  std::vector<Array> direction;
  for (const auto& p : adapter.parameters()) {
    keep(grads.has(p->value), "no gradient reached {}", p->label());
    Array v = Array::zeros(p->value.shape(), Dtype::f64);
    double* d = v.data<double>();
    const std::vector<double> g = grads[p->value].to_vector();
    for (std::int64_t i = 0; i < v.numel(); ++i) {
      d[i] = normal({13, 0}, stream_id(p->label().c_str()), i);
      along += d[i] * g[i], squares += g[i] * g[i], length += d[i] * d[i];
    }
    keep(std::isfinite(squares), "the gradient of {} is not finite", p->label());
    direction.push_back(v.to(p->value.value().device()));
  }
  if (direction.empty()) return;
  length = std::sqrt(length);
  const auto move = [&](double by) {
    for (std::size_t i = 0; i < direction.size(); ++i)
      kernels::axpy(adapter.parameters()[i]->value.value(), direction[i], by / length);
  };
  double error = 0;
  for (const double step : {1e-4, 1e-5, 1e-6}) {
    move(step);
    const double up = t.loss().item();
    move(-2 * step);
    const double down = t.loss().item();
    move(step);
    error = std::abs((up - down) / (2 * step) - along / length);
    if (error <= 1e-6 * (1e-2 + std::sqrt(squares))) return;
  }
  throw Broken{fmt::format("{}: the gradient is off by {:.1e} along a direction where it is {:.1e}",
                           adapter.name(), error, along / length)};
}

void merges(Trial& t, const Array& before, std::string& detail) {
  try {
    t.adaptation->merge();
  } catch (const Error& e) {
    keep(same_bits(before, t.scores().value()), "it did not merge, and is not what it was");
    detail = std::string("does not merge: ") + e.what();
    return;
  }
  const auto a = before.to_vector(), b = t.scores().value().to_vector();
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  keep(most <= 1e-10 * (1 + largest(before)), "merged it is off by {:.1e}", most);
  t.adaptation->unmerge();
  keep(same_bits(before, t.scores().value()), "unmerged it is not what it was");
  detail = "merges";
}

}  // namespace

struct PairBody::State {
  State(const Methods& m, Body kind) : methods(m), trial(m, "", kind, Dtype::f64) {
    bare = trial.scores().value();
    hash = trial.model.hash();
  }
  const Methods& methods;
  Trial trial;
  Array bare;
  std::uint64_t hash;
};

PairBody::PairBody(const Methods& methods, Body kind)
    : state_(std::make_unique<State>(methods, kind)) {}
PairBody::~PairBody() = default;

PairResult PairBody::check(const std::string& first, const std::string& second) {
  const std::string spec = first + "|" + second;
  Trial& t = state_->trial;
  PairResult result{spec, PairResult::composes, ""};
  try {
    t.adapt(state_->methods, spec);
  } catch (const Error& e) {
    t.adaptation.reset();
    result.kind = PairResult::refused, result.detail = e.what();
  }
  try {
    if (result.kind == PairResult::composes) composes(spec, result.detail);
    keep(t.model.hash() == state_->hash && same_bits(t.scores().value(), state_->bare),
         "taken off it does not leave the base as it was");
  } catch (const Broken& b) {
    result.kind = PairResult::broken, result.detail = b.why;
  } catch (const Error& e) {
    result.kind = PairResult::broken, result.detail = e.what();
  }
  t.adaptation.reset();
  return result;
}

void PairBody::composes(const std::string& spec, std::string& detail) {
  Trial& t = state_->trial;
  const auto parts = parse_spec(spec);
  const auto& adapters = t.adaptation->adapters();
  keep(adapters.size() == parts.size() && t.adaptation->spec() == spec, "the spec is not kept");
  for (std::size_t i = 0; i < parts.size(); ++i)
    keep(adapters[i]->name() == parts[i].method(), "{} stands where {} was asked for",
         adapters[i]->name(), parts[i].method());
  keep(t.adaptation->count() == t.adaptation->formula(), "{} numbers train, the formulas say {}",
       t.adaptation->count(), t.adaptation->formula());
  t.jitter_all();
  if (!t.trained().empty()) {
    const Gradients grads = backward(t.loss());
    for (const auto& a : adapters) slope(t, *a, grads);
  }
  const Array before = t.scores().value();
  for (const auto& a : adapters)
    for (const auto& f : a->fired())
      keep(f.calls > 0, "{}: an edit at {} did not fire", a->name(), to_string(f.site));
  merges(t, before, detail);
  std::map<std::string, Array> values;
  for (const auto& p : t.adaptation->stored()) values[p->label()] = p->value.value();
  t.adaptation.reset();
  keep(same_bits(t.scores().value(), state_->bare), "taken off it is not the base, bit for bit");
  t.adapt(state_->methods, spec);
  set_adapter_values(values, t.adaptation->stored(), spec);
  keep(same_bits(before, t.scores().value()), "its values, put back, do not give its outputs");
  t.adaptation.reset();
}

void Contract::other_order() {
  constexpr const char* kClause = "the other order composes, or is refused with a reason";
  const std::size_t bar = spec.find('|');
  if (bar == std::string::npos || spec.find('|', bar + 1) != std::string::npos) return;
  PairBody body(methods, kind);
  const std::string first = spec.substr(0, bar), second = spec.substr(bar + 1);
  const PairResult as_given = body.check(first, second), turned = body.check(second, first);
  add("both act, in this order, each with its own gradient", as_given.kind == PairResult::composes,
      as_given.detail);
  add(kClause, turned.kind != PairResult::broken,
      (turned.kind == PairResult::refused ? "refused: " : "") + turned.detail);
}

}  // namespace graft
