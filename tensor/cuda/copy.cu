// Copies and constants on the device: strided, of any types.
#include "tensor/cuda/launch.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/walk.h"

namespace graft::cuda {
namespace {

template <class F>
void any_type(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f32:
      return f(float{});
    case Dtype::f64:
      return f(double{});
    case Dtype::i32:
      return f(std::int32_t{});
    case Dtype::f16:
      return f(F16{});
    case Dtype::bf16:
      return f(BF16{});
  }
}

template <class T, class S>
__device__ T converted(S x) {
  if constexpr (std::is_same_v<T, S>)
    return x;
  else
    return static_cast<T>(x);
}

template <class T, class S>
__global__ void copy_strided(T* to, const S* from, Walk walk, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += grid_step()) {
    const Offsets at = walk.at(i);
    to[at.y] = converted<T>(from[at.a]);
  }
}

template <class T>
__global__ void fill_strided(T* to, T value, Walk walk, std::int64_t n) {
  for (std::int64_t i = thread_index(); i < n; i += grid_step()) to[walk.at(i).y] = value;
}

}  // namespace

void copy(Array& to, const Array& from) {
  if (to.numel() == 0) return;
  if (to.dtype() == from.dtype() && to.contiguous() && from.contiguous()) {
    any_type(to.dtype(), [&]<class T>(T) {
      copy_on_device(to.device_data<T>(), from.device_data<T>(), to.bytes());
    });
    return;
  }
  const Walk walk = walk_of("copy", to, from, from);
  any_type(to.dtype(), [&]<class T>(T) {
    any_type(from.dtype(), [&]<class S>(S) {
      launch("copy", copy_strided<T, S>, grid_of(to.numel()), to.device_data<T>(),
             from.device_data<S>(), walk, to.numel());
    });
  });
}

void fill(Array& x, double value) {
  const Walk walk = walk_of("fill", x, x, x);
  any_type(x.dtype(), [&]<class T>(T) {
    launch("fill", fill_strided<T>, x.numel() ? grid_of(x.numel()) : Grid{0}, x.device_data<T>(),
           static_cast<T>(value), walk, x.numel());
  });
}

}  // namespace graft::cuda
