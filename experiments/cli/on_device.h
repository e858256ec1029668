// Where a command's model reads, and in what type: the options of commands that train nothing.
#pragma once

#include <memory>
#include <string>

#include "experiments/cli/command.h"
#include "nn/half_precision.h"

namespace graft::cli {

struct Computing {
  std::string device = "cpu", compute = "f32";
};

// --device and --compute.
void add_computing(const Command&, Computing&);
// The device. Throws for what there is not, before anything is read.
Device device_of(const Computing&);
// When all is attached and loaded: half precision, while it lives, or nothing. `except` are
// parameters that stay as they are, an adapter's own.
std::unique_ptr<HalfPrecision> in_half(Model&, const Computing&, const Parameters& except = {});

}  // namespace graft::cli
