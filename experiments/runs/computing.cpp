#include "experiments/runs/computing.h"

namespace graft {

Dtype compute_named(const std::string& compute) {
  for (const Dtype d : {Dtype::f32, Dtype::f16, Dtype::bf16})
    if (compute == name(d)) return d;
  fail("compute {}: there are f32, f16 and bf16", compute);
}

Device device_of(const Computing& c) {
  const Dtype compute = compute_named(c.compute);
  const Device device = device_named(c.device);
  check(!is_half(compute) || device != Device::cpu,
        "compute {}: the host computes in f32 alone; give a --device", c.compute);
  return device;
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
