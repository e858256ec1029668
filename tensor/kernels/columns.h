// Sums over rows: one chain per column, in row order, from the value already there. Adding in two
// calls gives the bits of one, and neither blocks nor threads can be seen in the result.
#pragma once

#include <omp.h>

#include <algorithm>

#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"

namespace graft::cpu {

// Calls f(begin, end) for blocks of columns: one block to a thread, bounds at whole cache lines.
template <class F>
inline void column_blocks(std::int64_t rows, std::int64_t columns, F&& f) {
  constexpr std::int64_t kLine = 16;
  const std::int64_t threads = runs_parallel(rows * columns, kGrain) ? omp_get_max_threads() : 1;
  const std::int64_t lines = (columns + kLine - 1) / kLine;
  const std::int64_t width = (lines + threads - 1) / threads * kLine;
  if (columns == 0) return;
  parallel_for((columns + width - 1) / width, 1, [&](std::int64_t block) {
    f(block * width, std::min(columns, (block + 1) * width));
  });
}

// y[c] = step(y[c], r, c) for r in [first, last) and c in [begin, end). Eight rows are read side by
// side, which the prefetchers follow, while the block of y stays in the first-level cache.
template <class T, class Step>
[[gnu::always_inline]] inline void chain_block(T* y, std::int64_t first, std::int64_t last,
                                               std::int64_t begin, std::int64_t end, Step step) {
  std::int64_t r = first;
  for (; r + 8 <= last; r += 8) {
#pragma omp simd
    for (std::int64_t c = begin; c < end; ++c) {
      T sum = step(y[c], r, c);
      sum = step(sum, r + 1, c);
      sum = step(sum, r + 2, c);
      sum = step(sum, r + 3, c);
      sum = step(sum, r + 4, c);
      sum = step(sum, r + 5, c);
      sum = step(sum, r + 6, c);
      y[c] = step(sum, r + 7, c);
    }
  }
  for (; r < last; ++r) {
#pragma omp simd
    for (std::int64_t c = begin; c < end; ++c) y[c] = step(y[c], r, c);
  }
}

// y[c] = step(y[c], r, c) for all rows and columns.
template <class T, class Step>
inline void chain_columns(T* y, std::int64_t rows, std::int64_t columns, Step step) {
  column_blocks(rows, columns, [=](std::int64_t begin, std::int64_t end) {
    chain_block(y, 0, rows, begin, end, step);
  });
}

}  // namespace graft::cpu
