#include "experiments/bench/step_products.h"

#include <algorithm>

#include "experiments/bench/yardstick.h"
#include "tensor/kernels.h"

namespace graft {
namespace {

// The first numbers of `all`, as a matrix.
Array part(const Array& all, std::int64_t rows, std::int64_t columns) {
  return all.slice(0, 0, rows * columns).reshape({rows, columns});
}

Array constant(Array w) {
  w.mark_constant();
  return w;
}

}  // namespace

StepProducts::StepProducts(Model& m, std::int64_t tokens, std::int64_t labelled, int rank)
    : sums_(4 * m.arch().layers), tokens_(tokens), width_(m.arch().width), rank_(rank) {
  const auto add = [&](const Array& w, std::int64_t rows) {
    Array copy = Array::empty(w.shape());
    copy.copy_from(w.to(Dtype::f32));
    all_.push_back({constant(copy), rows});
  };
  for (auto& block : m.blocks)
    block->each([&](Weight& w) {
      if (w.value().shape().size() == 2) add(w.value().value(), tokens);
    });
  if (!m.has_head()) add(m.embedding.table().value(), labelled);
  for (int i = 0; i < 2 * m.arch().layers; ++i) {
    add(Array::full({rank, width_}, 0.5), tokens);
    add(Array::full({width_, rank}, 0.5), tokens);
  }
  std::int64_t most = 0;
  for (const Frozen& f : all_) most = std::max({most, f.rows * f.w.dim(0), f.rows * f.w.dim(1)});
  x_ = Array::full({most}, 0.5), y_ = Array::full({most}, 0.5);
}

double StepProducts::ours() {
  const double begun = now();
  for (const Frozen& f : all_) {
    const std::int64_t out = f.w.dim(0), in = f.w.dim(1);
    Array y = part(y_, f.rows, out), dx = part(y_, f.rows, in);
    kernels::gemm(y, part(x_, f.rows, in), f.w.transpose(), 1, 0);
    kernels::gemm(dx, part(x_, f.rows, out), f.w, 1, 0);
  }
  for (std::int64_t i = 0; i < sums_; ++i) {
    Array sum = part(y_, rank_, width_);
    kernels::gemm(sum, part(x_, tokens_, rank_).transpose(), part(x_, tokens_, width_), 1, 1);
  }
  return now() - begun;
}

double StepProducts::openblas() {
  const double begun = now();
  for (const Frozen& f : all_) {
    const std::int64_t out = f.w.dim(0), in = f.w.dim(1);
    Array y = part(y_, f.rows, out), dx = part(y_, f.rows, in);
    openblas_product(y, part(x_, f.rows, in), false, f.w, true, 0);
    openblas_product(dx, part(x_, f.rows, out), false, f.w, false, 0);
  }
  for (std::int64_t i = 0; i < sums_; ++i) {
    Array sum = part(y_, rank_, width_);
    openblas_product(sum, part(x_, tokens_, rank_), true, part(x_, tokens_, width_), false, 1);
  }
  return now() - begun;
}

}  // namespace graft
