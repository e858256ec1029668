// The two 16-bit floats as their bits: f16 (IEEE binary16) and bf16 (the upper half of an f32).
// Narrowing rounds to nearest, ties to even; subnormals are kept, overflow gives infinity. A NaN
// stays a NaN of the same sign, made quiet, with the upper bits of its payload.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/error.h"

namespace graft {

constexpr std::uint16_t bf16_from_f32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

constexpr float f32_from_bf16(std::uint16_t h) {
  const auto bits = static_cast<std::uint32_t>(h) << 16;
  const bool nan = (h & 0x7fffu) > 0x7f80u;
  return std::bit_cast<float>(nan ? bits | 0x00400000u : bits);
}

constexpr std::uint16_t f16_from_f32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  std::uint32_t h = 0;
  if (size > 0x7f800000u) {  // NaN
    h = 0x7e00u | ((size >> 13) & 0x3ffu);
  } else if (size >= 0x477ff000u) {  // from 65520 on the nearest f16 is infinity
    h = 0x7c00u;
  } else if (size >= 0x38800000u) {  // from 2^-14 on: normal; the exponent's bias is 112 less
    const std::uint32_t rebased = size - (112u << 23);
    h = (rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13;
  } else if (size > 0x33000000u) {  // above 2^-25, half of the least subnormal
    const std::uint32_t mantissa = (size & 0x7fffffu) | 0x800000u;
    const std::uint32_t shift = 126u - (size >> 23);  // into units of 2^-24
    const std::uint32_t half = 1u << (shift - 1), rest = mantissa & (2u * half - 1u);
    h = mantissa >> shift;
    h += rest > half || (rest == half && (h & 1u));
  }
  return static_cast<std::uint16_t>(sign | h);
}

// Without branches, so that loops over it become vectors.
constexpr float f32_from_f16(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16, size = h & 0x7fffu;
  // The exponent's bias is 112 less. Subnormal numbers are made normal by the same product: exact.
  const float finite = std::bit_cast<float>(size << 13) * 0x1p112f;
  const std::uint32_t quiet = size > 0x7c00u ? 0x00400000u : 0u;
  const std::uint32_t other = 0x7f800000u | quiet | ((size & 0x3ffu) << 13);  // infinity or NaN
  return std::bit_cast<float>(sign |
                              (size >= 0x7c00u ? other : std::bit_cast<std::uint32_t>(finite)));
}

// The same as types: what an Array of halves holds.
struct F16 {
  std::uint16_t bits;
  F16() = default;
  explicit constexpr F16(float x) : bits(f16_from_f32(x)) {}
  constexpr operator float() const { return f32_from_f16(bits); }
};
struct BF16 {
  std::uint16_t bits;
  BF16() = default;
  explicit constexpr BF16(float x) : bits(bf16_from_f32(x)) {}
  constexpr operator float() const { return f32_from_bf16(bits); }
};

namespace half_detail {
template <class To, class From, class F>
void convert(std::span<const From> from, std::span<To> to, F f) {
  check(from.size() == to.size(), "half: {} values given, room for {}; need as many", from.size(),
        to.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = f(from[i]);
}
}  // namespace half_detail

// The same for spans of equal length. Throws Error when the lengths differ.
inline void bf16_from_f32(std::span<const float> from, std::span<std::uint16_t> to) {
  half_detail::convert(from, to, [](float x) { return bf16_from_f32(x); });
}
inline void f32_from_bf16(std::span<const std::uint16_t> from, std::span<float> to) {
  half_detail::convert(from, to, [](std::uint16_t h) { return f32_from_bf16(h); });
}
inline void f16_from_f32(std::span<const float> from, std::span<std::uint16_t> to) {
  half_detail::convert(from, to, [](float x) { return f16_from_f32(x); });
}
inline void f32_from_f16(std::span<const std::uint16_t> from, std::span<float> to) {
  half_detail::convert(from, to, [](std::uint16_t h) { return f32_from_f16(h); });
}

}  // namespace graft
