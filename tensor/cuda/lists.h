// One kernel over the numbers of many small arrays: an adapter's are dozens, and to start a kernel
// for each takes longer than what it does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "tensor/cuda/launch.h"

namespace graft::cuda {

constexpr int kListed = 56;                   // arrays of one kernel: it is handed 4 KB at most
constexpr std::int64_t kListedRun = 1 << 13;  // numbers that a block takes

// Which numbers of which array a block works on.
struct Runs {
  std::int64_t size[kListed];
  unsigned first[kListed + 2];  // block of each array, and the number of all; the last for no gap
};
struct Stretch {
  int array;
  std::int64_t begin, end;
};

__device__ inline Stretch stretch_of(const Runs& runs, unsigned block) {
  int array = 0;
  while (runs.first[array + 1] <= block) ++array;
  const std::int64_t begin = (block - runs.first[array]) * kListedRun, size = runs.size[array];
  return {array, begin, begin + kListedRun < size ? begin + kListedRun : size};
}

// Calls f(runs, begin, end) for the arrays [begin, end), so many at a time; sizes by index.
template <class Size, class F>
void for_lists(std::size_t count, Size size, F&& f) {
  for (std::size_t begin = 0; begin < count; begin += kListed) {
    const std::size_t end = std::min(count, begin + kListed);
    Runs runs = {};
    for (std::size_t i = begin; i < end; ++i) {
      runs.size[i - begin] = size(i);
      runs.first[i - begin + 1] =
          runs.first[i - begin] + unsigned((size(i) + kListedRun - 1) / kListedRun);
    }
    f(runs, begin, end);
  }
}

}  // namespace graft::cuda
