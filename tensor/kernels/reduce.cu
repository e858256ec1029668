// Sums on the device. Every sum has a fixed tree, so two runs have the same bits; they are not
// those of the host, which adds in another order.
#include "tensor/cuda/launch.h"
#include "tensor/cuda/lists.h"
#include "tensor/cuda/rows.h"
#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::cuda {
namespace {

template <class T>
struct Value {
  const T* x;
  __device__ Compute<T> operator()(std::int64_t i) const { return static_cast<Compute<T>>(x[i]); }
};
template <class T>
struct Product {
  const T *a, *b;
  __device__ Compute<T> operator()(std::int64_t i) const {
    return static_cast<Compute<T>>(a[i]) * static_cast<Compute<T>>(b[i]);
  }
};
template <class T>
struct Square {
  const T* x;
  __device__ double operator()(std::int64_t i) const {
    const double v = static_cast<double>(static_cast<Compute<T>>(x[i]));
    return v * v;
  }
};
template <class T>
struct Wide {
  const T* x;
  __device__ double operator()(std::int64_t i) const {
    return static_cast<double>(static_cast<Compute<T>>(x[i]));
  }
};
// Zero times infinity or NaN is NaN, which stays in the sum.
template <class T>
struct Nothing {
  const T* x;
  __device__ double operator()(std::int64_t i) const {
    return static_cast<double>(static_cast<Compute<T>>(x[i])) * 0;
  }
};

template <class T>
__global__ void sum_columns_kernel(T* y, const T* x, std::int64_t columns) {
  using C = Compute<T>;
  const T* row = x + blockIdx.x * columns;
  C sum = 0;
  for (std::int64_t c = threadIdx.x; c < columns; c += blockDim.x) sum += static_cast<C>(row[c]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) y[blockIdx.x] = static_cast<T>(sum);
}

// Block b sums the elements [b kPart, (b + 1) kPart), in f64.
constexpr std::int64_t kPart = 1 << 16;
template <class F>
__global__ void part_sums(double* part, F f, std::int64_t n) {
  const std::int64_t begin = blockIdx.x * kPart, end = begin + kPart < n ? begin + kPart : n;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += f(i);
  sum = block_sum(sum);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}
template <class T>
__global__ void total_of(T* y, const double* part, std::int64_t parts) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < parts; i += blockDim.x) sum += part[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *y = static_cast<T>(static_cast<Compute<T>>(sum));
}

// y[0] = the sum of f(i), i in [0, n).
template <class T, class F>
void total(T* y, F f, std::int64_t n) {
  const std::int64_t parts = (n + kPart - 1) / kPart;
  Array part = Array::empty({parts}, {Dtype::f64, Device::cuda});
  double* const at = parts ? part.device_data<double>() : nullptr;
  launch("part_sums", part_sums<F>, Grid{unsigned(parts)}, at, f, n);
  launch("total_of", total_of<T>, Grid{1}, y, static_cast<const double*>(at), parts);
}

template <class T>
struct Listed {
  const T* x[kListed];
};

template <class T>
__global__ void squares_of_runs(double* part, Listed<T> listed, Runs runs) {
  const Stretch run = stretch_of(runs, blockIdx.x);
  const Square<T> square{listed.x[run.array]};
  double sum = 0;
  for (std::int64_t i = run.begin + threadIdx.x; i < run.end; i += blockDim.x) sum += square(i);
  sum = block_sum(sum);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}
// One block for each array.
__global__ void totals_of_runs(double* total, const double* part, Runs runs) {
  const unsigned end = runs.first[blockIdx.x + 1];
  double sum = 0;
  for (unsigned i = runs.first[blockIdx.x] + threadIdx.x; i < end; i += blockDim.x) sum += part[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) total[blockIdx.x] = sum;
}

template <template <class> class F>
double total_on_host(const Array& x) {
  if (x.numel() == 0) return 0;
  Array y = Array::empty({1}, {Dtype::f64, Device::cuda});
  dispatch_all(
      x, [&]<class T>(T) { total(y.device_data<double>(), F<T>{x.device_data<T>()}, x.numel()); });
  return y.item();
}

}  // namespace

void add_rows(Array& y, const Array& x) {
  dispatch_sum("add_rows", y, x, [&]<class T, class S>(T, S) {
    add_over_rows(y.device_data<T>(), Value<S>{x.device_data<S>()}, x.numel(), y.numel());
  });
}

void add_rows_of_product(Array& y, const Array& a, const Array& b) {
  dispatch_sum("add_rows_of_product", y, a, [&]<class T, class S>(T, S) {
    add_over_rows(y.device_data<T>(), Product<S>{a.device_data<S>(), b.device_data<S>()}, a.numel(),
                  y.numel());
  });
}

void sum_all(Array& y, const Array& x) {
  dispatch_all(x, [&]<class T>(T) {
    total(y.device_data<Compute<T>>(), Wide<T>{x.numel() ? x.device_data<T>() : nullptr},
          x.numel());
  });
}

void sum_columns(Array& y, const Array& x) {
  const std::int64_t rows = y.numel(), columns = rows ? x.numel() / rows : 0;
  dispatch_all(x, [&]<class T>(T) {
    launch("sum_columns", sum_columns_kernel<T>, Grid{unsigned(rows)}, y.device_data<T>(),
           x.device_data<T>(), columns);
  });
}

Array sum_squares(const std::vector<Array>& all) {
  for (std::size_t i = 0; i < all.size(); ++i)
    check(all[i].dtype() == all[0].dtype() && all[i].device() == Device::cuda,
          "sum_squares: array {} is {}, the first {}, on {}; need one type, on cuda", i,
          name(all[i].dtype()), name(all[0].dtype()), name(all[i].device()));
  Array sums = Array::empty({static_cast<std::int64_t>(all.size())}, {Dtype::f64, Device::cuda});
  dispatch_all(all[0], [&]<class T>(T) {
    const auto size = [&](std::size_t i) { return all[i].numel(); };
    for_lists(all.size(), size, [&](const Runs& runs, std::size_t begin, std::size_t end) {
      Listed<T> listed = {};
      for (std::size_t i = begin; i < end; ++i)
        listed.x[i - begin] = size(i) ? all[i].device_data<T>() : nullptr;
      const unsigned arrays = unsigned(end - begin), blocks = runs.first[arrays];
      Array part = Array::empty({blocks}, {Dtype::f64, Device::cuda});
      double* const at = blocks ? part.device_data<double>() : nullptr;
      launch("squares_of_runs", squares_of_runs<T>, Grid{blocks}, at, listed, runs);
      launch("totals_of_runs", totals_of_runs, Grid{arrays}, sums.device_data<double>() + begin,
             static_cast<const double*>(at), runs);
    });
  });
  return sums;
}

bool all_finite(const Array& x) { return total_on_host<Nothing>(x) == 0; }

}  // namespace graft::cuda
