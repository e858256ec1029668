#include "experiments/cli/on_device.h"

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

}  // namespace graft::cli
