// The options that say where a command's model computes.
#pragma once

#include "experiments/cli/command.h"
#include "experiments/runs/computing.h"

namespace graft::cli {

// --device and --compute.
void add_computing(const Command&, Computing&);

}  // namespace graft::cli
