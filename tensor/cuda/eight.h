// Halves eight at a time: 16 bytes, the most that one load or store of a thread moves. One at a
// time a kernel issues more instructions than memory can be kept busy with.
//
// What is computed with them may be quick: f16 keeps 11 bits of a result and bf16 8, and the
// device's approximations of 1/x, e^x and 1/sqrt(x) are good to some 20 (CUDA C++ Programming
// Guide, "Intrinsic Functions"; e^x to 16 where |x| is near 88). f32 and f64 never come here.
#pragma once

#include "tensor/cuda/mma.h"
#include "tensor/vmath.h"

namespace graft::cuda {

template <class T>
inline constexpr bool half_type = std::is_same_v<T, F16> || std::is_same_v<T, BF16>;

struct Eight {
  float x[8];
};
struct alignas(16) Sixteen {  // bytes
  std::uint32_t word[4];
};

// Whether all of these begin at a multiple of 16 bytes; what is not there does.
template <class... T>
bool at_sixteen(const T*... at) {
  return ((reinterpret_cast<std::uintptr_t>(at) % 16 == 0) && ...);
}

template <class T>
__device__ Eight load_eight(const T* at) {
  static_assert(half_type<T>);
  Eight all;
#ifdef GRAFT_CUDA_EMULATED
  check(at_sixteen(at), "eight halves are read where 16 bytes do not begin");
  for (int i = 0; i < 8; ++i) all.x[i] = at[i];
#else
  const Sixteen bits = *reinterpret_cast<const Sixteen*>(at);
  GRAFT_UNROLL
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, BF16>) {
      all.x[2 * i] = __uint_as_float(bits.word[i] << 16);
      all.x[2 * i + 1] = __uint_as_float(bits.word[i] & 0xffff0000u);
    } else {
      asm("{.reg .b16 low, high; mov.b32 {low, high}, %2;"
          "cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
          : "=f"(all.x[2 * i]), "=f"(all.x[2 * i + 1])
          : "r"(bits.word[i]));
    }
  }
#endif
  return all;
}

template <class T>
__device__ void store_eight(T* at, const Eight& all) {
  static_assert(half_type<T>);
#ifdef GRAFT_CUDA_EMULATED
  check(at_sixteen(at), "eight halves are written where 16 bytes do not begin");
  for (int i = 0; i < 8; ++i) at[i] = T(all.x[i]);
#else
  Sixteen bits;
  GRAFT_UNROLL
  for (int i = 0; i < 4; ++i) bits.word[i] = two_of<T>(all.x[2 * i], all.x[2 * i + 1]);
  *reinterpret_cast<Sixteen*>(at) = bits;
#endif
}

// Eight numbers that are none: 32 bytes.
__device__ inline Eight load_floats(const float* at) {
  Eight all;
#ifdef GRAFT_CUDA_EMULATED
  check(at_sixteen(at), "eight numbers are read where 16 bytes do not begin");
  std::memcpy(all.x, at, sizeof all);
#else
  const float4 low = *reinterpret_cast<const float4*>(at),
               high = *reinterpret_cast<const float4*>(at + 4);
  all = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#endif
  return all;
}

__device__ inline float quick_ratio(float a, float b) {
#ifdef GRAFT_CUDA_EMULATED
  return a / b;
#else
  return __fdividef(a, b);
#endif
}
__device__ inline float quick_exp(float x) {
#ifdef GRAFT_CUDA_EMULATED
  return vmath::exp(x);
#else
  return __expf(x);
#endif
}
__device__ inline float quick_rsqrt(float x) {
#ifdef GRAFT_CUDA_EMULATED
  return 1 / std::sqrt(x);
#else
  return rsqrtf(x);
#endif
}
// 1 / (1 + e^-x). Where e^-x is more than 2^126 a quick ratio is 0, and so is a half.
__device__ inline float quick_logistic(float x) { return quick_ratio(1, 1 + quick_exp(-x)); }

}  // namespace graft::cuda
