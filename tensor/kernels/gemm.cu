// Matrix products on the device: cuBLAS, which has columns where we have rows, so that it is asked
// for c^T = b^T a^T. Sums are in f32 (f64 for f64), without TF32 unless it is asked for; the
// workspace is ours, since one of cuBLAS's own would let the algorithm depend on what else runs.
#include <cublas_v2.h>

#include "tensor/cuda/launch.h"
#include "tensor/cuda/walk.h"
#include "tensor/kernels.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

void check_cublas(cublasStatus_t status, const char* call, const std::string& doing) {
  check(status == CUBLAS_STATUS_SUCCESS, "cuda: {} ({}): cuBLAS says {}", doing, call,
        static_cast<int>(status));
}

constexpr std::size_t kWorkspace = 32 << 20;  // what cuBLAS recommends from sm_90 on

// Sums stay in f32 in either mode, of halves as well.
cublasMath_t math_mode() {
  const int inputs = tf32() ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH;
  return static_cast<cublasMath_t>(inputs | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
}

cublasHandle_t handle() {
  static const cublasHandle_t the_handle = [] {
    cublasHandle_t h = nullptr;
    check_cublas(cublasCreate(&h), "cublasCreate", "starting cuBLAS");
    check_cublas(cublasSetStream(h, stream()), "cublasSetStream", "starting cuBLAS");
    static const Array workspace =
        Array::empty({Index{kWorkspace} / 4}, {Dtype::f32, Device::cuda});
    check_cublas(
        cublasSetWorkspace(h, const_cast<float*>(workspace.device_data<float>()), kWorkspace),
        "cublasSetWorkspace", "starting cuBLAS");
    check_cublas(cublasSetMathMode(h, math_mode()), "cublasSetMathMode", "starting cuBLAS");
    return h;
  }();
  return the_handle;
}

template <class T>
struct CublasType;
template <>
struct CublasType<float> {
  static constexpr cudaDataType_t data = CUDA_R_32F;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
};
template <>
struct CublasType<double> {
  static constexpr cudaDataType_t data = CUDA_R_64F;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_64F;
};
template <>
struct CublasType<F16> {
  static constexpr cudaDataType_t data = CUDA_R_16F;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
};
template <>
struct CublasType<BF16> {
  static constexpr cudaDataType_t data = CUDA_R_16BF;
  static constexpr cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
};

// A matrix as cuBLAS can read it: its rows or its columns lie in one piece. Others are copied.
struct Readable {
  Array x;
  cublasOperation_t op;
  int step;
};
Readable readable(const Array& x) {
  const auto rows = [](const Array& m) {
    return Readable{m, CUBLAS_OP_N, static_cast<int>(std::max<Index>(m.stride(0), m.dim(1)))};
  };
  if (x.stride(1) == 1 || x.dim(1) == 1) {
    if (x.stride(0) >= x.dim(1) || x.dim(0) == 1) {
      if (x.stride(1) == 1) return rows(x);
    }
  }
  if (x.stride(0) == 1 && (x.stride(1) >= x.dim(0) || x.dim(1) == 1))
    return {x, CUBLAS_OP_T, static_cast<int>(std::max<Index>(x.stride(1), x.dim(0)))};
  return rows(x.clone());
}

void check_size(const char* what, Index n) {
  check(n <= 0x7fffffff, "gemm: {} {} is more than cuBLAS takes", what, n);
}

void product(Array& c, const Array& a, const Array& b, double alpha, double beta) {
  const Index m = c.dim(0), n = c.dim(1), k = a.dim(1);
  if (c.numel() == 0) return;
  check(c.stride(1) == 1 || n <= 1, "gemm: the columns of c {} have stride {}, not 1", c.shape(),
        c.stride(1));
  if (k == 0) {
    if (beta == 0) c.fill(0);
    return;
  }
  for (const Index size :
       {m, n, k, c.stride(0), a.stride(0), a.stride(1), b.stride(0), b.stride(1)})
    check_size("a size of", size);
  const Dtype in = is_half(c.dtype()) ? c.dtype() : a.dtype();
  const Readable left = readable(a.to(in)), right = readable(b.to(in));
  dispatch_sum("gemm", c, left.x, [&]<class T, class S>(T, S) {
    using C = Compute<T>;
    const C by = static_cast<C>(alpha), keep = static_cast<C>(beta);
    check_cublas(
        cublasGemmEx(handle(), right.op, left.op, int(n), int(m), int(k), &by,
                     right.x.device_data<S>(), CublasType<S>::data, right.step,
                     left.x.device_data<S>(), CublasType<S>::data, left.step, &keep,
                     c.device_data<T>(), CublasType<T>::data, int(std::max<Index>(c.stride(0), n)),
                     CublasType<T>::compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx", fmt::format("product of {} and {}", a.shape(), b.shape()));
  });
}

}  // namespace

void gemm(Array& c, const Array& a, const Array& b, double alpha, double beta) {
  product(c, a, b, alpha, beta);
}

void gemm_from_row(Array& c, const Array& a, const Array& b, const Array& row) {
  check(row.contiguous() && row.dtype() == c.dtype(), "gemm: row {} of {}, c {}", row.shape(),
        name(row.dtype()), name(c.dtype()));
  c.copy_from(row.reshape({1, c.dim(1)}).expand(c.shape()));
  product(c, a, b, 1, 1);
}

}  // namespace graft::cuda
