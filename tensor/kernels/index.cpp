// Rows by index, and means over the rows of a sequence.
#include <algorithm>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/kernels/columns.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"

namespace graft::cpu {
namespace {

// Before the parallel region, which no exception may leave.
void check_rows(const char* where, const std::int32_t* row, std::int64_t n, std::int64_t table) {
  for (std::int64_t i = 0; i < n; ++i)
    check(row[i] >= -1 && row[i] < table, "{}: index {} (number {}) in a table of {} rows", where,
          row[i], i, table);
}

std::vector<std::int64_t> starts(const char* where, const std::vector<int>& length,
                                 std::int64_t rows) {
  std::vector<std::int64_t> start(length.size() + 1, 0);
  for (std::size_t s = 0; s < length.size(); ++s) {
    check(length[s] >= 0, "{}: sequence {} has length {}", where, s, length[s]);
    start[s + 1] = start[s] + length[s];
  }
  check(start.back() == rows, "{}: the lengths add up to {}; there are {} rows", where,
        start.back(), rows);
  return start;
}

}  // namespace

void gather(Array& y, const Array& table, const Array& row) {
  const std::int32_t* index = row.data<std::int32_t>();
  const std::int64_t rows = row.numel(), columns = table.dim(-1);
  check_rows("gather", index, rows, table.dim(0));
  dispatch_stored("gather", y, table, [&]<class T, class S>(T, S) {
    const S* in = table.data<S>();
    T* out = y.data<T>();
    parallel_for(rows, row_grain(columns), [=](std::int64_t r) {
      if (index[r] < 0)
        std::fill_n(out + r * columns, columns, T{0});
      else
        std::copy_n(in + index[r] * columns, columns, out + r * columns);
    });
  });
}

void scatter_add(Array& table, const Array& x, const Array& row) {
  const std::int32_t* index = row.data<std::int32_t>();
  const std::int64_t rows = row.numel(), columns = table.dim(-1);
  check_rows("scatter_add", index, rows, table.dim(0));
  dispatch(table, [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = table.data<T>();
    // Threads share columns, not rows, so that equal indices are added in the order of R.
    column_blocks(rows, columns, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = 0; r < rows; ++r) {
        if (index[r] < 0) continue;
        const T* from = in + r * columns;
        T* to = out + index[r] * columns;
#pragma omp simd
        for (std::int64_t c = begin; c < end; ++c) to[c] += from[c];
      }
    });
  });
}

void segment_mean(Array& y, const Array& x, const std::vector<int>& length) {
  const std::int64_t columns = y.dim(-1), rows = columns ? x.numel() / columns : 0;
  const auto start = starts("segment_mean", length, rows);
  dispatch(y, [&]<class T>(T) {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(static_cast<std::int64_t>(length.size()), 1, [&](std::int64_t s) {
      T* to = out + s * columns;
      std::fill_n(to, columns, T{0});
      for (std::int64_t r = start[s]; r < start[s + 1]; ++r) {
        const T* from = in + r * columns;
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) to[c] += from[c];
      }
      const T n = static_cast<T>(std::max(1, length[s]));
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) to[c] /= n;
    });
  });
}

void segment_mean_grad(Array& dx, const Array& dy, const std::vector<int>& length) {
  const std::int64_t columns = dy.dim(-1), rows = columns ? dx.numel() / columns : 0;
  const auto start = starts("segment_mean_grad", length, rows);
  dispatch(dx, [&]<class T>(T) {
    const T* in = dy.data<T>();
    T* out = dx.data<T>();
    parallel_for(static_cast<std::int64_t>(length.size()), 1, [&](std::int64_t s) {
      const T* from = in + s * columns;
      const T n = static_cast<T>(std::max(1, length[s]));
      for (std::int64_t r = start[s]; r < start[s + 1]; ++r) {
        T* to = out + r * columns;
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) to[c] = from[c] / n;
      }
    });
  });
}

}  // namespace graft::cpu
