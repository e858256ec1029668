#include "experiments/runs/computing.h"

namespace graft {

Dtype compute_named(const std::string& compute) {
  for (const Dtype d : {Dtype::f32, Dtype::f16, Dtype::bf16})
    if (compute == name(d)) return d;
  fail("compute {}: there are f32, f16 and bf16", compute);
}

void check_compute(const Computing& c) {
  check(!is_half(compute_named(c.compute)) || c.device != "cpu",
        "compute {}: the host computes in f32 alone; give a --device", c.compute);
}

Device device_of(const Computing& c) {
  check_compute(c);
  return device_named(c.device);
}

std::unique_ptr<HalfPrecision> computing_in(Model& model, const std::string& compute,
                                            const Parameters& except) {
  const Dtype dtype = compute_named(compute);
  if (!is_half(dtype)) return nullptr;
  auto half = std::make_unique<HalfPrecision>(model, dtype, except);
  pool::reset_peak();  // what the device held before is not what the run needs
  return half;
}

}  // namespace graft
