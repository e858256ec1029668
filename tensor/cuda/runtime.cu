#include "tensor/cuda/runtime.h"

#include <cuda_runtime.h>

#include <cstdlib>
#include <unordered_map>

#include "tensor/cuda/launch.h"

namespace graft::cuda {

void fail_with(cudaError_t status, const char* call, const char* file, int line,
               const std::string& doing) {
  (void)cudaGetLastError();  // else the next kernel would be blamed for it
  fail("cuda: {} ({}:{}, {}): {}", doing, file, line, call, cudaGetErrorString(status));
}

std::string unusable() {
  static const std::string why = [] {
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    (void)cudaGetLastError();
    if (status != cudaSuccess)
      return fmt::format(
          "no device can be used here ({}); it takes one, and NVIDIA's driver for it",
          cudaGetErrorString(status));
    if (devices == 0) return std::string("this machine has no CUDA device");
    int major = 0;
    (void)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    return major >= 8
               ? std::string()
               : fmt::format("the device is sm_{}x; this is compiled for sm_80 and later", major);
  }();
  return why;
}

bool tf32() {
  const char* given = std::getenv("GRAFT_TF32");
  const std::string value = given ? given : "0";
  check(value == "0" || value == "1", "GRAFT_TF32: '{}'; need 0 or 1", value);
  return value == "1";
}

std::string device_name() {
  cudaDeviceProp p{};
  GRAFT_CUDA_CHECK(cudaGetDeviceProperties(&p, 0), "reading the device's properties");
  return fmt::format("{}, sm_{}{}{}", p.name, p.major, p.minor, tf32() ? ", TF32" : "");
}

cudaStream_t stream() {
  static const cudaStream_t the_stream = [] {
    cudaStream_t s = nullptr;
    GRAFT_CUDA_CHECK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream");
    return s;
  }();
  return the_stream;
}

#ifndef GRAFT_CUDA_EMULATED
void allow_shared(const char* name, const void* kernel, std::size_t bytes) {
  static auto* const allowed = new std::unordered_map<const void*, std::size_t>;
  std::size_t& most = (*allowed)[kernel];
  if (bytes <= most) return;
  GRAFT_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(bytes)),
                   "kernel {}: {} bytes of shared memory", name, bytes);
  most = bytes;
}
#endif

void* allocate(std::size_t bytes) {
  void* block = nullptr;
  const cudaError_t status = cudaMalloc(&block, bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // it would be the next call's, too
    return nullptr;
  }
  GRAFT_CUDA_CHECK(status, "getting {} bytes", bytes);
  return block;
}

void release(void* block) {
  if (cudaFree(block) != cudaSuccess) (void)cudaGetLastError();
}

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  GRAFT_CUDA_CHECK(cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

// Outside a list: from memory that may be changed right after. The driver has taken it when this
// returns, or, where the device reads such memory itself, the device has.
static void copy_at_once(void* to, const void* from, std::size_t bytes) {
  GRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream()),
                   "copying {} bytes to the device", bytes);
  static const bool reads_itself = [] {
    int yes = 0;
    return cudaDeviceGetAttribute(&yes, cudaDevAttrPageableMemoryAccess, 0) == cudaSuccess && yes;
  }();
  if (reads_itself) wait();
}

void copy_to_device(void* to, const void* from, std::size_t bytes) {
  if (!noting()) return copy_at_once(to, from, bytes);
  using Given = Packed<void*, std::size_t, std::size_t>;
  const Start start = [](const std::byte* given, const std::byte* copied) {
    Given::read(given, [&](void* const* to, const std::size_t* at, const std::size_t* bytes) {
      GRAFT_CUDA_CHECK(cudaMemcpyAsync(*to, copied + *at, *bytes, cudaMemcpyHostToDevice, stream()),
                       "copying {} bytes to the device", *bytes);
    });
  };
  const std::size_t at = keep_copied(from, bytes);
  Given::write(note(start, Given::kBytes), to, at, bytes);
}

void copy_to_host(void* to, const void* from, std::size_t bytes) {
  start_noted();
  GRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream()),
                   "copying {} bytes to the host", bytes);
  wait();
}

void copy_on_device(void* to, const void* from, std::size_t bytes) {
  command(
      [](void* to, const void* from, std::size_t bytes) {
        GRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()),
                         "copying {} bytes on the device", bytes);
      },
      to, from, bytes);
}

void fill_bytes(void* at, int byte, std::size_t bytes) {
  command(
      [](void* at, std::size_t bytes, int byte) {
        GRAFT_CUDA_CHECK(cudaMemsetAsync(at, byte, bytes, stream()), "filling {} bytes", bytes);
      },
      at, bytes, byte);
}

void wait() {
  start_noted();
  GRAFT_CUDA_CHECK(cudaStreamSynchronize(stream()), "waiting for the device");
  has_waited();
}

}  // namespace graft::cuda
