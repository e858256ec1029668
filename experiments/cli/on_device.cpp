#include "experiments/cli/on_device.h"

#include "experiments/runs/run_parts.h"

namespace graft::cli {

void add_computing(const Command& command, Computing& c) {
  command.add_option("--device", c.device, kDeviceHelp).capture_default_str();
  command.add_option("--compute", c.compute, "f32, or on a device f16 or bf16")
      .capture_default_str();
}

Device device_of(const Computing& c) {
  const Dtype compute = compute_named(c.compute);
  const Device device = device_named(c.device);
  check(!is_half(compute) || device != Device::cpu,
        "compute {}: the host computes in f32 alone; give a --device", c.compute);
  return device;
}

std::unique_ptr<HalfPrecision> in_half(Model& model, const Computing& c, const Parameters& except) {
  const Dtype compute = compute_named(c.compute);
  return is_half(compute) ? std::make_unique<HalfPrecision>(model, compute, except) : nullptr;
}

}  // namespace graft::cli
