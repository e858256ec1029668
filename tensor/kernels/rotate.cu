// Rotary positions on the device. Angles in f64: in f32 one of some thousands is off by 1e-4.
#include "tensor/cuda/launch.h"
#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

// Cosine and sine of every row's angles: [rows, half] each.
template <class C, class F>
__global__ void turns_kernel(C* cosine, C* sine, const std::int32_t* position, const F* frequency,
                             Index rows, Index half, double way) {
  for (Index i = thread_index(); i < rows * half; i += grid_step()) {
    const double angle = position[i / half] * static_cast<double>(frequency[i % half]);
    cosine[i] = static_cast<C>(::cos(angle));
    sine[i] = static_cast<C>(way * ::sin(angle));
  }
}

template <class T>
__global__ void rotate_kernel(T* y, const T* x, const Compute<T>* cosine, const Compute<T>* sine,
                              Index rows, int heads, Index half) {
  using C = Compute<T>;
  const Index pairs = rows * heads * half;
  for (Index i = thread_index(); i < pairs; i += grid_step()) {
    const Index k = i % half, r = i / half / heads, turn = r * half + k;
    const Index at = i / half * 2 * half + k;
    const C a = static_cast<C>(x[at]), b = static_cast<C>(x[at + half]);
    y[at] = static_cast<T>(vmath::fma(a, cosine[turn], -(b * sine[turn])));
    y[at + half] = static_cast<T>(vmath::fma(b, cosine[turn], a * sine[turn]));
  }
}

}  // namespace

void rotate(Array& y, const Array& x, const Array& position, const Array& frequency, int heads,
            bool inverse) {
  const Index rows = x.dim(0), half = x.dim(1) / heads / 2;
  if (x.numel() == 0) return;
  const DeviceInts at(position);
  const Array of = frequency.to(Device::cuda).as_contiguous();
  dispatch_all(x, [&]<class T>(T) {
    using C = Compute<T>;
    Array turns = Array::empty({2, rows, half}, {dtype_of<C>, Device::cuda});
    C* const cosine = turns.device_data<C>();
    C* const sine = cosine + rows * half;
    dispatch(of, [&]<class F>(F) {
      launch("turns", turns_kernel<C, F>, grid_of(rows * half), cosine, sine, at.data(),
             of.device_data<F>(), rows, half, inverse ? -1.0 : 1.0);
    });
    launch("rotate", rotate_kernel<T>, grid_of(rows * heads * half), y.device_data<T>(),
           x.device_data<T>(), static_cast<const C*>(cosine), static_cast<const C*>(sine), rows,
           heads, half);
  });
}

}  // namespace graft::cuda
