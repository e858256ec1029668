// Element-wise kernels. Every result is a function of the elements at its own place, so neither the
// split over threads nor the vector tail can be seen in it.
#include <array>

#include "tensor/kernels.h"
#include "tensor/kernels/lanes.h"
#include "tensor/kernels/maps.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {
namespace {

constexpr int kMaxDims = 6;

// One dimension of y with the steps of y, a and b along it; a repeated operand has step 0.
struct Axis {
  std::int64_t size = 1, y = 0, a = 0, b = 0;
};

// The axes from the outermost to the innermost. Neighbours along which all three arrays run on are
// merged, so equal shapes become one axis and a row vector against a matrix becomes two.
struct Walk {
  std::array<Axis, kMaxDims> axis;
  int n = 0;

  const Axis& inner() const { return axis[n - 1]; }
};

std::int64_t step_of(const Array& x, int from_end) {
  const int at = x.ndim() - from_end;
  return at < 0 || x.shape()[at] == 1 ? 0 : x.strides()[at];
}

Walk merged(const Array& y, const Array& a, const Array& b) {
  Walk walk;
  for (int d = 0; d < y.ndim(); ++d) {
    const int from_end = y.ndim() - d;
    const Axis next{y.shape()[d], y.strides()[d], step_of(a, from_end), step_of(b, from_end)};
    if (next.size == 1) continue;
    if (walk.n) {
      Axis& last = walk.axis[walk.n - 1];
      if (last.y == next.y * next.size && last.a == next.a * next.size &&
          last.b == next.b * next.size) {
        last = {last.size * next.size, next.y, next.a, next.b};
        continue;
      }
    }
    check(walk.n < kMaxDims, "binary: {} has more than {} dimensions that cannot be merged",
          y.shape(), kMaxDims);
    walk.axis[walk.n++] = next;
  }
  if (walk.n == 0) walk.axis[walk.n++] = {1, 1, 1, 1};
  return walk;
}

// n elements along the innermost axis. Steps of 0 and 1 are constants so that the loop vectorises.
template <class T, class F>
void run_inner(T* y, const T* a, const T* b, std::int64_t n, const Axis& axis, F f) {
  if (axis.y == 1 && axis.a == 1 && axis.b == 1) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i], b[i]);
  } else if (axis.y == 1 && axis.a == 1 && axis.b == 0) {
    const T right = *b;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i], right);
  } else if (axis.y == 1 && axis.a == 0 && axis.b == 1) {
    const T left = *a;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(left, b[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) y[i * axis.y] = f(a[i * axis.a], b[i * axis.b]);
  }
}

// The elements [begin, end) of y in row-major order.
template <class T, class F>
void run_range(T* y, const T* a, const T* b, const Walk& walk, std::int64_t begin, std::int64_t end,
               F f) {
  std::array<std::int64_t, kMaxDims> at{};
  std::int64_t rest = begin, oy = 0, oa = 0, ob = 0;
  for (int d = walk.n - 1; d >= 0; --d) {
    const Axis& axis = walk.axis[d];
    at[d] = rest % axis.size;
    rest /= axis.size;
    oy += at[d] * axis.y, oa += at[d] * axis.a, ob += at[d] * axis.b;
  }
  while (begin < end) {
    const Axis& inner = walk.inner();
    const std::int64_t n = std::min(end - begin, inner.size - at[walk.n - 1]);
    run_inner(y + oy, a + oa, b + ob, n, inner, f);
    begin += n;
    oy += n * inner.y, oa += n * inner.a, ob += n * inner.b;
    at[walk.n - 1] += n;
    for (int d = walk.n - 1; d > 0 && at[d] == walk.axis[d].size; --d) {
      const Axis &full = walk.axis[d], &next = walk.axis[d - 1];
      oy += next.y - full.size * full.y, oa += next.a - full.size * full.a;
      ob += next.b - full.size * full.b;
      at[d] = 0;
      ++at[d - 1];
    }
  }
}

