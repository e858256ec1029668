// Products of small tiles on tensor cores: mma.sync.m16n8k16 of f16 or bf16, summed in f32. Every
// warp has tiles of its own, whose elements lie with its lanes as the PTX manual says (9.7.15,
// "matrix fragments for mma.m16n8k16 with floating point type"): with group = lane / 4 and pair =
// lane % 4,
//
//     a [16, 16]  rows group and group + 8, columns 2 pair, 2 pair + 1 and these + 8
//     b [16, 8]   rows 2 pair, 2 pair + 1 and these + 8, column group
//     c [16, 8]   rows group and group + 8, columns 2 pair and 2 pair + 1
//
// so that two results side by side are an a as they lie. All 32 lanes must call what is here.
//
// Halves come from shared memory four 8 x 8 matrices at a time (9.7.15.5, "ldmatrix"): lanes 8 i to
// 8 i + 7 say where the rows of matrix i begin, 16 bytes each at multiples of 16, and every lane is
// given elements 2 pair and 2 pair + 1 of row `group` of each, or, of a matrix that is transposed
// on the way, of column `group`.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "tensor/cuda/launch.h"

namespace graft::cuda {

struct TileA {
  std::uint32_t r[4];  // two halves each; (row, column) blocks: (0, 0), (8, 0), (0, 8), (8, 8)
};
struct TileB {
  std::uint32_t r[2];
};
struct TileSum {
  float c[4];  // row group: c[0], c[1]; row group + 8: c[2], c[3]
};

__device__ inline int lane_group() { return static_cast<int>(threadIdx.x % kWarp) / 4; }
__device__ inline int lane_pair() { return static_cast<int>(threadIdx.x % kWarp) % 4; }

// A place in shared memory, counted in bytes.
#ifdef GRAFT_CUDA_EMULATED
using SharedPlace = const std::byte*;
__device__ inline SharedPlace shared_place(const void* at) {
  return static_cast<const std::byte*>(at);
}
#else
using SharedPlace = std::uint32_t;
__device__ inline SharedPlace shared_place(const void* at) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(at));
}
#endif

// Two numbers as halves, the first in the lower bits.
template <class T>
__device__ std::uint32_t two_of(float low, float high) {
#ifdef GRAFT_CUDA_EMULATED
  return T(low).bits | std::uint32_t{T(high).bits} << 16;
#else
  std::uint32_t both;
  if constexpr (std::is_same_v<T, BF16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#endif
}

// Which row of four matrices a lane names, in bytes from the first of 16 rows, which are `step`
// halves apart: of the blocks (0, 0), (8, 0), (0, 8), (8, 8) in this order, or of the second before
// the third.
__device__ inline int lane_row(int step) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  return 2 * (lane % 16 * step + lane / 16 * 8);
}
__device__ inline int lane_row_turned(int step) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  return 2 * ((lane % 8 + lane / 16 * 8) * step + lane / 8 % 2 * 8);
}

template <bool transposed>
__device__ void load_matrices(std::uint32_t (&r)[4], SharedPlace row) {
#ifdef GRAFT_CUDA_EMULATED
  emulation::ldmatrix<transposed>(r, row);
#else
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
#endif
}

// a = rows [0, 16) and columns [0, 16), of which this lane's lane_row() begins at `row`.
__device__ inline TileA tile_a(SharedPlace row) {
  TileA a;
  load_matrices<false>(a.r, row);
  return a;
}
// b[i] = the transpose of rows [8 i, 8 i + 8) and columns [0, 16); `row` is lane_row_turned()'s.
struct TwoTilesB {
  TileB b[2];
};
__device__ inline TwoTilesB tiles_b_turned(SharedPlace row) {
  std::uint32_t r[4];
  load_matrices<false>(r, row);
  return {{{{r[0], r[1]}}, {{r[2], r[3]}}}};
}
// b[i] = rows [0, 16) and columns [8 i, 8 i + 8); `row` is lane_row()'s.
__device__ inline TwoTilesB tiles_b(SharedPlace row) {
  std::uint32_t r[4];
  load_matrices<true>(r, row);
  return {{{{r[0], r[1]}}, {{r[2], r[3]}}}};
}
// a = two sums side by side, rounded.
template <class T>
__device__ TileA tile_a(const TileSum& left, const TileSum& right) {
  return {two_of<T>(left.c[0], left.c[1]), two_of<T>(left.c[2], left.c[3]),
          two_of<T>(right.c[0], right.c[1]), two_of<T>(right.c[2], right.c[3])};
}

// c += a b.
template <class T>
__device__ void multiply(TileSum& c, const TileA& a, const TileB& b) {
#ifdef GRAFT_CUDA_EMULATED
  const auto as = emulation::of_warp(a);
  const auto bs = emulation::of_warp(b);
  const auto half = [](std::uint32_t both, int which) {
    T x;
    x.bits = static_cast<std::uint16_t>(both >> 16 * which);
    return static_cast<float>(x);
  };
  float left[2][16], right[16][2];  // this lane's rows of a, and columns of b
  for (int k = 0; k < 16; ++k)
    for (int which = 0; which < 2; ++which) {
      const TileA& x = as[lane_group() * 4 + k % 8 / 2];
      const TileB& y = bs[(2 * lane_pair() + which) * 4 + k % 8 / 2];
      left[which][k] = half(x.r[which + 2 * (k / 8)], k % 2);
      right[k][which] = half(y.r[k / 8], k % 2);
    }
  for (int e = 0; e < 4; ++e)
    for (int k = 0; k < 16; ++k) c.c[e] += left[e / 2][k] * right[k][e % 2];
#else
#define GRAFT_MMA(type)                                                      \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(c.c[0]), "+f"(c.c[1]), "+f"(c.c[2]), "+f"(c.c[3])               \
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]))
  if constexpr (std::is_same_v<T, BF16>)
    GRAFT_MMA("bf16");
  else
    GRAFT_MMA("f16");
#undef GRAFT_MMA
#endif
}

// 2^x: what is below 2^-126 is 0, and the rest wrong by two units in the last place or so
// (9.7.3, "ex2.approx.ftz.f32"). Infinities and NaN give what the exact function gives.
__device__ inline float power_of_two(float x) {
#ifdef GRAFT_CUDA_EMULATED
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.f : y;
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// Copies 16 or 4 bytes to shared memory, or writes zeros where they are not there, while the thread
// goes on ("cp.async", 9.7.9). Both places are aligned to as many bytes; nothing that is not there
// is read, but `from` must be an address of something.
template <int bytes>
__device__ void copy_meanwhile(void* to, const void* from, bool there) {
#ifdef GRAFT_CUDA_EMULATED
  emulation::copy_meanwhile(to, from, bytes, there ? bytes : 0);
#else
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_place(to)), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_place(to)), "l"(from),
                 "n"(bytes), "r"(there ? bytes : 0)
                 : "memory");
#endif
}
// Waits for all copies that this thread has begun; others see them after the next barrier.
__device__ inline void wait_for_copies() {
#ifdef GRAFT_CUDA_EMULATED
  emulation::wait_for_copies();
#else
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

}  // namespace graft::cuda
