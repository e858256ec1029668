// Softmax and cross-entropy over rows, each shifted by its largest element.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/kernels.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {
namespace {

// The exponentials cost more than the reading.
std::int64_t exp_grain(std::int64_t columns) { return row_grain(4 * columns); }

// y = exp(x - max x); returns the sum of y. y may be x.
template <class T>
T shifted_exp(T* y, const T* x, std::int64_t n) {
  const T most = row_max(x, n);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = vmath::exp(x[i] - most);
  return lane_sum<T>(n, [=](std::int64_t i) GRAFT_INLINE { return y[i]; });
}

template <class T>
void multiply(T* y, std::int64_t n, T factor) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] *= factor;
}

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

// log(sum of exponentials), `most` being the largest element. Where that is -infinity the others
// are, too, or NaN, and so is their plain sum.
template <class T>
T part_sum(const T* x, std::int64_t n, T most) {
  if (most == -kInfinity<T>)
    return lane_sum<T>(n, [=](std::int64_t i) GRAFT_INLINE { return x[i]; });
  return most + std::log(lane_sum<T>(
                    n, [=](std::int64_t i) GRAFT_INLINE { return vmath::exp(x[i] - most); }));
}

void check_labels(const std::int32_t* label, std::int64_t n, std::int64_t classes) {
  for (std::int64_t i = 0; i < n; ++i)
    check(label[i] >= -1 && label[i] < classes,
          "cross_entropy: label {} (number {}) of {} classes; -1 means none", label[i], i, classes);
}

}  // namespace

void softmax(Array& y, const Array& x) {
  const std::int64_t columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  dispatch(x, [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(rows, exp_grain(columns), [=](std::int64_t r) {
      T* row = out + r * columns;
      const T sum = shifted_exp(row, in + r * columns, columns);
      multiply(row, columns, T{1} / sum);
    });
  });
}

// dx = y (dy - sum(y dy)).
void softmax_grad(Array& dx, const Array& y, const Array& dy) {
  const std::int64_t columns = y.dim(-1), rows = columns ? y.numel() / columns : 0;
  dispatch(y, [&]<class T>(T) {
    const T *in = y.data<T>(), *grad = dy.data<T>();
    T* out = dx.data<T>();
    parallel_for(rows, row_grain(columns), [=](std::int64_t r) {
      const T *p = in + r * columns, *g = grad + r * columns;
      T* d = out + r * columns;
      const T dot = lane_sum<T>(columns, [=](std::int64_t i) GRAFT_INLINE { return p[i] * g[i]; });
#pragma omp simd
      for (std::int64_t i = 0; i < columns; ++i) d[i] = p[i] * (g[i] - dot);
    });
  });
}

void cross_entropy(Array& loss, const Array& logits, const Array& label) {
  const std::int64_t columns = logits.dim(-1), rows = loss.numel();
  const std::int32_t* want = label.data<std::int32_t>();
  check_labels(want, rows, columns);
  dispatch(logits, [&]<class T>(T) {
    const T* in = logits.data<T>();
    T* out = loss.data<T>();
    parallel_for(rows, exp_grain(columns), [=](std::int64_t r) {
      const T* x = in + r * columns;
      if (want[r] < 0) {
        out[r] = 0;
        return;
      }
      const T most = row_max(x, columns);
      const T sum = lane_sum<T>(
          columns, [=](std::int64_t i) GRAFT_INLINE { return vmath::exp(x[i] - most); });
      out[r] = std::log(sum) + (most - x[want[r]]);
    });
  });
}

void cross_entropy_grad(Array& dlogits, const Array& logits, const Array& label,
                        const Array& dloss) {
  const std::int64_t columns = logits.dim(-1), rows = dloss.numel();
  const std::int32_t* want = label.data<std::int32_t>();
  check_labels(want, rows, columns);
  dispatch(logits, [&]<class T>(T) {
    const T *in = logits.data<T>(), *grad = dloss.data<T>();
    T* out = dlogits.data<T>();
    parallel_for(rows, exp_grain(columns), [=](std::int64_t r) {
      T* d = out + r * columns;
      if (want[r] < 0) {
        std::fill_n(d, columns, T{0});
        return;
      }
      const T sum = shifted_exp(d, in + r * columns, columns);
      multiply(d, columns, grad[r] / sum);
      d[want[r]] -= grad[r];
    });
  });
}

void log_sum_exp_join(Array& lse, Array& picked, const Array& logits, const Array& label,
                      std::int64_t first) {
  const std::int64_t columns = logits.dim(-1), rows = lse.numel(), step = logits.stride(0);
  const std::int32_t* want = label.data<std::int32_t>();
  dispatch(logits, [&]<class T>(T) {
    const T* in = logits.data<T>();
    T *sums = lse.data<T>(), *found = picked.data<T>();
    parallel_for(rows, exp_grain(columns), [=](std::int64_t r) {
      const T* x = in + r * step;
      if (want[r] >= first && want[r] < first + columns) found[r] = x[want[r] - first];
      const T most = row_max(x, columns);
      const T part = part_sum(x, columns, most);
      if (part == -kInfinity<T>) return;  // adds nothing
      const T high = std::max(sums[r], part);
      sums[r] =
          std::isnan(part) ? part : high + std::log1p(std::exp(std::min(sums[r], part) - high));
    });
  });
}

void label_loss(Array& loss, const Array& lse, const Array& picked, const Array& label) {
  const std::int32_t* want = label.data<std::int32_t>();
  dispatch(lse, [&]<class T>(T) {
    const T *sums = lse.data<T>(), *found = picked.data<T>();
    T* out = loss.data<T>();
    for (std::int64_t r = 0; r < lse.numel(); ++r) out[r] = want[r] < 0 ? T{0} : sums[r] - found[r];
  });
}

void cross_entropy_part_grad(Array& dlogits, const Array& logits, const Array& lse,
                             const Array& label, const Array& dloss, std::int64_t first) {
  const std::int64_t columns = logits.dim(-1), rows = lse.numel();
  const std::int32_t* want = label.data<std::int32_t>();
  dispatch(logits, [&]<class T>(T) {
    const T *in = logits.data<T>(), *sums = lse.data<T>(), *grad = dloss.data<T>();
    T* out = dlogits.data<T>();
    parallel_for(rows, exp_grain(columns), [=](std::int64_t r) {
      const T *x = in + r * columns, sum = sums[r], g = want[r] < 0 ? T{0} : grad[r];
      T* d = out + r * columns;
#pragma omp simd
      for (std::int64_t i = 0; i < columns; ++i) d[i] = g * vmath::exp(x[i] - sum);
      if (want[r] >= first && want[r] < first + columns) d[want[r] - first] -= g;
    });
  });
}

}  // namespace graft::cpu
