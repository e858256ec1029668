// Where a command's model reads, and in what type: the options of commands that train nothing.
#pragma once

#include <string>

#include "experiments/cli/command.h"
#include "experiments/runs/run_parts.h"

namespace graft::cli {

struct Computing {
  std::string device = "cpu", compute = "f32";
};

// --device and --compute.
void add_computing(const Command&, Computing&);
// The device. Throws for what there is not, before anything is read. When all is attached and
// loaded computing_in() follows.
Device device_of(const Computing&);

}  // namespace graft::cli
