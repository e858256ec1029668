// Fastfood: a random projection R^d -> R^D that is never stored as a matrix (Le, Sarlos and Smola
// 2013, "Fastfood: approximating kernel expansions in loglinear time").
#pragma once

#include "tensor/array.h"
#include "tensor/philox.h"

namespace graft {

// P x = scale trunc_D(H G Pi H B pad(x)), of L = 2^k >= max(d, D) numbers: B random signs, H the
// Walsh-Hadamard matrix (entries +-1), Pi a permutation, G a standard normal diagonal.
//
// pad(x) ends in zeros from K = 2^ceil(log2 d) on, so the inner product repeats every K numbers: it
// is made once, and of the permutation only its places mod K are needed.
struct Fastfood {
  std::int64_t in = 0, out = 0;  // d, D
  std::int64_t inner = 0;        // K
  std::int64_t length = 0;       // L
  double scale = 1;
  Array sign;      // i32 [d]: +1 or -1
  Array place;     // i32 [L]: Pi mod K
  Array gaussian;  // f32 [L]
};

// The same for the same (d, D, key, stream), whatever was drawn before. `scale` is such that
// E |P x|^2 = norm^2 |x|^2 over B and Pi: norm / sqrt(D sum G^2).
Fastfood draw_fastfood(std::int64_t in, std::int64_t out, double norm, Key, std::uint32_t stream);

}  // namespace graft
