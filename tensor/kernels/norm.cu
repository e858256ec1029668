// Layer norm and RMS norm on the device. A row is read once, into the registers of a block, or of a
// warp where it is narrow and of halves; wider ones are read again for each sum.
#include "tensor/cuda/eight.h"
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

// How threads share a row that they hold: each has `runs` runs of `each` numbers side by side. The
// sums of `each` = 1 are those of the loops above, in the same order.
template <bool of_warp, int each, int runs>
struct Share {
  static constexpr int kEach = each, kHeld = each * runs;
  static constexpr bool kQuick = each > 1;

  __device__ static unsigned sharers() { return of_warp ? kWarp : blockDim.x; }
  __device__ static unsigned lane() { return of_warp ? threadIdx.x % kWarp : threadIdx.x; }
  __device__ static std::int64_t row() {
    if constexpr (of_warp)
      return std::int64_t{blockIdx.x} * (blockDim.x / kWarp) + threadIdx.x / kWarp;
    else
      return blockIdx.x;
  }
  // f(column of the run's first number, its place among what is held).
  template <class F>
  __device__ static void for_runs(int columns, F&& f) {
    GRAFT_UNROLL
    for (int j = 0; j < runs; ++j) {
      const int at = static_cast<int>(lane() + j * sharers()) * each;
      if (at < columns) f(at, j * each);
    }
  }
  // f(place), for every number that is held.
  template <class F>
  __device__ static void for_held(int columns, F&& f) {
    for_runs(columns, [&](int, int place) {
      GRAFT_UNROLL
      for (int e = 0; e < each; ++e) f(place + e);
    });
  }
  template <class C, class T>
  __device__ static void load(C* to, const T* from) {
    if constexpr (each == 8) {
      const Eight all = load_eight(from);
      GRAFT_UNROLL
      for (int e = 0; e < 8; ++e) to[e] = all.x[e];
    } else {
      *to = static_cast<C>(*from);
    }
  }
  template <class C, class T>
  __device__ static void load_or(C* to, const T* from, int at, C absent) {
    if (from) return load(to, from + at);
    GRAFT_UNROLL
    for (int e = 0; e < each; ++e) to[e] = absent;
  }
  template <class C, class T>
  __device__ static void store(T* to, const C* from) {
    if constexpr (each == 8) {
      Eight all;
      GRAFT_UNROLL
      for (int e = 0; e < 8; ++e) all.x[e] = from[e];
      store_eight(to, all);
    } else {
      *to = static_cast<T>(*from);
    }
  }
  template <class C>
  __device__ static C sum(C x) {
    if constexpr (of_warp) {
      for (int far = kWarp / 2; far > 0; far /= 2) x += __shfl_xor_sync(0xffffffffu, x, far);
      return x;
    } else {
      return block_sum(x);
    }
  }
  template <class C>
  __device__ static C mean(C total, int columns) {
    if constexpr (kQuick)
      return quick_ratio(total, static_cast<float>(columns));
    else
      return total / C(columns);
  }
  template <bool centred, class C>
  __device__ static Moments<C> moments(const C* held, int columns, C eps) {
    C middle = 0;
    if constexpr (centred) {
      C total = 0;
      for_held(columns, [&](int i) { total += held[i]; });
      middle = mean(sum(total), columns);
    }
    C squares = 0;
    for_held(columns, [&](int i) {
      const C d = held[i] - middle;
      squares += d * d;
    });
    const C spread = mean(sum(squares), columns) + eps;
    if constexpr (kQuick)
      return {middle, quick_rsqrt(spread)};
    else
      return {middle, C{1} / std::sqrt(spread)};
  }
};

template <bool centred, class S, class T>
__global__ void held_norm_kernel(T* y, const T* x, const T* gain, const T* bias, std::int64_t rows,
                                 int columns, Compute<T> eps) {
  using C = Compute<T>;
  const std::int64_t row = S::row();
  if (row >= rows) return;  // with all that share it
  x += row * columns;
  y += row * columns;
  C held[S::kHeld];
  S::for_runs(columns, [&](int at, int place) { S::load(held + place, x + at); });
  const Moments<C> m = S::template moments<centred>(held, columns, eps);
  S::for_runs(columns, [&](int at, int place) {
    C by[S::kEach], from[S::kEach];
    S::load_or(by, gain, at, C{1});
    S::load_or(from, bias, at, C{0});
    GRAFT_UNROLL
    for (int e = 0; e < S::kEach; ++e)
      by[e] = vmath::fma((held[place + e] - m.mean) * m.rstd, by[e], from[e]);
    S::store(y + at, by);
  });
}

