// Sums over rows: y[c] += sum over r of f(r C + c), in f32 or f64 (Compute), in a fixed order. An f
// that asks for the row is given it first: to divide for it takes longer than the rest.
#pragma once

#include "tensor/cuda/launch.h"

namespace graft::cuda {

// Rows of one block. A few columns of many rows would keep few threads busy; so runs of rows are
// summed apart, and then the runs in order.
constexpr std::int64_t kRowRun = 64;

template <class C, class F>
__global__ void sum_row_runs(C* part, F f, std::int64_t rows, std::int64_t columns) {
  const std::int64_t c = thread_index();
  if (c >= columns) return;
  const std::int64_t begin = blockIdx.y * kRowRun;
  const std::int64_t end = begin + kRowRun < rows ? begin + kRowRun : rows;
  C sum = 0;
  for (std::int64_t r = begin; r < end; ++r) {
    if constexpr (requires { f(r, r); })
      sum += static_cast<C>(f(r, r * columns + c));
    else
      sum += static_cast<C>(f(r * columns + c));
  }
  part[blockIdx.y * columns + c] = sum;
}

template <class T, class C>
__global__ void add_row_runs(T* y, const C* part, std::int64_t runs, std::int64_t columns) {
  const std::int64_t c = thread_index();
  if (c >= columns) return;
  C sum = static_cast<C>(y[c]);
  for (std::int64_t i = 0; i < runs; ++i) sum += part[i * columns + c];
  y[c] = static_cast<T>(sum);
}

template <class T, class F>
void add_over_rows(T* y, F f, std::int64_t numbers, std::int64_t columns) {
  using C = Compute<T>;
  if (numbers == 0 || columns == 0) return;
  const std::int64_t rows = numbers / columns, runs = (rows + kRowRun - 1) / kRowRun;
  const auto blocks = unsigned((columns + kThreads - 1) / kThreads);
  check(runs <= 65535, "add_rows: {} rows; the device takes {} at once", rows, 65535 * kRowRun);
  Array part = Array::empty({runs, columns}, {dtype_of<C>, Device::cuda});
  launch("sum_row_runs", sum_row_runs<C, F>, Grid{blocks, kThreads, unsigned(runs)},
         part.device_data<C>(), f, rows, columns);
  launch("add_row_runs", add_row_runs<T, C>, Grid{blocks}, y,
         static_cast<const C*>(part.device_data<C>()), runs, columns);
}

}  // namespace graft::cuda
