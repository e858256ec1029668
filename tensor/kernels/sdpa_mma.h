// What attention on tensor cores and its gradient share: tiles of halves in shared memory, which
// kind of weights a kernel is compiled for, and which of a tile's pairs see each other.
#pragma once

#include "tensor/cuda/mma.h"
#include "tensor/kernels/sdpa_device.h"

namespace graft::cuda {

constexpr int kMmaWarps = 4, kMmaThreads = kMmaWarps * kWarp;
// A warp has `m` times 16 rows of its block's own tile.
constexpr int mma_rows(int m) { return 16 * m * kMmaWarps; }

// Blocks that are to have room on a multiprocessor at once, as far as registers go.
constexpr int mma_blocks(int w, int m) { return m * w <= 64 ? 3 : 2; }

// From one row of a tile to the next: 16 bytes more than the row, so that the rows that a warp
// reads at once begin in different banks.
constexpr int mma_step(int width) { return width + 8; }

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// What else than scale q.k a weight is made of: nothing, with a scale above 0; dropout; anything.
// Only kernels that need it have the code for it.
enum class Weights { plain, dropped, any };
template <Weights kind>
using KindOf = std::integral_constant<Weights, kind>;

#ifdef GRAFT_CUDA_EMULATED
#define GRAFT_NO_UNROLL
#else
#define GRAFT_NO_UNROLL _Pragma("unroll 1")
#endif

// A block's tile of a sequence, and its head.
struct MmaBlock {
  int number, head;
};
// Blocks come tile by tile, of which the first have the most to do, and heads within these: heads
// that share keys then read them at about the same time.
__device__ inline MmaBlock mma_block(int heads) {
  const int block = static_cast<int>(blockIdx.x);
  return {block / heads, block % heads};
}

// One head's rows of a sequence, of which there are `rows`.
template <class T>
struct HeadRows {
  T* at;
  std::int64_t step;
  int rows, width;
  bool in_eights;  // 16 bytes at a time can be read
};
template <class T>
__device__ HeadRows<T> head_rows(T* all, std::int64_t step, int first, int rows, int head,
                                 int width) {
  T* const at = all + first * step + head * width;
  return {at, step, rows, width,
          width % 8 == 0 && step % 8 == 0 && reinterpret_cast<std::uintptr_t>(at) % 16 == 0};
}

// Rows [first, first + n) as far as there are any, and zeros beyond, in a tile of `w` columns, of
// which the head has fewer. They are there after wait_for_copies() and a barrier.
template <int n, int w, class T>
__device__ void load_halves(T* to, const HeadRows<const T>& head, int first) {
  constexpr int kStep = mma_step(w), kEight = 8, kAcross = w / kEight;
  constexpr int kAtOnce = kMmaThreads / kAcross;  // rows
  static_assert(n % kAtOnce == 0);
  const int r = static_cast<int>(threadIdx.x) / kAcross;
  const int c = static_cast<int>(threadIdx.x) % kAcross * kEight;
  T* const out = to + r * kStep + c;
  const T* const in = head.at + (first + r) * head.step + c;
  const int rows = c < head.width ? head.rows - first - r : 0;  // from this thread's first on
  if (head.in_eights) {
    GRAFT_UNROLL
    for (int i = 0; i < n; i += kAtOnce)
      copy_meanwhile<16>(out + i * kStep, i < rows ? in + i * head.step : head.at, i < rows);
    return;
  }
  GRAFT_NO_UNROLL
  for (int i = 0; i < n; i += kAtOnce) {
    GRAFT_NO_UNROLL
    for (int e = 0; e < kEight; ++e) {
      const bool there = i < rows && c + e < head.width;
      out[i * kStep + e].bits = there ? in[i * head.step + e].bits : std::uint16_t{0};
    }
  }
}

// A warp's rows of a tile, of which this lane's lane_row() begins at `row`.
template <int w, int m>
__device__ void load_rows(TileA (&to)[m][w / 16], SharedPlace row) {
  GRAFT_UNROLL
  for (int n = 0; n < m * (w / 16); ++n) {
    const int i = n / (w / 16), c = n % (w / 16);
    to[i][c] = tile_a(row + 2 * (16 * i * mma_step(w) + 16 * c));
  }
}

// Two results side by side at an even column, as far as the row has columns.
template <class T>
__device__ void write_two(T* row, int column, int width, bool in_twos, float low, float high) {
  const std::uint32_t both = two_of<T>(low, high);
  if (in_twos && column < width) {
#ifdef GRAFT_CUDA_EMULATED
    std::memcpy(row + column, &both, sizeof both);
#else
    *reinterpret_cast<std::uint32_t*>(row + column) = both;
#endif
    return;
  }
  if (column < width) row[column].bits = static_cast<std::uint16_t>(both);
  if (column + 1 < width) row[column + 1].bits = static_cast<std::uint16_t>(both >> 16);
}
// Whether every row can be written so.
template <class T>
__device__ bool in_twos(const HeadRows<T>& to) {
  return to.width % 2 == 0 && to.step % 2 == 0 && reinterpret_cast<std::uintptr_t>(to.at) % 4 == 0;
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

// Calls f(width of tiles, kind of weights, m) for sequences of `rows` rows together, whose number
// alone decides of m: the step after has the same grids. With m = 2 a warp reads a tile of the
// other side for twice as many products, where there are registers for that and sequences are not
// so short that a block's own tile would be empty for the most part. Results are the same, bit by
// bit.
template <class F>
void with_mma_tile(const AttentionArguments& arguments, bool bias, std::int64_t rows, F&& f) {
  const DeviceAttention& a = arguments.get();
  const bool large = rows >= mma_rows(2) * arguments.sequences();
  constexpr std::integral_constant<int, 1> kOne;
  with_tile_width(a.width, [&](auto w) {
    if (bias || !(a.scale > 0)) return f(w, KindOf<Weights::any>{}, kOne);
    if (a.dropout > 0) return f(w, KindOf<Weights::dropped>{}, kOne);
    if constexpr (w == 64)
      if (large) return f(w, KindOf<Weights::plain>{}, std::integral_constant<int, 2>{});
    f(w, KindOf<Weights::plain>{}, kOne);
  });
}

// Which of a lane's weights of a tile dropout leaves: bit 4 t + e is that of c[e] of TileSum t. Its
// first row is `row`, the tile's first column `column`; rows are queries and columns keys, or the
// other way round. All 32 lanes must call it.
//
// One draw is of four keys side by side, whose numbers begin at a multiple of four. Where they do
// so in a tile, the lanes that have them share the draws out among themselves.
template <bool rows_are_queries, int n>
__device__ std::uint32_t kept_weights(const DeviceAttention& a, const DeviceSequence& s, int head,
                                      int row, int column) {
  const int group = lane_group() % 4, odd = lane_pair() % 2;
  const auto draw = [&](int query, int block) {  // a bit for each of four keys
    return a.kept_of_four(s, head, min(query, s.queries - 1), block);
  };
  std::uint32_t kept = 0;
  static_assert(4 * n <= 32);
  GRAFT_NO_UNROLL
  for (int t = 0; t < n; ++t) {
    const int at = column + 8 * t + 2 * lane_pair();
    std::uint32_t bits = 0;
    if (a.unbiased % 4 != 0) {
      GRAFT_NO_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int r = row + 8 * (e / 2), c = at + e % 2;
        const int number = (rows_are_queries ? c : r) - a.unbiased;
        bits |= (draw(rows_are_queries ? r : c, number >> 2) >> (number & 3) & 1) << e;
      }
    } else if (rows_are_queries) {
      const std::uint32_t mine = draw(row + 8 * odd, (at - 2 * odd - a.unbiased) >> 2);
      const std::uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 1);
      bits = ((odd ? other : mine) >> 2 * odd & 3) | ((odd ? mine : other) >> 2 * odd & 3) << 2;
    } else {
      const int block = (row - group + 8 * (group / 2) - a.unbiased) >> 2;
      std::uint32_t all = draw(at + group % 2, block) << 4 * group;
      all |= __shfl_xor_sync(0xffffffffu, all, 4);
      all |= __shfl_xor_sync(0xffffffffu, all, 8);
      for (int e = 0; e < 4; ++e) bits |= (all >> (4 * e + group) & 1) << e;
    }
    kept |= bits << 4 * t;
  }
  return kept;
}

// Over the four lanes that share a row of a TileSum.
template <class F>
__device__ float over_row(float x, F f) {
  x = f(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return f(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

}  // namespace graft::cuda
