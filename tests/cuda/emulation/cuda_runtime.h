// CUDA's runtime for a machine without a device: the kernels' sources, compiled for the host, run
// thread after thread. It is slow, and says nothing of speed; but what a kernel computes, where it
// reads and writes, and whether its threads meet at their barriers is tested so everywhere.
//
// A graph is a list of what was asked for while the stream was captured, and what may not be asked
// for then is refused.
//
// A block's threads run in turn, in one thread of the host, each until it ends or waits at a
// barrier. Where they run in the opposite order the results must be the same: a barrier that is
// missing shows (emulation::reverse). A barrier that some threads of a block do not reach is an
// error. Reading shared memory of the launch that nobody wrote shows: it is filled with NaN bits.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define GRAFT_CUDA_EMULATED
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace graft::emulation {

struct Place {
  dim3 thread, block, block_size, grid;
};
extern Place now;  // of the thread that runs

// Runs the kernel's threads; throws Error where they do not all reach a barrier.
void run(dim3 grid, dim3 block, std::size_t shared, const std::function<void()>& kernel);
void* shared();  // the memory that the launch asked for

// Does the work, or adds it to the graph that is being captured.
void submit(std::function<void()> work);
bool capturing();
extern bool no_room_for_graphs, no_memory;
void reverse(bool on);

void wait_for_block();
void wait_for_warp();
[[noreturn]] void misaligned();
// A place where a thread leaves a value for the others, 16 bytes.
void* slot(unsigned thread);

template <class T>
T exchanged(T value, unsigned other) {
  static_assert(sizeof(T) <= 16);
  std::memcpy(slot(now.thread.x), &value, sizeof(T));
  wait_for_warp();
  if (other < now.block_size.x) std::memcpy(&value, slot(other), sizeof(T));
  wait_for_warp();
  return value;
}

// What every lane of this thread's warp gives, by lane.
template <class T>
std::array<T, 32> of_warp(const T& value) {
  static_assert(sizeof(T) <= 16);
  std::array<T, 32> all{};
  std::memcpy(slot(now.thread.x), &value, sizeof(T));
  wait_for_warp();
  for (unsigned lane = 0; lane < 32; ++lane)
    std::memcpy(&all[lane], slot(now.thread.x / 32 * 32 + lane), sizeof(T));
  wait_for_warp();
  return all;
}

// Four 8 x 8 matrices of 16 bits, as the PTX manual has it (9.7.15.5, "ldmatrix", .x4): `row` of
// lanes 8 i to 8 i + 7 are the rows of matrix i.
template <bool transposed>
void ldmatrix(std::uint32_t (&r)[4], const std::byte* row) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) misaligned();
  const auto rows = of_warp(row);
  const unsigned group = now.thread.x % 32 / 4, pair = now.thread.x % 4;
  for (unsigned i = 0; i < 4; ++i) {
    std::uint16_t half[2];
    for (unsigned e = 0; e < 2; ++e) {
      const unsigned x = 2 * pair + e;
      const std::byte* const from =
          transposed ? rows[8 * i + x] + 2 * group : rows[8 * i + group] + 2 * x;
      std::memcpy(&half[e], from, 2);
    }
    r[i] = half[0] | std::uint32_t{half[1]} << 16;
  }
}

// Copies that a thread has begun are carried out when it waits for them. Until then NaN bits lie
// there: who reads too early, or still what was there before, is found out.
void copy_meanwhile(void* to, const void* from, unsigned room, unsigned bytes);
void wait_for_copies();

}  // namespace graft::emulation

#define threadIdx (::graft::emulation::now.thread)
#define blockIdx (::graft::emulation::now.block)
#define blockDim (::graft::emulation::now.block_size)
#define gridDim (::graft::emulation::now.grid)

using std::max;
using std::min;

inline void __syncthreads() { graft::emulation::wait_for_block(); }
inline void __syncwarp() { graft::emulation::wait_for_warp(); }
inline int __syncthreads_or(int x) {
  std::memcpy(graft::emulation::slot(threadIdx.x), &x, sizeof x);
  __syncthreads();
  int any = 0;
  for (unsigned t = 0; t < blockDim.x; ++t) {
    int one = 0;
    std::memcpy(&one, graft::emulation::slot(t), sizeof one);
    any |= one;
  }
  __syncthreads();
  return any;
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned far) {
  const unsigned lane = threadIdx.x % 32;
  return graft::emulation::exchanged(value, lane + far < 32 ? threadIdx.x + far : threadIdx.x);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned far) {
  return graft::emulation::exchanged(value, threadIdx.x ^ far);
}

// The calls of the host. Memory of the "device" is the host's.
enum cudaError_t {
  cudaSuccess,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidValue,
  cudaErrorStreamCaptureUnsupported
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
using cudaStream_t = void*;
constexpr unsigned cudaStreamNonBlocking = 1;
struct cudaDeviceProp {
  char name[64];
  int major, minor;
};
inline const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaErrorMemoryAllocation           ? "out of memory"
         : e == cudaErrorStreamCaptureUnsupported ? "not while a stream is captured"
                                                  : "an error of the emulation";
}
// Of calls that are no work of the stream's.
inline cudaError_t outside_of_graphs() {
  return graft::emulation::capturing() ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* n) { return *n = 1, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::strcpy(p->name, "emulated on the host");
  p->major = p->minor = 0;
  return cudaSuccess;
}
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrPageableMemoryAccess };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  return *value = what == cudaDevAttrComputeCapabilityMajor ? 9 : 0, cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return outside_of_graphs(); }
inline cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  if (graft::emulation::capturing()) return cudaErrorStreamCaptureUnsupported;
  *p = graft::emulation::no_memory ? nullptr : std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* p) { return std::free(p), outside_of_graphs(); }
inline cudaError_t cudaMallocHost(void** p, std::size_t bytes) { return cudaMalloc(p, bytes); }
inline cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = std::size_t{1} << 30;
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  graft::emulation::submit([=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* at, int byte, std::size_t bytes, cudaStream_t) {
  graft::emulation::submit([=] { std::memset(at, byte, bytes); });
  return cudaSuccess;
}

using cudaGraph_t = std::vector<std::function<void()>>*;
using cudaGraphExec_t = cudaGraph_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
namespace graft::emulation {
extern cudaGraph_t captured;  // null: none is
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (graft::emulation::capturing()) return cudaErrorStreamCaptureUnsupported;
  return graft::emulation::captured = new std::vector<std::function<void()>>, cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  if (!graft::emulation::capturing()) return cudaErrorInvalidValue;
  return *graph = std::exchange(graft::emulation::captured, nullptr), cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph,
                                        unsigned long long) {
  if (graft::emulation::no_room_for_graphs) return cudaErrorMemoryAllocation;
  return *ready = new std::vector<std::function<void()>>(*graph), cudaSuccess;
}
inline cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& work : *graph) work();
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
