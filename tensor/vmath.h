// exp, tanh and erf that the compiler can put into a vectorised loop (`#pragma omp simd`). In f32
// they are polynomials without branches, wrong by at most 2 units in the last place, with the same
// bits in a vector lane and in a scalar tail; in f64 they are the standard library's.
// Infinities, NaN and arguments far outside the range give what the exact function gives.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define GRAFT_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GRAFT_HOST_DEVICE [[gnu::always_inline]] inline
#endif

namespace graft::vmath {

// a b + c. Written as a call because the compiler may, but need not, fuse `a * b + c`, and may
// decide differently in the body and in the tail of one loop.
template <class T>
GRAFT_HOST_DEVICE T fma(T a, T b, T c) {
#if defined(__CUDA_ARCH__)
  return ::fma(a, b, c);
#elif defined(__FMA__) || defined(__aarch64__)
  if constexpr (sizeof(T) == sizeof(float))
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// e^x = 2^n e^r with n = round(x / ln 2), so |r| <= ln 2 / 2. 2^n is multiplied in two steps: for
// subnormal results it has no exponent of its own. Polynomials here are minimax fits.
GRAFT_HOST_DEVICE float exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves n in the low bits
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = fma(x, 1.44269504f, kRound);
  const float n = shifted - kRound;
  float r = fma(n, -0.693145752f, x);
  r = fma(n, -1.42860677e-6f, r);
  float p = 1.979030288e-4f;
  p = fma(p, r, 1.394470421e-3f);
  p = fma(p, r, 8.333497336e-3f);
  p = fma(p, r, 4.166629435e-2f);
  p = fma(p, r, 1.666666587e-1f);
  p = fma(p, r, 5.000000068e-1f);
  p = fma(p * r, r, r) + 1.0f;
  const std::int32_t bits = std::bit_cast<std::int32_t>(shifted) - 0x4B400000;
  const std::int32_t half = bits >> 1;
  const auto power = [](std::int32_t e) {
    return std::bit_cast<float>((static_cast<std::uint32_t>(e) + 127u) << 23);
  };
  return p * power(half) * power(bits - half);
}
GRAFT_HOST_DEVICE double exp(double x) { return ::exp(x); }

GRAFT_HOST_DEVICE float tanh(float x) {
  const float t = __builtin_fabsf(x), s = x * x;
  float p = -5.439443509e-3f;
  p = fma(p, s, 2.039796893e-2f);
  p = fma(p, s, -5.366505066e-2f);
  p = fma(p, s, 1.333054350e-1f);
  p = fma(p, s, -3.333324893e-1f);
  const float small = fma(p * s, t, t);
  const float large = 1.0f - 2.0f / (vmath::exp(2.0f * t) + 1.0f);
  return __builtin_copysignf(t < 0.625f ? small : large, x);
}
GRAFT_HOST_DEVICE double tanh(double x) { return ::tanh(x); }

// Below 0.92: x + x P(x^2). Above: 1 - exp(-t + t Q(t)); from 4 on the result rounds to 1.
GRAFT_HOST_DEVICE float erf(float x) {
  const float a = __builtin_fabsf(x), s = x * x;
  float p = -5.953739238e-4f;
  p = fma(p, s, 4.985940065e-3f);
  p = fma(p, s, -2.676171946e-2f);
  p = fma(p, s, 1.128168253e-1f);
  p = fma(p, s, -3.761248110e-1f);
  p = fma(p, s, 1.283791477e-1f);
  const float small = fma(p, a, a);
  const float t = a > 4.0f ? 4.0f : a;
  float q = -1.123146522e-5f;
  q = fma(q, t, 3.228053900e-4f);
  q = fma(q, t, -3.642465011e-3f);
  q = fma(q, t, 2.376207504e-2f);
  q = fma(q, t, -1.062368911e-1f);
  q = fma(q, t, -6.351513087e-1f);
  q = fma(q, t, -1.286484921e-1f);
  const float large = 1.0f - vmath::exp(fma(q, t, -t));
  return __builtin_copysignf(a < 0.92f ? small : large, x);
}
GRAFT_HOST_DEVICE double erf(double x) { return ::erf(x); }

}  // namespace graft::vmath
