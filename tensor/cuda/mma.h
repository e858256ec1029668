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
#pragma once

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

// Two halves that lie side by side, at an even element of aligned memory.
template <class T>
__device__ std::uint32_t two(const T* at) {
#ifdef GRAFT_CUDA_EMULATED
  std::uint32_t both;
  std::memcpy(&both, at, sizeof both);
  return both;
#else
  return *reinterpret_cast<const std::uint32_t*>(at);
#endif
}

// Eight halves, from one place that is aligned to 16 bytes to another one.
template <class T>
__device__ void copy_eight(T* to, const T* from) {
#ifdef GRAFT_CUDA_EMULATED
  std::memcpy(to, from, 16);
#else
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
#endif
}

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

// a = rows [0, 16) and columns [0, 16) of what lies at `at`, whose rows are `step` apart.
template <class T>
__device__ TileA tile_a(const T* at, int step) {
  at += lane_group() * step + 2 * lane_pair();
  return {two(at), two(at + 8 * step), two(at + 8), two(at + 8 * step + 8)};
}
// b = the transpose of rows [0, 8) and columns [0, 16).
template <class T>
__device__ TileB tile_b_turned(const T* at, int step) {
  at += lane_group() * step + 2 * lane_pair();
  return {two(at), two(at + 8)};
}
// b = rows [0, 16) and columns [0, 8).
template <class T>
__device__ TileB tile_b(const T* at, int step) {
  at += 2 * lane_pair() * step + lane_group();
  const auto pair = [step](const T* x) { return x[0].bits | std::uint32_t{x[step].bits} << 16; };
  return {pair(at), pair(at + 8 * step)};
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
#define GRAFT_MMA(type)                                                               \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
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

}  // namespace graft::cuda
