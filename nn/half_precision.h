// Computing in half precision, on the device.
#pragma once

#include <utility>
#include <vector>

#include "nn/model.h"
#include "nn/optim/optimizer.h"

namespace graft {

// While it lives, the model computes in f16 or bf16: rows and their gradients are stored so, and so
// are its frozen parameters. Products are summed, functions computed and losses kept in f32, and
// what trains stays a master in f32 whose gradient is in f32 (Micikevicius et al. 2018, 1710.03740,
// section 3.1). Linear heads compute in f32.
//
// It comes after what copies parameters to train them is attached: such copies begin from the
// numbers as they were. `except`: parameters that stay as they are, such as an adapter's own. In
// the end the parameters are what they were, bit for bit; meanwhile those that were stored wider
// lie on the host, so that the device has the halves alone. So nothing is saved, merged or hashed
// while it lives. Must not outlive the model. Throws where the model does not lie on the device:
// the host has no such kernels.
class HalfPrecision {
 public:
  HalfPrecision(Model&, Dtype, const Parameters& except = {});
  ~HalfPrecision();
  HalfPrecision(const HalfPrecision&) = delete;
  HalfPrecision& operator=(const HalfPrecision&) = delete;

 private:
  void rows(Dtype);
  void restore();
  Model& model_;
  Dtype before_;
  std::vector<std::pair<Parameter*, Array>> kept_;
};

}  // namespace graft
