// What attention on tensor cores and its gradient share: tiles of halves in shared memory.
#pragma once

#include "tensor/cuda/mma.h"
#include "tensor/kernels/sdpa_device.h"

namespace graft::cuda {

constexpr int kMmaWarps = 4, kMmaThreads = kMmaWarps * kWarp;
constexpr int kMmaRows = 16 * kMmaWarps;  // of a block's own tile: 16 for each warp

// From one row of a tile to the next: 16 bytes more than the row, so that the rows that a warp
// reads at once begin in different banks.
constexpr int mma_step(int width) { return width + 8; }

// One head's rows of a sequence, of which there are `rows`.
template <class T>
struct HeadRows {
  T* at;
  std::int64_t step;
  int rows, width;
};
template <class T>
__device__ HeadRows<T> head_rows(T* all, std::int64_t step, int first, int rows, int head,
                                 int width) {
  return {all + first * step + head * width, step, rows, width};
}

// Rows [first, first + n) as far as there are any, and zeros beyond, in a tile of `w` columns, of
// which the head has fewer.
template <int n, int w, class T>
__device__ void load_halves(T* to, const HeadRows<const T>& head, int first) {
  constexpr int kStep = mma_step(w), kEight = 8;
  const bool in_eights = head.width % kEight == 0 && head.step % kEight == 0 &&
                         reinterpret_cast<std::uintptr_t>(head.at) % 16 == 0;
  for (int i = threadIdx.x; i < n * (w / kEight); i += blockDim.x) {
    const int r = i / (w / kEight), c = i % (w / kEight) * kEight;
    T* const out = to + r * kStep + c;
    const T* const in = head.at + (first + r) * head.step + c;
    const int there = first + r < head.rows ? min(kEight, head.width - c) : 0;
    if (there == kEight && in_eights) {
      copy_eight(out, in);
      continue;
    }
    for (int e = 0; e < kEight; ++e) out[e].bits = e < there ? in[e].bits : std::uint16_t{0};
  }
}

// Calls f with the width of tiles for heads of this width, as a constant.
template <class F>
void with_tile_width(int width, F&& f) {
  if (width <= 32)
    f(std::integral_constant<int, 32>{});
  else if (width <= 64)
    f(std::integral_constant<int, 64>{});
  else
    f(std::integral_constant<int, kWidestOnTensorCores>{});
}

// Over the four lanes that share a row of a TileSum.
template <class F>
__device__ float over_row(float x, F f) {
  x = f(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return f(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

}  // namespace graft::cuda
