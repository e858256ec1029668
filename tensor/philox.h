// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): random bits
// that are addressed, not consumed. The same address gives the same bits on any device, with any
// number of threads, whatever was drawn before.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace graft {

struct Key {
  std::uint32_t seed = 0, step = 0;
};

using Counter = std::array<std::uint32_t, 4>;

constexpr Counter philox(Counter c, Key key) {
  std::uint32_t k0 = key.seed, k1 = key.step;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// In [0, 1): the upper 24 bits, so that every value is exact in f32 and the mean is 1/2 - 2^-25.
constexpr float uniform(std::uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// What a draw is for: `stream` names the place (a hash of site and name), `use` the draw there.
// A value is then addressed by (example, position, channel), see address().
struct Stream {
  Key key;
  std::uint32_t id = 0;
};

// The counter of channel block `c4` (four channels each) of one token of one example.
constexpr Counter address(std::uint32_t stream, std::uint32_t example, std::uint32_t position,
                          std::uint32_t c4) {
  return {c4, position, example, stream};
}

// FNV-1a, 32 bits: how the name of a place becomes a stream.
constexpr std::uint32_t stream_id(const char* text, std::uint32_t h = 2166136261u) {
  for (; *text; ++text) h = (h ^ static_cast<unsigned char>(*text)) * 16777619u;
  return h;
}

// Element i of a stream as a standard normal number (Box-Muller in f64, drawn on the host only).
inline double normal(Key key, std::uint32_t stream, std::uint64_t i) {
  const Counter r = philox(
      {static_cast<std::uint32_t>(i / 2), static_cast<std::uint32_t>(i / 2 >> 32), 0, stream}, key);
  const double u = ((std::uint64_t{r[0]} << 21 ^ r[1] >> 11) + 0.5) * 0x1p-53;
  const double v = (std::uint64_t{r[2]} << 21 ^ r[3] >> 11) * 0x1p-53;
  const double radius = std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi * v;
  return i % 2 ? radius * std::sin(angle) : radius * std::cos(angle);
}

// Element i of a stream, uniform in [0, 1) with 53 bits.
inline double uniform(Key key, std::uint32_t stream, std::uint64_t i) {
  const Counter r =
      philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), 1, stream}, key);
  return (std::uint64_t{r[0]} << 21 ^ r[1] >> 11) * 0x1p-53;
}

}  // namespace graft
