// The factors of dropout by address, many at a time: what a value is multiplied by, 0 or
// 1 / (1 - p).
#pragma once

#include <algorithm>
#include <cstdint>

#include "tensor/philox.h"

namespace graft::cpu {

constexpr int kCounters = 16;                     // drawn side by side
constexpr std::int64_t kFactors = 4 * kCounters;  // which give so many numbers

// philox() of kCounters counters, in a form that vectorises: word w of counter l is c[w][l]. The
// tests hold it against philox() itself.
[[gnu::always_inline]] inline void philox_lanes(std::uint32_t (&c)[4][kCounters], Key key) {
  std::uint32_t k0 = key.seed, k1 = key.step;
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int l = 0; l < kCounters; ++l) {
      const std::uint32_t x0 = c[0][l], x2 = c[2][l];
      const std::uint32_t high0 = static_cast<std::uint32_t>(std::uint64_t{0xD2511F53u} * x0 >> 32);
      const std::uint32_t high1 = static_cast<std::uint32_t>(std::uint64_t{0xCD9E8D57u} * x2 >> 32);
      c[0][l] = high1 ^ c[1][l] ^ k0;
      c[2][l] = high0 ^ c[3][l] ^ k1;
      c[1][l] = 0xCD9E8D57u * x2;
      c[3][l] = 0xD2511F53u * x0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// Where a row's draws lie: channel c at address(stream, example, position, c / 4)[c % 4].
struct DropoutRow {
  Stream stream;
  std::uint32_t example, position;
  float p;
};

// kFactors factors, each 0 or `scale`; block(l) is the number of the l-th block of four channels.
template <class T, class Block>
void draw_factors(T* factor, T scale, const DropoutRow& row, const Block& block) {
  std::uint32_t bits[4][kCounters];
  for (int l = 0; l < kCounters; ++l) {
    const Counter at = address(row.stream.id, row.example, row.position, block(l));
    for (int w = 0; w < 4; ++w) bits[w][l] = at[w];
  }
  philox_lanes(bits, row.stream.key);
#pragma omp simd
  for (int l = 0; l < kCounters; ++l)
    for (int w = 0; w < 4; ++w) factor[4 * l + w] = uniform(bits[w][l]) >= row.p ? scale : T{0};
}

}  // namespace graft::cpu
