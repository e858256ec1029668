// Where a model computes, and in what type.
#pragma once

#include <memory>
#include <string>

#include "nn/half_precision.h"

namespace graft {

struct Computing {
  std::string device = "cpu";   // or cuda
  std::string compute = "f32";  // or on a device bf16 or f16
  bool operator==(const Computing&) const = default;
};

Dtype compute_named(const std::string&);  // throws for others than f32, f16 and bf16
// Throws for a type that there is not, and for half precision on the host. Whether there is such a
// device here is not asked: a record of it may be read anywhere.
void check_compute(const Computing&);
// The device. Throws for what there is not, before anything is read. When all is attached and
// loaded, computing_in() follows.
Device device_of(const Computing&);

// From now on the model computes in that type, while the result lives: f32 (and there is none), f16
// or bf16. `except` stays as it is: what adapters hold (Adaptation::stored).
std::unique_ptr<HalfPrecision> computing_in(Model&, const std::string& compute,
                                            const Parameters& except = {});

}  // namespace graft
