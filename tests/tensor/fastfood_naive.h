// Fastfood as it is written, in f64: plain loops over whole vectors of L numbers.
#pragma once

#include <vector>

#include "tensor/fastfood.h"

namespace graft::testing {

// x[n], n a power of two, times the Walsh-Hadamard matrix, as the definition doubles it.
inline void plain_hadamard(std::vector<double>& x) {
  for (std::size_t stride = 1; stride < x.size(); stride *= 2)
    for (std::size_t i = 0; i < x.size(); ++i)
      if ((i & stride) == 0) {
        const double a = x[i], b = x[i + stride];
        x[i] = a + b, x[i + stride] = a - b;
      }
}

// scale trunc(H G Pi H B pad(x)); the permutation's places are known mod K, from where on H B
// pad(x) repeats.
inline std::vector<double> plain_fastfood(const std::vector<double>& x, const Fastfood& p) {
  std::vector<double> u(static_cast<std::size_t>(p.length)), z(u.size());
  for (std::size_t i = 0; i < x.size(); ++i) u[i] = x[i] * p.sign.at(std::int64_t(i));
  plain_hadamard(u);
  const std::int32_t* place = p.place.data<std::int32_t>();
  const float* gaussian = p.gaussian.data<float>();
  for (std::size_t i = 0; i < z.size(); ++i)
    z[i] = p.scale * double{gaussian[i]} * u[static_cast<std::size_t>(place[i])];
  plain_hadamard(z);
  z.resize(static_cast<std::size_t>(p.out));
  return z;
}

}  // namespace graft::testing
