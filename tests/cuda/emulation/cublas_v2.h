// The one product that is asked of cuBLAS, as three loops.
#pragma once

#include "cuda_runtime.h"
#include "tensor/half.h"

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cublasMath_t : int {
  CUBLAS_DEFAULT_MATH = 0,
  CUBLAS_TF32_TENSOR_OP_MATH = 3,
  CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16
};
enum cudaDataType_t { CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT };
using cublasHandle_t = void*;

inline cublasStatus_t cublasCreate(cublasHandle_t*) { return CUBLAS_STATUS_SUCCESS; }
inline cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) {
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetWorkspace(cublasHandle_t, void*, std::size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return CUBLAS_STATUS_SUCCESS;
}

namespace graft::emulation {
// c[m, n] = alpha a b + beta c, columns in one piece.
template <class S, class T, class C>
void product(bool a_turned, bool b_turned, int m, int n, int k, C alpha, const S* a, int lda,
             const S* b, int ldb, C beta, T* c, int ldc) {
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) {
      C sum = 0;
      for (int l = 0; l < k; ++l)
        sum += static_cast<C>(a_turned ? a[l + std::ptrdiff_t{i} * lda]
                                       : a[i + std::ptrdiff_t{l} * lda]) *
               static_cast<C>(b_turned ? b[j + std::ptrdiff_t{l} * ldb]
                                       : b[l + std::ptrdiff_t{j} * ldb]);
      T& to = c[i + std::ptrdiff_t{j} * ldc];
      to = static_cast<T>(alpha * sum + (beta == 0 ? C{0} : beta * static_cast<C>(to)));
    }
}
}  // namespace graft::emulation

// Alpha and beta are read when it is called, as cuBLAS does.
inline cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t op_a, cublasOperation_t op_b,
                                   int m, int n, int k, const void* alpha, const void* a,
                                   cudaDataType_t type, int lda, const void* b, cudaDataType_t,
                                   int ldb, const void* beta, void* c, cudaDataType_t to, int ldc,
                                   cublasComputeType_t, cublasGemmAlgo_t) {
  const auto as = [&]<class S, class T, class C>(S, T, C) {
    const C by = *static_cast<const C*>(alpha), keep = *static_cast<const C*>(beta);
    graft::emulation::submit([=] {
      graft::emulation::product<S, T, C>(op_a == CUBLAS_OP_T, op_b == CUBLAS_OP_T, m, n, k, by,
                                         static_cast<const S*>(a), lda, static_cast<const S*>(b),
                                         ldb, keep, static_cast<T*>(c), ldc);
    });
  };
  const auto half = [&]<class S>(S s) {
    to == CUDA_R_32F ? as(s, float{}, float{}) : as(s, s, float{});
  };
  if (type == CUDA_R_32F) as(float{}, float{}, float{});
  if (type == CUDA_R_64F) as(double{}, double{}, double{});
  if (type == CUDA_R_16F) half(graft::F16{});
  if (type == CUDA_R_16BF) half(graft::BF16{});
  return CUBLAS_STATUS_SUCCESS;
}
