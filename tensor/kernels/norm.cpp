// Layer norm (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019). One code for both: RMS norm
// is layer norm with the mean held at zero and no bias. Gradients recompute the two moments of a
// row.
//
// dgain and dbias continue one chain per column from the value already there (columns.h).
#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/kernels/columns.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {
namespace {

template <class T>
struct Moments {
  T mean, rstd;  // rstd = 1 / sqrt(variance + eps)
};

// Two passes over the row, which is in cache by the second: no cancellation for a large mean.
template <bool centred, class T>
Moments<T> moments(const T* x, std::int64_t n, T eps) {
  T mean = 0;
  if constexpr (centred)
    mean = lane_sum<T>(n, [=](std::int64_t i) GRAFT_INLINE { return x[i]; }) / T(n);
  const T squares = lane_sum<T>(n, [=](std::int64_t i) GRAFT_INLINE {
    const T d = centred ? x[i] - mean : x[i];
    return d * d;
  });
  return {mean, T{1} / std::sqrt(squares / T(n) + eps)};
}

// The values of a parameter, or `absent` for each column when there is none.
template <class T>
const T* values_or(const Array& parameter, T absent, std::int64_t n, std::vector<T>& scratch) {
  if (parameter.defined()) return parameter.data<T>();
  scratch.assign(n, absent);
  return scratch.data();
}

template <bool centred, class T>
void forward(Array& y, const Array& x, const Array& gain, const Array& bias, double eps) {
  const std::int64_t columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  std::vector<T> ones, zeros;
  const T* g = values_or<T>(gain, 1, columns, ones);
  const T* b = values_or<T>(bias, 0, columns, zeros);
  const T* in = x.data<T>();
  T* out = y.data<T>();
  parallel_for(rows, row_grain(columns), [=](std::int64_t r) {
    const T* xr = in + r * columns;
    T* yr = out + r * columns;
    const Moments<T> m = moments<centred>(xr, columns, static_cast<T>(eps));
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c)
      yr[c] = vmath::fma((xr[c] - m.mean) * m.rstd, g[c], b[c]);
  });
}

// With h = (x - mean) rstd and g = dy gain: dx = rstd (g - mean(g) - h mean(g h)).
template <bool centred, class T>
void input_grad_row(T* dx, const T* x, const T* gain, const T* dy, std::int64_t n, Moments<T> m) {
  const auto g = [=](std::int64_t i) GRAFT_INLINE { return dy[i] * gain[i]; };
  const auto h = [=](std::int64_t i) GRAFT_INLINE { return (x[i] - m.mean) * m.rstd; };
  const auto gh = [=](std::int64_t i) GRAFT_INLINE { return g(i) * h(i); };
  const T mean_g = centred ? lane_sum<T>(n, g) / T(n) : T{0};
  const T mean_gh = lane_sum<T>(n, gh) / T(n);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) dx[i] = m.rstd * vmath::fma(-h(i), mean_gh, g(i) - mean_g);
}

// Continues the columns' chains. Both take a few rows in turn, so that dy comes from memory once.
template <class T>
void parameter_grads(T* dgain, T* dbias, const T* x, const T* dy, const Moments<T>* moment,
                     std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kRows = 16;
  const auto gain_step = [=](T sum, std::int64_t r, std::int64_t c) GRAFT_INLINE {
    const T h = (x[r * columns + c] - moment[r].mean) * moment[r].rstd;
    return vmath::fma(dy[r * columns + c], h, sum);
  };
  const auto bias_step = [=](T sum, std::int64_t r, std::int64_t c)
                             GRAFT_INLINE { return sum + dy[r * columns + c]; };
  column_blocks(rows, columns, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = 0; first < rows; first += kRows) {
      const std::int64_t last = std::min(rows, first + kRows);
      if (dgain) chain_block(dgain, first, last, begin, end, gain_step);
      if (dbias) chain_block(dbias, first, last, begin, end, bias_step);
    }
  });
}

template <bool centred, class T>
void backward(Array& dx, Array& dgain, Array& dbias, const Array& x, const Array& gain,
              const Array& dy, double eps) {
  const std::int64_t columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  std::vector<T> ones;
  std::vector<Moments<T>> kept(dgain.defined() ? rows : 0);
  Moments<T>* keep = dgain.defined() ? kept.data() : nullptr;
  const T* g = values_or<T>(gain, 1, columns, ones);
  const T *in = x.data<T>(), *grad = dy.data<T>();
  T* out = dx.defined() ? dx.data<T>() : nullptr;
  if (out || keep)
    parallel_for(rows, row_grain(columns), [=](std::int64_t r) {
      const T *xr = in + r * columns, *dyr = grad + r * columns;
      const Moments<T> m = moments<centred>(xr, columns, static_cast<T>(eps));
      if (keep) keep[r] = m;
      if (out) input_grad_row<centred>(out + r * columns, xr, g, dyr, columns, m);
    });
  if (dgain.defined() || dbias.defined())
    parameter_grads(dgain.defined() ? dgain.data<T>() : nullptr,
                    dbias.defined() ? dbias.data<T>() : nullptr, in, grad, keep, rows, columns);
}

}  // namespace

void layer_norm(Array& y, const Array& x, const Array& gain, const Array& bias, double eps) {
  dispatch(x, [&]<class T>(T) { forward<true, T>(y, x, gain, bias, eps); });
}

void layer_norm_grad(Array& dx, Array& dgain, Array& dbias, const Array& x, const Array& gain,
                     const Array& dy, double eps) {
  dispatch(x, [&]<class T>(T) { backward<true, T>(dx, dgain, dbias, x, gain, dy, eps); });
}

void rms_norm(Array& y, const Array& x, const Array& gain, double eps) {
  dispatch(x, [&]<class T>(T) { forward<false, T>(y, x, gain, Array(), eps); });
}

void rms_norm_grad(Array& dx, Array& dgain, const Array& x, const Array& gain, const Array& dy,
                   double eps) {
  Array none;
  dispatch(x, [&]<class T>(T) { backward<false, T>(dx, dgain, none, x, gain, dy, eps); });
}

}  // namespace graft::cpu
