// What the tests of the device share: whether there is one, and how far numbers are apart.
#pragma once

#include <doctest/doctest.h>

#include <cmath>

#include "tensor/cuda/runtime.h"
#include "tensor/kernels.h"

namespace graft::testing {

// Whether the device's tests can run; where they cannot, says so as tests/main.cpp asks.
inline bool device_is_there() {
  const std::string why = cuda::unusable();
  if (!why.empty()) MESSAGE("SKIPPED: " << why);
  return why.empty();
}

// The largest difference, as a part of the largest number or of 1; infinite for NaN on one side.
inline double apart(const Array& got, const Array& want) {
  const std::vector<double> a = got.to_vector(), b = want.to_vector();
  if (a.size() != b.size()) return INFINITY;
  double most = 1, worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) != std::isnan(b[i])) return INFINITY;
    if (std::isnan(a[i]) || a[i] == b[i]) continue;  // equal infinities
    most = std::max(most, std::abs(b[i]));
    worst = std::max(worst, std::abs(a[i] - b[i]));
  }
  return worst / most;
}

}  // namespace graft::testing
