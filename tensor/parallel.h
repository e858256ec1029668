// Loops over the threads of the machine. Nested calls run serially, so a kernel may be called from
// inside another parallel loop. The body must not throw: an exception cannot leave a thread.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace graft {

inline bool runs_parallel(std::int64_t n, std::int64_t grain) {
  return n > grain && omp_get_max_threads() > 1 && !omp_in_parallel();
}

// Calls f(i) once for every i in [0, n); in order on one thread when n <= grain. `grain` is the
// number of calls that together are worth waking a thread for.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
  if (!runs_parallel(n, grain)) {
    for (std::int64_t i = 0; i < n; ++i) f(i);
    return;
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < n; ++i) f(i);
}

// The same, each thread taking the next i when it is done: for uneven bodies.
template <class F>
void parallel_for_dynamic(std::int64_t n, std::int64_t grain, F&& f) {
  if (!runs_parallel(n, grain)) {
    for (std::int64_t i = 0; i < n; ++i) f(i);
    return;
  }
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t i = 0; i < n; ++i) f(i);
}

// Calls f(begin, end) for ranges that cover [0, n) and begin at multiples of 64 elements, so that
// no two threads write into one cache line. For element-wise loops with `#pragma omp simd` inside.
template <class F>
void parallel_ranges(std::int64_t n, std::int64_t grain, F&& f) {
  if (n <= 0) return;
  if (!runs_parallel(n, grain)) {
    f(std::int64_t{0}, n);
    return;
  }
#pragma omp parallel
  {
    const std::int64_t parts = omp_get_num_threads(), lines = (n + 63) / 64;
    const std::int64_t part = omp_get_thread_num();
    const std::int64_t begin = lines * part / parts * 64;
    const std::int64_t end = std::min(n, lines * (part + 1) / parts * 64);
    if (begin < end) f(begin, end);
  }
}

}  // namespace graft
