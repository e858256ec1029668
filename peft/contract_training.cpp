// The clauses on training: gradients, what moves and what stays, resuming, checkpoints.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "nn/half_precision.h"
#include "peft/contract_trial.h"
#include "peft/files.h"
#include "peft/training_state.h"

namespace graft {
namespace {
constexpr const char* kResumes = "training goes on from a file, bit for bit";
}

// Central differences in f64 at up to 12 places of each parameter.
void Contract::gradients() {
  Trial t = trial(Dtype::f64);
  t.jitter_all();
  if (t.trained().empty())
    return add("gradients agree with finite differences", true, "none train");
  const Gradients grads = backward(t.loss());
  double worst = 0;
  std::string where;
  for (const auto& p : t.trained()) {
    check(grads.has(p->value), "no gradient reached {}", p->label());
    const std::int64_t n = p->value.numel(), step = std::max<std::int64_t>(1, n / 12);
    Array& value = p->value.value();
    Array moved = value.to(Device::cpu).clone();  // where it lies on a device, through here
    double* w = moved.data<double>();
    const auto loss = [&] { return value.copy_from(moved), t.loss().item(); };
    double scale = 1e-4;
    for (double g : grads[p->value].to_vector()) scale = std::max(scale, std::abs(g));
    for (std::int64_t i = 0; i < n; i += step) {
      const double before = w[i], h = 1e-5;
      w[i] = before + h;
      const double up = loss();
      w[i] = before - h;
      const double down = loss();
      w[i] = before;
      const double error = std::abs((up - down) / (2 * h) - grads[p->value].at(i)) / scale;
      if (error > worst) worst = error, where = p->label();
    }
    value.copy_from(moved);
  }
  add("gradients agree with finite differences", worst < 1e-5,
      fmt::format("largest error {:.1e} of the largest gradient{}", worst,
                  where.empty() ? "" : ", at " + where));
}

// Whether all base weights that have a gradient are the adapter's copies.
static bool only_its_own(Trial& t, Gradients& grads) {
  bool all = true;
  std::set<const Node*> trained;
  for (const auto& p : t.trained()) trained.insert(p->value.node().get());
  t.model.each(
      [&](Weight& w) { all &= !grads.has(w.value()) || trained.contains(w.value().node().get()); });
  return all;
}

constexpr int kSteps = 30;
constexpr double kRate = 0.01, kLargeRate = 0.1, kFall = 1e-3;

// The loss after as many steps at the larger rate; NaN where that is none. A method whose few
// numbers are far from 0, such as one scale of all scores, hardly moves at the smaller one.
double Contract::loss_at_large_rate() const {
  Trial t = trial();
  Optimizer optimizer(t.trained(), {.decay = 0});
  try {
    for (int i = 0; i < kSteps; ++i) {
      Gradients grads = backward(t.loss());
      t.adaptation->after_backward(i);
      optimizer.step(grads, kLargeRate);
    }
  } catch (const Error&) {  // gradients that are no numbers
    return NAN;
  }
  return t.loss().item();
}

void Contract::training() {
  Trial t = trial();
  if (t.trained().empty()) {
    for (const char* clause : {"frozen weights keep their bits and get no gradient",
                               "every trainable tensor moved", "the loss falls, the head frozen"})
      add(clause, true, "none train");
    return;
  }
  std::vector<Array> before;
  for (const auto& p : t.trained()) before.push_back(p->value.value().clone());
  Trial frozen = bare();
  Optimizer optimizer(t.trained(), {.decay = 0});
  const double first = t.loss().item();
  bool no_gradient = true;
  for (int i = 0; i < kSteps; ++i) {
    Gradients grads = backward(t.loss());
    t.model.head().each([&](Weight& w) { no_gradient &= !grads.has(w.value()); });
    if (i == 0) no_gradient &= only_its_own(t, grads);
    t.adaptation->after_backward(i);
    optimizer.step(grads, kRate);
  }
  double last = t.loss().item();
  const bool falls = last < first - kFall;
  if (!falls) last = loss_at_large_rate();
  bool moved = true;
  std::string still;
  for (std::size_t i = 0; i < before.size(); ++i)
    if (same_bits(before[i], t.trained()[i]->value.value())) {
      moved = false;
      still = t.trained()[i]->label();
    }
  add("every trainable tensor moved", moved, still);
  add("the loss falls, the head frozen", last < first - kFall,
      fmt::format("{:.4f} -> {:.4f}{}", first, last,
                  falls ? "" : fmt::format(" at a rate of {}", kLargeRate)));
  t.adaptation.reset();
  add("frozen weights keep their bits and get no gradient",
      no_gradient && t.model.hash() == frozen.model.hash());
  add("detaching restores the bare model, bit for bit",
      same_bits(t.scores().value(), frozen.scores().value()));
}

// k steps, saved, loaded beside a fresh base, and k more are 2k steps, bit for bit.
void Contract::resuming() {
  constexpr int kHalf = 2;
  const auto folder = std::filesystem::temp_directory_path() /
                      fmt::format("graft-contract-{}-{}-state", ::getpid(), name(kind));
  bool same = true;
  std::string where;
  const auto steps = [](Trial& t, Optimizer& optimizer) {
    for (int i = 0; i < kHalf; ++i) {
      Gradients grads = backward(t.loss(true, optimizer.steps() + 1));
      t.adaptation->after_backward(optimizer.steps());
      optimizer.step(grads, 0.01);
    }
  };
  for (const auto optimizer : {"adamw", "sgd", "adafactor"}) {
    const OptimSpec kind_of{.kind = optim_named(optimizer)};
    Trial straight = trial(), fresh = trial(Dtype::f32, 8);
    if (straight.trained().empty()) return add(kResumes, true, "none train");
    const Parameters held = straight.adaptation->stored(), there = fresh.adaptation->stored();
    Optimizer a(straight.trained(), kind_of), b(fresh.trained(), kind_of);
    steps(straight, a);
    if (kind_of.kind == OptimSpec::Kind::adamw) {  // the adapter, and the state that is bound to it
      save_adapter(folder, spec, held, {});
      keep_training_state(folder, training_state(a, held));
      resume(kept_training_state(folder), b, folder.string(), there);
    } else {
      write_training_state(folder / kTrainingState, training_state(a, held));
      resume(read_training_state(folder / kTrainingState), b, folder.string(), there);
    }
    steps(straight, a), steps(fresh, b);
    for (std::size_t i = 0; i < straight.trained().size(); ++i)
      if (!same_bits(straight.trained()[i]->value.value(), fresh.trained()[i]->value.value()))
        same = false, where = fmt::format("{}: {}", optimizer, straight.trained()[i]->label());
  }
  std::filesystem::remove_all(folder);
  add(kResumes, same, same ? "adamw, sgd with momentum, adafactor" : where);
}

void Contract::checkpointing() {
  Trial t = trial();
  t.jitter_all();
  if (t.trained().empty()) return add("checkpointed = plain, bit for bit", true, "none train");
  const Tensor plain = t.loss(true);
  const Gradients a = backward(plain);
  bool same = true;
  for (const Checkpoint parts : {Checkpoint::inner, Checkpoint::blocks}) {
    const Tensor again = t.loss(true, 1, parts);
    same &= same_bits(plain.value(), again.value());
    const Gradients b = backward(again);
    for (const auto& p : t.trained())
      same &= a.has(p->value) && b.has(p->value) && same_bits(a[p->value], b[p->value]);
  }
  add("checkpointed = plain, bit for bit", same);
}

// A head that reads one row of each sequence: what edits give may depend on a row's place and
// sequence, and not on which rows go through the block with it.
void Contract::few_rows() {
  Trial t = trial();
  t.jitter_all();
  t.model.set_head(std::make_unique<LinearHead>(t.model.build(), t.model.arch(), 3,
                                                kind == Body::encoder ? Pool::cls : Pool::last));
  const Head& head = t.model.head();
  std::int64_t computed = 0;  // of the last block, at the latest pass
  const Handle watch =
      t.model.blocks.back()->mlp.hidden.add("watch", [&](const Tensor& h, const Ctx&) {
        computed = h.dim(0);
        return h;
      });
  const auto pass = [&](bool alone) {
    Ctx ctx{.train = true, .key = {5, 1}};
    return alone ? t.model.scores(t.batch, ctx)
                 : head.scores(t.model, t.model.forward(t.batch, ctx), t.batch, ctx);
  };
  const Tensor all = pass(false), few = pass(true);
  bool same = same_bits(all.value(), few.value());
  std::vector<double> x = all.value().to_vector(), y = few.value().to_vector();
  const auto also = [](std::vector<double>& to, const Array& from) {
    const std::vector<double> more = from.to_vector();
    to.insert(to.end(), more.begin(), more.end());
  };
  if (all.needs_grad()) {
    const Gradients a = backward(head.loss(all, t.batch)), b = backward(head.loss(few, t.batch));
    for (const auto& p : t.trained()) {
      same &= a.has(p->value) == b.has(p->value);
      if (!a.has(p->value) || !b.has(p->value)) continue;
      same &= same_bits(a[p->value], b[p->value]);
      also(x, a[p->value]), also(y, b[p->value]);
    }
  }
  // The device's products may sum in another order where there are fewer rows.
  double most = 0, size = 1e-30;
  for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    most = std::max(most, std::abs(x[i] - y[i])), size = std::max(size, std::abs(x[i]));
  if (device != Device::cpu) same = x.size() == y.size() && most < 1e-4 * size;
  add(fmt::format("the last block's rows that are read, computed alone = all of them, {}",
                  device == Device::cpu ? "bit for bit" : "within rounding"),
      same && computed < t.batch.tokens(), fmt::format("{} rows computed", computed));
}

// bf16, whose products are not f32's: what trains stays f32 all the same.
void Contract::half_base() {
  constexpr const char* kClause = "on a base of half precision it trains in f32";
  Trial t = trial(Dtype::bf16);
  if (t.trained().empty()) return add(kClause, true, "none train");
  t.jitter_all();
  const Tensor loss = t.loss(true);
  bool kept = std::isfinite(loss.item());
  const Gradients grads = backward(loss);
  std::string where;
  for (const auto& p : t.trained()) {
    const bool good = p->value.dtype() == Dtype::f32 && grads.has(p->value) &&
                      std::isfinite(kernels::sum_squares({grads[p->value]}).item());
    if (!good) kept = false, where = p->label();
  }
  add(kClause, kept, where);
}

// On a device alone: the host does not compute in half precision. In bf16 a body so narrow may have
// a gradient that is off by a third (a ReLU that opens or not); f16 rounds eight times finer, and
// what is off there is more than rounding.
void Contract::in_half_precision() {
  constexpr const char* kClause = "computed in half precision, its gradients are close to f32's";
  if (device == Device::cpu) return;
  Trial wide(methods, spec, kind);
  if (wide.trained().empty()) return add(kClause, true, "none train");
  wide.jitter_all();
  const Tensor want = wide.loss(true);
  const Gradients exact = backward(want);
  bool kept = true;
  std::string detail;
  for (const auto& [dtype, limit] : {std::pair{Dtype::bf16, 0.5}, {Dtype::f16, 0.05}}) {
    Trial narrow = trial();
    narrow.jitter_all();
    const HalfPrecision half(narrow.model, dtype);
    const Tensor got = narrow.loss(true);
    const Gradients rounded = backward(got);
    double squares = 0, apart = 0;
    const Parameters masters = narrow.trained(), reference = wide.trained();
    for (std::size_t i = 0; i < masters.size(); ++i) {
      const Array& g = rounded[masters[i]->value];
      kept &= g.dtype() == Dtype::f32;
      const Array should = exact[reference[i]->value].as_contiguous();
      Array off = g.to(Device::cpu).clone();
      kernels::axpy(off, should, -1);
      const std::vector<double> sums = kernels::sum_squares({should, off}).to_vector();
      squares += sums[0], apart += sums[1];
    }
    const double share = std::sqrt(apart / squares);
    const double loss = std::abs(got.item() - want.item()) / std::abs(want.item());
    kept &= loss < limit / 10 && share < limit;
    detail += fmt::format("{}{}: the loss is off by {:.1e} of it, the gradient by {:.1e}",
                          detail.empty() ? "" : "; ", name(dtype), loss, share);
  }
  add(kClause, kept, detail);
}

}  // namespace graft
