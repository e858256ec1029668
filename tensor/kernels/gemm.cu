// Matrix products on the device: cuBLAS, which has columns where we have rows, so that it is asked
// for c^T = b^T a^T. Sums are in f32 (f64 for f64), without TF32 unless it is asked for; the
// workspace is ours, since one of cuBLAS's own would let the algorithm depend on what else runs.
#include <cublas_v2.h>

#include "tensor/cuda/eight.h"
#include "tensor/kernels.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

void check_cublas(cublasStatus_t status, const char* call, std::string_view doing) {
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
    const pool::Purpose purpose("cuBLAS");
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

// c[m, n] = by a b + keep c, as cuBLAS has it: columns in one piece, `step` apart. The numbers are
// of type C, as f64 here, which holds them exactly.
struct Product {
  const void *a, *b;
  void* c;
  double by, keep;
  std::int64_t m, n, k, a_step, b_step, c_step;
  cublasOperation_t a_op, b_op;
  static constexpr bool kWhole = true;  // see commands.h
};
static_assert(sizeof(Product) == 3 * sizeof(void*) + 8 * 8 + 2 * sizeof(cublasOperation_t));

template <class T, class S>
void multiply(const Product& p) {
  using C = Compute<T>;
  const C by = static_cast<C>(p.by), keep = static_cast<C>(p.keep);
  const cublasStatus_t status = cublasGemmEx(
      handle(), p.a_op, p.b_op, int(p.m), int(p.n), int(p.k), &by, p.a, CublasType<S>::data,
      int(p.a_step), p.b, CublasType<S>::data, int(p.b_step), &keep, p.c, CublasType<T>::data,
      int(p.c_step), CublasType<T>::compute, CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS)
    check_cublas(status, "cublasGemmEx",
                 fmt::format("product [{}, {}] [{}, {}], columns first", p.m, p.k, p.k, p.n));
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
  (void)handle();  // where this is noted, its workspace must not be got in a graph
  dispatch_sum("gemm", c, left.x, [&]<class T, class S>(T, S) {
    command([](const Product& p) { multiply<T, S>(p); },
            Product{right.x.device_data<S>(), left.x.device_data<S>(), c.device_data<T>(), alpha,
                    beta, n, m, k, right.step, left.step, std::max<Index>(c.stride(0), n), right.op,
                    left.op});
  });
}

// c[r, :] = row, in units of U: bytes that are copied, 16 at a time where they lie so. A thread
// reads its unit of the row once.
template <class U>
__global__ void spread_kernel(U* c, const U* row, Index rows, unsigned units, Index step) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= units) return;
  const U mine = row[i];
  for (Index r = blockIdx.y; r < rows; r += gridDim.y) c[r * step + i] = mine;
}

void spread(Array& c, const Array& row) {
  const Index rows = c.dim(0), columns = c.dim(1), step = c.stride(0);
  if (c.numel() == 0) return;
  const auto run = [&]<class U>(U* to, const U* from, Index units, Index unit_step) {
    const Index warps = (units + kWarp - 1) / kWarp;
    const auto threads = unsigned(std::min<Index>(kThreads, warps * kWarp));
    const auto across = unsigned((units + threads - 1) / threads);
    // Some thousand blocks: more than a device has under way, and rows enough for each.
    const auto down = unsigned(std::min<Index>(rows, std::max<Index>(1, 4096 / across)));
    launch("row", spread_kernel<U>, Grid{across, threads, down}, to, from, rows, unsigned(units),
           unit_step);
  };
  dispatch_all(c, [&]<class T>(T) {
    constexpr Index kEach = sizeof(Sixteen) / sizeof(T);
    T* const to = c.device_data<T>();
    const T* const from = row.device_data<T>();
    if (columns % kEach == 0 && step % kEach == 0 && at_sixteen(to, from))
      run(reinterpret_cast<Sixteen*>(to), reinterpret_cast<const Sixteen*>(from), columns / kEach,
          step / kEach);
    else
      run(to, from, columns, step);
  });
}

}  // namespace

void gemm(Array& c, const Array& a, const Array& b, double alpha, double beta) {
  product(c, a, b, alpha, beta);
}

void gemm_from_row(Array& c, const Array& a, const Array& b, const Array& row) {
  check(row.contiguous() && row.dtype() == c.dtype(), "gemm: row {} of {}, c {}", row.shape(),
        name(row.dtype()), name(c.dtype()));
  check(c.dim(1) <= 1 || c.stride(1) == 1, "gemm: the columns of c {} have stride {}, not 1",
        c.shape(), c.stride(1));
  check(row.numel() == c.dim(1), "gemm: row {}, c {}", row.shape(), c.shape());
  check_size("a width of", c.dim(1));
  spread(c, row);
  product(c, a, b, 1, 1);
}

}  // namespace graft::cuda
