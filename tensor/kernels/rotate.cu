// Rotary positions on the device. Angles in f64: in f32 one of some thousands is off by 1e-4.
#include <algorithm>

#include "tensor/cuda/eight.h"
#include "tensor/kernels.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

// Blocks for `width` things of each row: a thread has one place in the row, which is divided once,
// and then takes rows in strides of the grid.
Grid grid_of_rows(Index rows, Index width) {
  const Index warps = (width + kWarp - 1) / kWarp;
  const auto threads = unsigned(std::min<Index>(kThreads, warps * kWarp));
  return {unsigned(std::min<Index>(rows, 1 << 14)), threads,
          unsigned((width + threads - 1) / threads)};
}

// Cosine and sine of every row's angles: [rows, half] each.
template <class C, class F>
__global__ void turns_kernel(C* cosine, C* sine, const std::int32_t* position, const F* frequency,
                             Index rows, unsigned half, double way) {
  const unsigned k = blockIdx.y * blockDim.x + threadIdx.x;
  if (k >= half) return;
  const auto each = static_cast<double>(frequency[k]);
  for (Index r = blockIdx.x; r < rows; r += gridDim.x) {
    const double angle = position[r] * each;
    double sin = 0, cos = 0;
    ::sincos(angle, &sin, &cos);
    cosine[r * half + k] = static_cast<C>(cos);
    sine[r * half + k] = static_cast<C>(way * sin);
  }
}

template <class T>
__global__ void rotate_kernel(T* y, const T* x, const Compute<T>* cosine, const Compute<T>* sine,
                              Index rows, unsigned heads, unsigned half) {
  using C = Compute<T>;
  const unsigned pair = blockIdx.y * blockDim.x + threadIdx.x;
  if (pair >= heads * half) return;
  const unsigned head = pair / half, k = pair - head * half;
  const Index width = Index{2} * heads * half, in_row = Index{2} * head * half + k;
  for (Index r = blockIdx.x; r < rows; r += gridDim.x) {
    const Index at = r * width + in_row, turn = r * half + k;
    const C a = static_cast<C>(x[at]), b = static_cast<C>(x[at + half]);
    const C cos = cosine[turn], sin = sine[turn];
    y[at] = static_cast<T>(vmath::fma(a, cos, -(b * sin)));
    y[at + half] = static_cast<T>(vmath::fma(b, cos, a * sin));
  }
}

// The same, eight pairs at a time: half is a multiple of 8.
template <class T>
__global__ void rotate_eights_kernel(T* y, const T* x, const float* cosine, const float* sine,
                                     Index rows, unsigned heads, unsigned half) {
  const unsigned run = blockIdx.y * blockDim.x + threadIdx.x, runs = half / 8;
  if (run >= heads * runs) return;
  const unsigned head = run / runs, k = (run - head * runs) * 8;
  const Index width = Index{2} * heads * half, in_row = Index{2} * head * half + k;
  for (Index r = blockIdx.x; r < rows; r += gridDim.x) {
    const Index at = r * width + in_row, turn = r * half + k;
    const Eight a = load_eight(x + at), b = load_eight(x + at + half);
    const Eight cos = load_floats(cosine + turn), sin = load_floats(sine + turn);
    Eight low, high;
    GRAFT_UNROLL
    for (int i = 0; i < 8; ++i) {
      low.x[i] = vmath::fma(a.x[i], cos.x[i], -(b.x[i] * sin.x[i]));
      high.x[i] = vmath::fma(b.x[i], cos.x[i], a.x[i] * sin.x[i]);
    }
    store_eight(y + at, low);
    store_eight(y + at + half, high);
  }
}

}  // namespace

void rotate(Array& y, const Array& x, const Array& position, const Array& frequency, int heads,
            bool inverse) {
  const Index rows = x.dim(0), half = x.dim(1) / heads / 2;
  if (x.numel() == 0) return;
  const DeviceInts at(position);
  const Array of = uploaded(frequency).as_contiguous();
  dispatch_all(x, [&]<class T>(T) {
    using C = Compute<T>;
    Array turns = Array::empty({2, rows, half}, {dtype_of<C>, Device::cuda});
    C* const cosine = turns.device_data<C>();
    C* const sine = cosine + rows * half;
    dispatch(of, [&]<class F>(F) {
      launch("turns", turns_kernel<C, F>, grid_of_rows(rows, half), cosine, sine, at.data(),
             of.device_data<F>(), rows, unsigned(half), inverse ? -1.0 : 1.0);
    });
    T* const to = y.device_data<T>();
    const T* const from = x.device_data<T>();
    if constexpr (half_type<T>) {
      if (half % 8 == 0 && at_sixteen(to, from, cosine, sine)) {
        launch("rotate", rotate_eights_kernel<T>, grid_of_rows(rows, heads * half / 8), to, from,
               static_cast<const float*>(cosine), static_cast<const float*>(sine), rows,
               unsigned(heads), unsigned(half));
        return;
      }
    }
    launch("rotate", rotate_kernel<T>, grid_of_rows(rows, heads * half), to, from,
           static_cast<const C*>(cosine), static_cast<const C*>(sine), rows, unsigned(heads),
           unsigned(half));
  });
}

}  // namespace graft::cuda
