// What CUDA answers, checked: for the .cu files.
#pragma once

#include <cuda_runtime.h>

#include "tensor/error.h"

namespace graft::cuda {

cudaStream_t stream();
bool tf32();  // whether products of f32 may round to TF32: where GRAFT_TF32 is 1. Throws for
              // others.

// Throws unless the call went well: GRAFT_CUDA_CHECK(cudaMemcpyAsync(...), "copy {}", shape).
#define GRAFT_CUDA_CHECK(call, ...)                                                                \
  do {                                                                                             \
    const cudaError_t graft_status = (call);                                                       \
    if (graft_status != cudaSuccess)                                                               \
      ::graft::cuda::fail_with(graft_status, #call, __FILE__, __LINE__, fmt::format(__VA_ARGS__)); \
  } while (false)

[[noreturn]] void fail_with(cudaError_t, const char* call, const char* file, int line,
                            const std::string& doing);

}  // namespace graft::cuda
