// How kernels are started, and the few patterns that most of them have. Included by .cu files only.
//
// A kernel is a plain __global__ function; launch() names it in the error where CUDA refuses it.
// With GRAFT_CUDA_EMULATED the same sources are compiled for the host, one thread after another
// (tests/cuda/emulation): that is how they are tested where there is no device.
#pragma once

#include <cstdint>

#include "tensor/array.h"
#include "tensor/cuda/commands.h"
#include "tensor/cuda/status.h"
#include "tensor/cuda/upload.h"
#include "tensor/philox.h"

namespace graft::cuda {

constexpr int kThreads = 256;  // of a block, unless a kernel says otherwise
constexpr int kWarp = 32;

struct Grid {
  unsigned blocks, threads = kThreads, blocks_y = 1;
  std::size_t shared = 0;  // bytes that the kernel sizes itself, see dynamic_shared()
};

// Blocks for n elements that are taken in strides of the whole grid.
inline Grid grid_of(std::int64_t n) {
  const std::int64_t blocks = (n + kThreads - 1) / kThreads;
  return {static_cast<unsigned>(blocks < 1 ? 1 : blocks > 4096 ? 4096 : blocks)};
}

// Lets the kernel be started with so much shared memory; what it was let before stays, since a list
// or a graph may start it with that. Throws where the device has less. In runtime.cu.
void allow_shared(const char* name, const void* kernel, std::size_t bytes);

// What a kernel is started with besides its arguments.
template <class... Parameters>
struct Started {
  const char* name;
  void (*kernel)(Parameters...);
  unsigned blocks, threads, blocks_y, shared;
};

// Starts the kernel with arguments that lie at these addresses, which stay until it is started.
template <class... Parameters>
void start_kernel(const Started<Parameters...>& s, const Parameters*... at) {
#ifdef GRAFT_CUDA_EMULATED
  emulation::submit([=] {
    emulation::run({s.blocks, s.blocks_y, 1}, {s.threads, 1, 1}, s.shared,
                   [&] { s.kernel(*at...); });
  });
#else
  const void* all[] = {at..., nullptr};
  GRAFT_CUDA_CHECK(
      cudaLaunchKernel(reinterpret_cast<const void*>(s.kernel), dim3(s.blocks, s.blocks_y),
                       dim3(s.threads), const_cast<void**>(all), s.shared, stream()),
      "kernel {}, {} x {} blocks of {} threads", s.name, s.blocks, s.blocks_y, s.threads);
#endif
}

template <class... Parameters, class... Given>
void launch(const char* name, void (*kernel)(Parameters...), const Grid& grid, Given... given) {
  if (grid.blocks == 0 || grid.blocks_y == 0) return;
#ifndef GRAFT_CUDA_EMULATED
  check(grid.blocks_y <= 65535, "cuda: kernel {}: {} rows of blocks; a device has 65535", name,
        grid.blocks_y);
  // 48 KB need no asking, but a kernel's own variables count, too.
  if (grid.shared > 40 * 1024)
    allow_shared(name, reinterpret_cast<const void*>(kernel), grid.shared);
#endif
  const Started<Parameters...> started{name,         kernel,        grid.blocks,
                                       grid.threads, grid.blocks_y, unsigned(grid.shared)};
  command([](const Started<Parameters...>& s,
             const Parameters&... values) { start_kernel(s, &values...); },
          started, static_cast<Parameters>(given)...);
}

// Before a loop whose arrays are to lie in registers.
#ifdef GRAFT_CUDA_EMULATED
#define GRAFT_UNROLL
#else
#define GRAFT_UNROLL _Pragma("unroll")
#endif

// Shared memory of Grid::shared bytes.
template <class T>
__device__ T* dynamic_shared() {
#ifdef GRAFT_CUDA_EMULATED
  return static_cast<T*>(emulation::shared());
#else
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
#endif
}

// First element of this thread, and the step to its next, over all threads of the grid.
__device__ inline std::int64_t thread_index() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t grid_step() { return std::int64_t{gridDim.x} * blockDim.x; }

// What numbers of type T are computed in.
template <class T>
struct Computed {
  using type = T;
};
template <>
struct Computed<F16> {
  using type = float;
};
template <>
struct Computed<BF16> {
  using type = float;
};
template <class T>
using Compute = typename Computed<T>::type;

// Sum over the threads of the block, the same for each of them, in a fixed order: within each warp
// by halves, then over the warps. All threads must call it; room for a number of each warp.
template <class T>
__device__ T block_sum(T x) {
  __shared__ T part[kWarp];
  for (int far = kWarp / 2; far > 0; far /= 2) x += __shfl_down_sync(0xffffffffu, x, far);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  __syncthreads();  // an earlier call's sums have been read
  if (lane == 0) part[warp] = x;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < warps; ++i) sum += part[i];
  return sum;
}
template <class T>
__device__ T block_max(T x) {
  __shared__ T part[kWarp];
  for (int far = kWarp / 2; far > 0; far /= 2) {
    const T other = __shfl_down_sync(0xffffffffu, x, far);
    x = other > x ? other : x;
  }
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  __syncthreads();
  if (lane == 0) part[warp] = x;
  __syncthreads();
  T most = part[0];
  for (int i = 1; i < warps; ++i) most = part[i] > most ? part[i] : most;
  return most;
}

// Calls f with a value of the array's type, halves as well: they are read and written as they are
// and computed with in f32.
template <class F>
void dispatch_all(const Array& x, F&& f) {
  if (x.dtype() == Dtype::f16)
    f(F16{});
  else if (x.dtype() == Dtype::bf16)
    f(BF16{});
  else
    dispatch(x, f);
}

// The same for a sum and what is added to it: f(T, S), T being the sum's type and S the other's,
// which is T too, or half precision where T is f32.
template <class F>
void dispatch_sum(const char* where, const Array& sum, const Array& of, F&& f) {
  if (sum.dtype() == of.dtype())
    dispatch_all(sum, [&]<class T>(T) { f(T{}, T{}); });
  else
    dispatch_stored(where, sum, of, f);
}

// An i32 array on the device: itself, or a copy of what lies on the host.
class DeviceInts {
 public:
  explicit DeviceInts(const Array& x) : on_device_(uploaded(x).as_contiguous()) {}
  const std::int32_t* data() const { return on_device_.device_data<std::int32_t>(); }

 private:
  Array on_device_;
};

// A key on its way to a kernel: not an argument, which must be the same in every step.
inline Array as_ints(Key key) {
  return Array::of(std::vector<std::int32_t>{static_cast<std::int32_t>(key.seed),
                                             static_cast<std::int32_t>(key.step)});
}
__device__ inline Key key_of(const std::int32_t* at) {
  return {static_cast<std::uint32_t>(at[0]), static_cast<std::uint32_t>(at[1])};
}

}  // namespace graft::cuda
