// Sums. Over rows: columns.h. Over columns and over everything: lanes.h, or in order in f64.
#include <vector>

#include "tensor/kernels.h"
#include "tensor/kernels/columns.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {

void add_rows(Array& y, const Array& x) {
  dispatch(y, [&]<class T>(T) {
    const std::int64_t columns = y.numel(), rows = columns ? x.numel() / columns : 0;
    const T* in = x.data<T>();
    const auto step = [=](T sum, std::int64_t r, std::int64_t c)
                          GRAFT_INLINE { return sum + in[r * columns + c]; };
    chain_columns(y.data<T>(), rows, columns, step);
  });
}

void add_rows_of_product(Array& y, const Array& a, const Array& b) {
  dispatch(y, [&]<class T>(T) {
    const std::int64_t columns = y.numel(), rows = columns ? a.numel() / columns : 0;
    const T *left = a.data<T>(), *right = b.data<T>();
    const auto step = [=](T sum, std::int64_t r, std::int64_t c) GRAFT_INLINE {
      return vmath::fma(left[r * columns + c], right[r * columns + c], sum);
    };
    chain_columns(y.data<T>(), rows, columns, step);
  });
}

void sum_all(Array& y, const Array& x) {
  dispatch(x, [&]<class T>(T) {
    const T* in = x.data<T>();
    double sum = 0;
    for (std::int64_t i = 0; i < x.numel(); ++i) sum += in[i];
    y.data<T>()[0] = static_cast<T>(sum);
  });
}

void sum_columns(Array& y, const Array& x) {
  dispatch(x, [&]<class T>(T) {
    const std::int64_t rows = y.numel(), columns = rows ? x.numel() / rows : 0;
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(rows, row_grain(columns), [=](std::int64_t r) {
      const T* row = in + r * columns;
      out[r] = lane_sum<T>(columns, [=](std::int64_t c) GRAFT_INLINE { return row[c]; });
    });
  });
}

Array sum_squares(const std::vector<Array>& all) {
  constexpr std::int64_t kBlock = 4096;
  std::vector<double> sums;
  if (all.empty()) return Array::of(sums);
  for (std::size_t i = 0; i < all.size(); ++i)
    check(all[i].dtype() == all[0].dtype(), "sum_squares: array {} is {}, the first {}", i,
          name(all[i].dtype()), name(all[0].dtype()));
  dispatch(all[0], [&]<class T>(T) {
    struct Block {
      const T* in;
      std::int64_t size;
    };
    std::vector<Block> blocks;
    for (const Array& x : all)
      for (std::int64_t at = 0; at < x.numel(); at += kBlock)
        blocks.push_back({x.data<T>() + at, std::min(kBlock, x.numel() - at)});
    std::vector<double> part(blocks.size());
    parallel_for(static_cast<std::int64_t>(part.size()), kGrain / kBlock, [&](std::int64_t b) {
      const T* in = blocks[b].in;
      const auto square = [=](std::int64_t i) GRAFT_INLINE {
        const double value = in[i];
        return value * value;
      };
      part[b] = lane_sum<double>(blocks[b].size, square);
    });
    std::size_t next = 0;
    for (const Array& x : all) {
      double sum = 0;
      for (std::int64_t at = 0; at < x.numel(); at += kBlock) sum += part[next++];
      sums.push_back(sum);
    }
  });
  return Array::of(sums);
}

bool all_finite(const Array& x) {
  bool finite = true;
  dispatch(x, [&]<class T>(T) {
    const T* in = x.data<T>();
    int bad = 0;
    parallel_ranges(x.numel(), kGrain, [&bad, in](std::int64_t begin, std::int64_t end) {
      const T* from = in + begin;
      // Zero times infinity or NaN is NaN, which stays in the sum.
      const T zero =
          lane_sum<T>(end - begin, [=](std::int64_t i) GRAFT_INLINE { return from[i] * T{0}; });
      if (zero != 0) {
#pragma omp atomic write
        bad = 1;
      }
    });
    finite = bad == 0;
  });
  return finite;
}

}  // namespace graft::cpu
