// Layer norm and RMS norm on the device: one block for each row, its two moments in f32.
#include "tensor/cuda/launch.h"
#include "tensor/cuda/rows.h"
#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::cuda {
namespace {

template <class C>
struct Moments {
  C mean, rstd;
};

template <bool centred, class T>
__device__ Moments<Compute<T>> moments(const T* x, std::int64_t n, Compute<T> eps) {
  using C = Compute<T>;
  C mean = 0;
  if constexpr (centred) {
    C sum = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += static_cast<C>(x[i]);
    mean = block_sum(sum) / C(n);
  }
  C squares = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const C d = static_cast<C>(x[i]) - mean;
    squares += d * d;
  }
  return {mean, C{1} / std::sqrt(block_sum(squares) / C(n) + eps)};
}

template <class T>
__device__ Compute<T> value_or(const T* x, std::int64_t i, Compute<T> absent) {
  return x ? static_cast<Compute<T>>(x[i]) : absent;
}

template <bool centred, class T>
__global__ void norm_kernel(T* y, const T* x, const T* gain, const T* bias, std::int64_t columns,
                            Compute<T> eps) {
  using C = Compute<T>;
  x += blockIdx.x * columns;
  y += blockIdx.x * columns;
  const Moments<C> m = moments<centred>(x, columns, eps);
  for (std::int64_t i = threadIdx.x; i < columns; i += blockDim.x)
    y[i] = static_cast<T>(vmath::fma((static_cast<C>(x[i]) - m.mean) * m.rstd,
                                     value_or(gain, i, C{1}), value_or(bias, i, C{0})));
}

// With h = (x - mean) rstd and g = dy gain: dx = rstd (g - mean(g) - h mean(g h)). Keeps the
// moments for the parameters' gradients.
template <bool centred, class T>
__global__ void norm_grad_kernel(T* dx, Moments<Compute<T>>* kept, const T* x, const T* gain,
                                 const T* dy, std::int64_t columns, Compute<T> eps) {
  using C = Compute<T>;
  x += blockIdx.x * columns;
  dy += blockIdx.x * columns;
  const Moments<C> m = moments<centred>(x, columns, eps);
  if (kept && threadIdx.x == 0) kept[blockIdx.x] = m;
  if (!dx) return;
  dx += blockIdx.x * columns;
  C sum_g = 0, sum_gh = 0;
  for (std::int64_t i = threadIdx.x; i < columns; i += blockDim.x) {
    const C g = static_cast<C>(dy[i]) * value_or(gain, i, C{1});
    sum_g += g;
    sum_gh += g * ((static_cast<C>(x[i]) - m.mean) * m.rstd);
  }
  const C mean_g = centred ? block_sum(sum_g) / C(columns) : C{0};
  const C mean_gh = block_sum(sum_gh) / C(columns);
  for (std::int64_t i = threadIdx.x; i < columns; i += blockDim.x) {
    const C g = static_cast<C>(dy[i]) * value_or(gain, i, C{1});
    const C h = (static_cast<C>(x[i]) - m.mean) * m.rstd;
    dx[i] = static_cast<T>(m.rstd * vmath::fma(-h, mean_gh, g - mean_g));
  }
}

template <class T>
struct GainGrad {
  const T *x, *dy;
  const Moments<Compute<T>>* moment;
  std::int64_t columns;
  __device__ Compute<T> operator()(std::int64_t i) const {
    using C = Compute<T>;
    const Moments<C> m = moment[i / columns];
    return static_cast<C>(dy[i]) * ((static_cast<C>(x[i]) - m.mean) * m.rstd);
  }
};
template <class T>
struct BiasGrad {
  const T* dy;
  __device__ Compute<T> operator()(std::int64_t i) const { return static_cast<Compute<T>>(dy[i]); }
};

// Sums of what is computed from rows of type T, of that type or of a wider one.
template <class T, class F>
void add_rows_into(Array& sum, F f, std::int64_t numbers, std::int64_t columns) {
  if (sum.dtype() == dtype_of<T>)
    add_over_rows(sum.device_data<T>(), f, numbers, columns);
  else
    add_over_rows(sum.device_data<Compute<T>>(), f, numbers, columns);
}

template <class T>
const T* data_or_null(const Array& x) {
  return x.defined() ? x.device_data<T>() : nullptr;
}

template <bool centred>
void forward(Array& y, const Array& x, const Array& gain, const Array& bias, double eps) {
  const std::int64_t columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  dispatch_all(x, [&]<class T>(T) {
    launch("norm", norm_kernel<centred, T>, Grid{unsigned(rows)}, y.device_data<T>(),
           x.device_data<T>(), data_or_null<T>(gain), data_or_null<T>(bias), columns,
           static_cast<Compute<T>>(eps));
  });
}

template <bool centred>
void backward(Array& dx, Array& dgain, Array& dbias, const Array& x, const Array& gain,
              const Array& dy, double eps) {
  const std::int64_t columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  if (rows == 0) return;
  dispatch_all(x, [&]<class T>(T) {
    using C = Compute<T>;
    Array kept;
    Moments<C>* keep = nullptr;
    if (dgain.defined()) {
      kept = Array::empty({rows, 2}, {dtype_of<C>, Device::cuda});
      keep = reinterpret_cast<Moments<C>*>(kept.device_data<C>());
    }
    T* const out = dx.defined() ? dx.device_data<T>() : nullptr;
    if (out || keep)
      launch("norm_grad", norm_grad_kernel<centred, T>, Grid{unsigned(rows)}, out, keep,
             x.device_data<T>(), data_or_null<T>(gain), dy.device_data<T>(), columns,
             static_cast<C>(eps));
    if (dgain.defined())
      add_rows_into<T>(dgain, GainGrad<T>{x.device_data<T>(), dy.device_data<T>(), keep, columns},
                       x.numel(), columns);
    if (dbias.defined())
      add_rows_into<T>(dbias, BiasGrad<T>{dy.device_data<T>()}, x.numel(), columns);
  });
}

}  // namespace

void layer_norm(Array& y, const Array& x, const Array& gain, const Array& bias, double eps) {
  forward<true>(y, x, gain, bias, eps);
}

void layer_norm_grad(Array& dx, Array& dgain, Array& dbias, const Array& x, const Array& gain,
                     const Array& dy, double eps) {
  backward<true>(dx, dgain, dbias, x, gain, dy, eps);
}

void rms_norm(Array& y, const Array& x, const Array& gain, double eps) {
  forward<false>(y, x, gain, Array(), eps);
}

void rms_norm_grad(Array& dx, Array& dgain, const Array& x, const Array& gain, const Array& dy,
                   double eps) {
  Array none;
  backward<false>(dx, dgain, none, x, gain, dy, eps);
}

}  // namespace graft::cuda