template <bool centred, class S, class T>
__global__ void held_norm_grad_kernel(T* dx, Moments<Compute<T>>* kept, const T* x, const T* gain,
                                      const T* dy, std::int64_t rows, int columns, Compute<T> eps) {
  using C = Compute<T>;
  const std::int64_t row = S::row();
  if (row >= rows) return;
  x += row * columns;
  dy += row * columns;
  C h[S::kHeld], g[S::kHeld];
  S::for_runs(columns, [&](int at, int place) {
    S::load(h + place, x + at);
    S::load(g + place, dy + at);
  });
  const Moments<C> m = S::template moments<centred>(h, columns, eps);
  if (kept && S::lane() == 0) kept[row] = m;
  if (!dx) return;
  dx += row * columns;
  C sum_g = 0, sum_gh = 0;
  S::for_runs(columns, [&](int at, int place) {
    C by[S::kEach];
    S::load_or(by, gain, at, C{1});
    GRAFT_UNROLL
    for (int e = 0; e < S::kEach; ++e) {
      const int i = place + e;
      g[i] *= by[e];
      h[i] = (h[i] - m.mean) * m.rstd;
      sum_g += g[i];
      sum_gh += g[i] * h[i];
    }
  });
  const C mean_g = centred ? S::mean(S::sum(sum_g), columns) : C{0};
  const C mean_gh = S::mean(S::sum(sum_gh), columns);
  S::for_runs(columns, [&](int at, int place) {
    C out[S::kEach];
    GRAFT_UNROLL
    for (int e = 0; e < S::kEach; ++e)
      out[e] = m.rstd * vmath::fma(-h[place + e], mean_gh, g[place + e] - mean_g);
    S::store(dx + at, out);
  });
}

// Calls f(share, grid) for rows of that width which can be held; `eights`: and which, with what
// goes with them, can be read so. False: they cannot, and nothing was called.
template <class T, class F>
bool held(std::int64_t rows, std::int64_t columns, bool eights, F&& f) {
  if constexpr (half_type<T>) {
    constexpr unsigned kWarps = 4;  // rows of a block
    if (!eights || columns % 8 != 0 || columns > 4 * 8 * kThreads) return false;
    if (columns <= 4 * 8 * kWarp) {
      const Grid grid{unsigned((rows + kWarps - 1) / kWarps), kWarps * kWarp};
      if (columns <= 8 * kWarp)
        f(Share<true, 8, 1>{}, grid);
      else if (columns <= 3 * 8 * kWarp)  // 768, for one
        f(Share<true, 8, 3>{}, grid);
      else
        f(Share<true, 8, 4>{}, grid);
      return true;
    }
    const auto grid = [&](int runs) {
      const auto threads = unsigned((columns / 8 + runs - 1) / runs);
      return Grid{unsigned(rows), (threads + kWarp - 1) / kWarp * kWarp};
    };
    if (columns <= 8 * kThreads)
      f(Share<false, 8, 1>{}, grid(1));
    else if (columns <= 2 * 8 * kThreads)
      f(Share<false, 8, 2>{}, grid(2));
    else
      f(Share<false, 8, 4>{}, grid(4));
  } else {
    if (columns > 16 * kThreads) return false;
    if (columns <= 4 * kThreads)
      f(Share<false, 1, 4>{}, Grid{unsigned(rows)});
    else
      f(Share<false, 1, 16>{}, Grid{unsigned(rows)});
  }
  return true;
}

template <class T>
struct GainGrad {
  const T *x, *dy;
  const Moments<Compute<T>>* moment;
  __device__ Compute<T> operator()(std::int64_t row, std::int64_t i) const {
    using C = Compute<T>;
    const Moments<C> m = moment[row];
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
    T* const to = y.device_data<T>();
    const T *const from = x.device_data<T>(), *const by = data_or_null<T>(gain),
                   *const plus = data_or_null<T>(bias);
    const auto e = static_cast<Compute<T>>(eps);
    const bool done =
        held<T>(rows, columns, at_sixteen(to, from, by, plus), [&]<class S>(S, const Grid& grid) {
          launch("norm", held_norm_kernel<centred, S, T>, grid, to, from, by, plus, rows,
                 static_cast<int>(columns), e);
        });
    if (!done)
      launch("norm", norm_kernel<centred, T>, Grid{unsigned(rows)}, to, from, by, plus, columns, e);
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
    const T *const from = x.device_data<T>(), *const by = data_or_null<T>(gain),
                   *const d = dy.device_data<T>();
    const auto run = [&] {
      return held<T>(rows, columns, at_sixteen(out, from, by, d),
                     [&]<class S>(S, const Grid& grid) {
                       launch("norm_grad", held_norm_grad_kernel<centred, S, T>, grid, out, keep,
                              from, by, d, rows, static_cast<int>(columns), static_cast<C>(eps));
                     });
    };
    if ((out || keep) && !run())
      launch("norm_grad", norm_grad_kernel<centred, T>, Grid{unsigned(rows)}, out, keep, from, by,
             d, columns, static_cast<C>(eps));
    if (dgain.defined()) add_rows_into<T>(dgain, GainGrad<T>{from, d, keep}, x.numel(), columns);
    if (dbias.defined()) add_rows_into<T>(dbias, BiasGrad<T>{d}, x.numel(), columns);
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
