// Rows by index, and means over the rows of a sequence, on the device.
#include <algorithm>
#include <numeric>

#include "tensor/cuda/launch.h"
#include "tensor/kernels.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

// Indices that lie on the host are looked at; those on the device were when they were made.
void check_rows(const char* where, const Array& row, Index table) {
  if (row.device() == Device::cuda) return;
  const auto* at = row.data<std::int32_t>();
  for (Index i = 0; i < row.numel(); ++i)
    check(at[i] >= -1 && at[i] < table, "{}: index {} (number {}) in a table of {} rows", where,
          at[i], i, table);
}

template <class T, class S>
__global__ void gather_kernel(T* y, const S* table, const std::int32_t* row, Index columns) {
  const std::int32_t from = row[blockIdx.x];
  for (Index c = threadIdx.x; c < columns; c += blockDim.x) {
    const Compute<T> v =
        from < 0 ? Compute<T>{0} : static_cast<Compute<T>>(table[from * columns + c]);
    y[blockIdx.x * columns + c] = static_cast<T>(v);
  }
}

// Block b adds the rows order[first[b]], ... of x, in their order, to row to[b] of the table, which
// no other block writes to. to[b] < 0: there is no such block.
template <class T, class S>
__global__ void scatter_kernel(T* table, const S* x, const std::int32_t* to,
                               const std::int32_t* first, const std::int32_t* order,
                               Index columns) {
  using C = Compute<T>;
  const Index target = to[blockIdx.x];
  if (target < 0) return;
  const std::int32_t begin = first[blockIdx.x], end = first[blockIdx.x + 1];
  for (Index c = threadIdx.x; c < columns; c += blockDim.x) {
    C sum = static_cast<C>(table[target * columns + c]);
    for (Index i = begin; i < end; ++i) sum += static_cast<C>(x[order[i] * columns + c]);
    table[target * columns + c] = static_cast<T>(sum);
  }
}

template <class T>
__global__ void segment_mean_kernel(T* y, const T* x, const std::int32_t* start, Index columns) {
  using C = Compute<T>;
  const std::int32_t begin = start[blockIdx.x], end = start[blockIdx.x + 1];
  const C n = static_cast<C>(end > begin ? end - begin : 1);
  for (Index c = threadIdx.x; c < columns; c += blockDim.x) {
    C sum = 0;
    for (Index r = begin; r < end; ++r) sum += static_cast<C>(x[r * columns + c]);
    y[blockIdx.x * columns + c] = static_cast<T>(sum / n);
  }
}

template <class T>
__global__ void segment_mean_grad_kernel(T* dx, const T* dy, const std::int32_t* start,
                                         Index columns) {
  using C = Compute<T>;
  const std::int32_t begin = start[blockIdx.x], end = start[blockIdx.x + 1];
  const C n = static_cast<C>(end > begin ? end - begin : 1);
  for (Index c = threadIdx.x; c < columns; c += blockDim.x) {
    const T value = static_cast<T>(static_cast<C>(dy[blockIdx.x * columns + c]) / n);
    for (Index r = begin; r < end; ++r) dx[r * columns + c] = value;
  }
}

// What scatter_kernel reads: to [n], first [n + 1], order [n], one after another. Rows of one index
// stand together, in their order; there are as many groups as rows, the last ones empty, so that a
// grid depends on the number of rows alone.
Array groups_of(const Array& row) {
  const auto n = static_cast<std::size_t>(row.numel());
  const auto* index = row.data<std::int32_t>();
  Array all = Array::empty({row.numel() * 3 + 1}, Dtype::i32);
  auto *const to = all.data<std::int32_t>(), *const first = to + n, *const order = first + n + 1;
  std::iota(order, order + n, 0);
  const auto before = [index](std::int32_t a, std::int32_t b) { return index[a] < index[b]; };
  if (!std::is_sorted(order, order + n, before)) std::stable_sort(order, order + n, before);
  std::fill(to, to + n, -1);
  std::fill(first, first + n + 1, static_cast<std::int32_t>(n));
  std::size_t groups = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (i > 0 && index[order[i]] == index[order[i - 1]]) continue;
    to[groups] = index[order[i]];
    first[groups++] = static_cast<std::int32_t>(i);
  }
  return all;
}

// First row of each sequence, and one more.
DeviceInts starts(const char* where, const std::vector<int>& length, Index rows) {
  Array start = Array::zeros({static_cast<Index>(length.size()) + 1}, Dtype::i32);
  auto* at = start.data<std::int32_t>();
  for (std::size_t s = 0; s < length.size(); ++s) {
    check(length[s] >= 0, "{}: sequence {} has length {}", where, s, length[s]);
    at[s + 1] = at[s] + length[s];
  }
  check(at[length.size()] == rows, "{}: the lengths add up to {}; there are {} rows", where,
        at[length.size()], rows);
  return DeviceInts(start);
}

}  // namespace

void gather(Array& y, const Array& table, const Array& row) {
  check_rows("gather", row, table.dim(0));
  if (y.numel() == 0) return;
  const DeviceInts index(row);
  dispatch_all(y, [&]<class T>(T) {
    dispatch_all(table, [&]<class S>(S) {
      launch("gather", gather_kernel<T, S>, Grid{unsigned(row.numel())}, y.device_data<T>(),
             table.device_data<S>(), index.data(), table.dim(-1));
    });
  });
}

void scatter_add(Array& table, const Array& x, const Array& row) {
  check_rows("scatter_add", row, table.dim(0));
  if (x.numel() == 0) return;
  const DeviceInts groups(groups_of(row.to(Device::cpu)));
  const std::int32_t *const to = groups.data(), *const first = to + row.numel();
  dispatch_sum("scatter_add", table, x, [&]<class T, class S>(T, S) {
    launch("scatter_add", scatter_kernel<T, S>, Grid{unsigned(row.numel())}, table.device_data<T>(),
           x.device_data<S>(), to, first, first + row.numel() + 1, table.dim(-1));
  });
}

void segment_mean(Array& y, const Array& x, const std::vector<int>& length) {
  const Index columns = y.dim(-1), rows = columns ? x.numel() / columns : 0;
  const DeviceInts start = starts("segment_mean", length, rows);
  dispatch_all(y, [&]<class T>(T) {
    launch("segment_mean", segment_mean_kernel<T>, Grid{unsigned(length.size())},
           y.device_data<T>(), x.device_data<T>(), start.data(), columns);
  });
}

void segment_mean_grad(Array& dx, const Array& dy, const std::vector<int>& length) {
  const Index columns = dy.dim(-1), rows = columns ? dx.numel() / columns : 0;
  const DeviceInts start = starts("segment_mean_grad", length, rows);
  dispatch_all(dx, [&]<class T>(T) {
    launch("segment_mean_grad", segment_mean_grad_kernel<T>, Grid{unsigned(length.size())},
           dx.device_data<T>(), dy.device_data<T>(), start.data(), columns);
  });
}

}  // namespace graft::cuda
