// Sums whose order is fixed by the length alone: 32 lanes, then a tree. A row summed this way has
// the same bits wherever it lies and however many threads run.
#pragma once

#include <algorithm>
#include <cstdint>

// On a lambda that must vanish into the loop that calls it, or the loop does not vectorise.
#define GRAFT_INLINE __attribute__((always_inline))

namespace graft::cpu {

// Elements that together are worth waking a thread for.
inline constexpr std::int64_t kGrain = 16384;

// The same in rows of `columns` elements.
inline std::int64_t row_grain(std::int64_t columns) {
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, columns));
}

inline constexpr int kLanes = 32;

// The sum of 2 `half` lanes, halves onto each other: a tree of fixed shape.
template <int half, class T>
[[gnu::always_inline]] inline T lane_tree(T* lane) {
#pragma omp simd
  for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  if constexpr (half == 1)
    return lane[0];
  else
    return lane_tree<half / 2>(lane);
}

// The sum of f(i) over [0, n): element i goes to lane i % 32.
template <class T, class F>
[[gnu::always_inline]] inline T lane_sum(std::int64_t n, F&& f) {
  T lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (int l = 0; l < kLanes; ++l) lane[l] += f(i + l);
  }
  for (int l = 0; i + l < n; ++l) lane[l] += f(i + l);
  return lane_tree<kLanes / 2>(lane);
}

// The largest element; NaN where there is one is not promised.
template <class T>
inline T row_max(const T* x, std::int64_t n) {
  T most = x[0];
#pragma omp simd reduction(max : most)
  for (std::int64_t i = 0; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

}  // namespace graft::cpu
