#include "experiments/cli/on_device.h"

namespace graft::cli {

void add_computing(const Command& command, Computing& c) {
  command.add_option("--device", c.device, kDeviceHelp).capture_default_str();
  command.add_option("--compute", c.compute, kComputeHelp).capture_default_str();
}

}  // namespace graft::cli
