// The fast Walsh-Hadamard transform, and Fastfood's product with it, forward and transposed.
#include <algorithm>

#include "tensor/kernels.h"
#include "tensor/kernels/lanes.h"
#include "tensor/kernels/scratch.h"
#include "tensor/parallel.h"

namespace graft::cpu {
namespace {

using std::int64_t;

// Numbers of one run of work: a run fits the first cache. H_L = H_(L/run) (x) H_run, so a transform
// is one of every run, then one across the runs.
constexpr int64_t kRun = 4096;
constexpr int64_t kTile = 16;     // stages of stride below it mix the numbers of one vector
constexpr int64_t kColumns = 64;  // taken at a time across runs
constexpr int64_t kAcross = 256;  // runs mixed at a time

// x[n], every pair at distance `stride`, which is at least a vector wide.
template <class T>
[[gnu::always_inline]] inline void stage(T* x, int64_t n, int64_t stride) {
  for (int64_t i = 0; i < n; i += 2 * stride) {
#pragma omp simd
    for (int64_t j = i; j < i + stride; ++j) {
      const T a = x[j], b = x[j + stride];
      x[j] = a + b;
      x[j + stride] = a - b;
    }
  }
}

template <class T>
void transpose_tile(T* to, const T* from) {
  for (int64_t r = 0; r < kTile; ++r)
    for (int64_t c = 0; c < kTile; ++c) to[c * kTile + r] = from[r * kTile + c];
}

// Strides 1 to 8 of 256 numbers: transposed they are strides of whole vectors.
template <class T>
void low_stages(T* x) {
  alignas(64) T turned[kTile * kTile];
  transpose_tile(turned, x);
  for (int64_t stride = kTile; stride < kTile * kTile; stride *= 2)
    stage(turned, kTile * kTile, stride);
  transpose_tile(x, turned);
}

// One run, all its stages.
template <class T>
void transform_run(T* x, int64_t n) {
  int64_t stride = 1;
  if (n >= kTile * kTile) {
    for (int64_t i = 0; i < n; i += kTile * kTile) low_stages(x + i);
    stride = kTile;
  }
  for (; stride < n; stride *= 2) stage(x, n, stride);
}

// Columns [c, c + width) of `runs` runs at distance `step`: copied together, so that powers of two
// apart they do not push each other out of the cache.
template <class T>
void transform_across(T* x, int64_t runs, int64_t step, int64_t width) {
  T* near = scratch<struct HadamardScratch, T>(static_cast<std::size_t>(runs * width));
  for (int64_t r = 0; r < runs; ++r) std::copy_n(x + r * step, width, near + r * width);
  for (int64_t stride = width; stride < runs * width; stride *= 2)
    stage(near, runs * width, stride);
  for (int64_t r = 0; r < runs; ++r) std::copy_n(near + r * width, width, x + r * step);
}

template <class T>
void transform(T* x, int64_t n) {
  const int64_t run = std::min(n, kRun);
  parallel_for(n / run, std::max<int64_t>(1, kGrain / run),
               [=](int64_t i) { transform_run(x + i * run, run); });
  for (int64_t step = run; step < n;) {
    const int64_t runs = std::min(kAcross, n / step), width = std::min(kColumns, step);
    const int64_t pieces = step / width;
    parallel_for(n / (runs * width), std::max<int64_t>(1, kGrain / (runs * width)), [=](int64_t i) {
      const int64_t outer = i / pieces, piece = i % pieces;
      transform_across(x + outer * runs * step + piece * width, runs, step, width);
    });
    step *= runs;
  }
}

// H B pad(x), of which only K numbers differ.
template <class T>
Array inner_product(const Array& x, const Fastfood& p) {
  Array u = Array::empty({p.inner}, x.dtype());
  T* to = u.data<T>();
  const T* from = x.data<T>();
  const std::int32_t* sign = p.sign.data<std::int32_t>();
  for (int64_t i = 0; i < p.in; ++i) to[i] = sign[i] > 0 ? from[i] : -from[i];
  std::fill(to + p.in, to + p.inner, T{0});
  transform(to, p.inner);
  return u;
}

}  // namespace

void hadamard(Array& x) {
  const int64_t columns = x.dim(-1), rows = columns > 0 ? x.numel() / columns : 0;
  dispatch(x, [&]<class T>(T) {
    T* at = x.data<T>();
    for (int64_t r = 0; r < rows; ++r) transform(at + r * columns, columns);
  });
}

void fastfood(Array& y, const Array& x, const Fastfood& p) {
  dispatch(x, [&]<class T>(T) {
    const Array inner = inner_product<T>(x, p);
    Array outer = Array::empty({p.length}, x.dtype());
    const T* u = inner.data<T>();
    T* z = outer.data<T>();
    const std::int32_t* place = p.place.data<std::int32_t>();
    const float* gaussian = p.gaussian.data<float>();
    const T scale = static_cast<T>(p.scale);
    parallel_ranges(p.length, kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        z[i] = scale * static_cast<T>(gaussian[i]) * u[place[i]];
    });
    transform(z, p.length);
    std::copy_n(z, p.out, y.data<T>());
  });
}

// Several numbers of z run into one place of u: they are added up in parts of fixed size, and the
// parts in order, so that the threads do not matter.
void fastfood_adjoint(Array& dx, const Array& dy, const Fastfood& p) {
  dispatch(dy, [&]<class T>(T) {
    Array outer = Array::empty({p.length}, dy.dtype());
    T* z = outer.data<T>();
    std::copy_n(dy.data<T>(), p.out, z);
    std::fill(z + p.out, z + p.length, T{0});
    transform(z, p.length);
    const int64_t part = std::max<int64_t>(kGrain, 8 * p.inner);
    const int64_t parts = (p.length + part - 1) / part;
    Array sums = Array::zeros({parts, p.inner}, dy.dtype());
    T* sum = sums.data<T>();
    const std::int32_t* place = p.place.data<std::int32_t>();
    const float* gaussian = p.gaussian.data<float>();
    parallel_for(parts, 1, [=, length = p.length, inner = p.inner](int64_t k) {
      T* into = sum + k * inner;
      for (int64_t i = k * part; i < std::min(length, (k + 1) * part); ++i)
        into[place[i]] += static_cast<T>(gaussian[i]) * z[i];
    });
    for (int64_t k = 1; k < parts; ++k) {
#pragma omp simd
      for (int64_t i = 0; i < p.inner; ++i) sum[i] += sum[k * p.inner + i];
    }
    transform(sum, p.inner);
    const T scale = static_cast<T>(p.scale);
    T* to = dx.data<T>();
    const std::int32_t* sign = p.sign.data<std::int32_t>();
    for (int64_t i = 0; i < p.in; ++i) to[i] += sign[i] > 0 ? scale * sum[i] : -scale * sum[i];
  });
}

}  // namespace graft::cpu
