// What a loss in f16 is multiplied by on its way back, so that small gradients are not rounded to 0
// (Micikevicius et al. 2018, section 3.2): below 6e-8 f16 has none; bf16 and f32 go below 1e-38.
#pragma once

#include <algorithm>

#include "tensor/array.h"

namespace graft {

// A power of two: halved where a gradient is too large for f16, and the step is then taken again;
// doubled after so many steps without, as PyTorch's GradScaler does.
struct LossScale {
  bool on = false;
  double value = 1;
  int steps = 0;  // since it last changed
  static constexpr double kFirst = 0x1p15, kMost = 0x1p24;
  static constexpr int kSteps = 2000;

  static LossScale of(Dtype computing) {
    LossScale scale;
    if (computing == Dtype::f16) scale.on = true, scale.value = kFirst;
    return scale;
  }
  // False where that is not why a gradient is not finite.
  bool lower() {
    if (value <= 1) return false;
    value /= 2, steps = 0;
    return true;
  }
  void step_done() {
    if (on && ++steps == kSteps) value = std::min(2 * value, kMost), steps = 0;
  }
};

}  // namespace graft