template <class T, class F>
void run_binary(Array& y, const Array& a, const Array& b, F f) {
  const Walk walk = merged(y, a, b);
  T* out = y.data<T>();
  const T *left = a.data<T>(), *right = b.data<T>();
  parallel_ranges(y.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    run_range(out, left, right, walk, begin, end, f);
  });
}

// y[i] = f(i) over all elements.
template <class F>
void each(std::int64_t n, std::int64_t grain, F f) {
  parallel_ranges(n, grain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) f(i);
  });
}

// Functions cost more than sums: fewer elements are worth a thread.
constexpr std::int64_t kMapGrain = kGrain / 4;

}  // namespace

void binary(Binary op, Array& y, const Array& a, const Array& b) {
  dispatch(y, [&]<class T>(T) {
    switch (op) {
      case Binary::add:
        return run_binary<T>(y, a, b, [](T l, T r) { return l + r; });
      case Binary::sub:
        return run_binary<T>(y, a, b, [](T l, T r) { return l - r; });
      case Binary::mul:
        return run_binary<T>(y, a, b, [](T l, T r) { return l * r; });
      case Binary::div:
        return run_binary<T>(y, a, b, [](T l, T r) { return l / r; });
    }
  });
}

void map(Map which, Array& y, const Array& x) {
  dispatch(y, [&]<class T>(T) {
    T* out = y.data<T>();
    const T* in = x.data<T>();
    maps::with_map(which, [&](auto f) {
      each(y.numel(), kMapGrain, [=](std::int64_t i) GRAFT_INLINE { out[i] = f(in[i]).value; });
    });
  });
}

void map_grad(Map which, Array& dx, const Array& x, const Array& dy) {
  dispatch(dx, [&]<class T>(T) {
    T* out = dx.data<T>();
    const T *in = x.data<T>(), *grad = dy.data<T>();
    maps::with_map(which, [&](auto f) {
      each(dx.numel(), kMapGrain,
           [=](std::int64_t i) GRAFT_INLINE { out[i] = f(in[i]).slope * grad[i]; });
    });
  });
}

void axpy(Array& y, const Array& x, double alpha) {
  dispatch(y, [&]<class T>(T) {
    T* out = y.data<T>();
    const T* in = x.data<T>();
    const T factor = static_cast<T>(alpha);
    each(y.numel(), kGrain,
         [=](std::int64_t i) GRAFT_INLINE { out[i] = vmath::fma(factor, in[i], out[i]); });
  });
}

void scale(Array& y, const Array& x, double alpha) {
  dispatch(y, [&]<class T>(T) {
    T* out = y.data<T>();
    const T* in = x.data<T>();
    const T factor = static_cast<T>(alpha);
    each(y.numel(), kGrain, [=](std::int64_t i) GRAFT_INLINE { out[i] = factor * in[i]; });
  });
}

void swiglu(Array& y, const Array& gate, const Array& up) {
  dispatch(y, [&]<class T>(T) {
    T* out = y.data<T>();
    const T *g = gate.data<T>(), *u = up.data<T>();
    each(y.numel(), kMapGrain,
         [=](std::int64_t i) GRAFT_INLINE { out[i] = maps::Silu{}(g[i]).value * u[i]; });
  });
}

void swiglu_grad(Array& dgate, Array& dup, const Array& gate, const Array& up, const Array& dy) {
  dispatch(dgate, [&]<class T>(T) {
    T *dg = dgate.data<T>(), *du = dup.data<T>();
    const T *g = gate.data<T>(), *u = up.data<T>(), *grad = dy.data<T>();
    each(dgate.numel(), kMapGrain, [=](std::int64_t i) GRAFT_INLINE {
      const maps::Point<T> silu = maps::Silu{}(g[i]);
      const T d = grad[i], right = u[i];
      dg[i] = d * right * silu.slope;
      du[i] = d * silu.value;
    });
  });
}

}  // namespace graft::cpu
