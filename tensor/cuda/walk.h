// Where the elements of three arrays lie that are broadcast to the first one's shape.
#pragma once

#include "tensor/cuda/launch.h"

namespace graft::cuda {

struct Offsets {
  std::int64_t y = 0, a = 0, b = 0;
};

struct Walk {
  static constexpr int kMaxDims = 6;
  struct Axis {
    std::int64_t size = 1, y = 0, a = 0, b = 0;
  };
  Axis axis[kMaxDims];
  std::int32_t n = 0;       // axes in use
  std::int32_t narrow = 0;  // whether there are fewer than 2^31 elements

  // Of element i in row-major order.
  __host__ __device__ Offsets at(std::int64_t i) const {
    if (n == 1) return {i * axis[0].y, i * axis[0].a, i * axis[0].b};
    Offsets o;
    if (narrow) {  // a division of 64 bits takes some 70 instructions, one of 32 bits 20
      auto rest = static_cast<std::uint32_t>(i);
      for (int d = n - 1; d >= 0; --d) {
        const auto size = static_cast<std::uint32_t>(axis[d].size);
        const std::uint32_t next = d > 0 ? rest / size : 0;  // the first axis has what is left
        const std::int64_t at = rest - next * size;
        rest = next;
        o.y += at * axis[d].y, o.a += at * axis[d].a, o.b += at * axis[d].b;
      }
      return o;
    }
    for (int d = n - 1; d >= 0; --d) {
      const std::int64_t at = i % axis[d].size;
      i /= axis[d].size;
      o.y += at * axis[d].y, o.a += at * axis[d].a, o.b += at * axis[d].b;
    }
    return o;
  }
};

// Axes along which all three run on are merged.
inline Walk walk_of(const char* where, const Array& y, const Array& a, const Array& b) {
  const auto step = [](const Array& x, int from_end) -> std::int64_t {
    const int at = x.ndim() - from_end;
    return at < 0 || x.shape()[at] == 1 ? 0 : x.strides()[at];
  };
  Walk walk;
  walk.narrow = y.numel() <= 0x7fffffff;
  for (int d = 0; d < y.ndim(); ++d) {
    const int from_end = y.ndim() - d;
    const Walk::Axis next{y.shape()[d], y.strides()[d], step(a, from_end), step(b, from_end)};
    if (next.size == 1) continue;
    if (walk.n > 0) {
      Walk::Axis& last = walk.axis[walk.n - 1];
      if (last.y == next.y * next.size && last.a == next.a * next.size &&
          last.b == next.b * next.size) {
        last = {last.size * next.size, next.y, next.a, next.b};
        continue;
      }
    }
    check(walk.n < Walk::kMaxDims, "{}: {} has more than {} dimensions that cannot be merged",
          where, y.shape(), Walk::kMaxDims);
    walk.axis[walk.n++] = next;
  }
  if (walk.n == 0) walk.axis[walk.n++] = {1, 1, 1, 1};
  return walk;
}

}  // namespace graft::cuda
