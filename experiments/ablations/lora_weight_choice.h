// Which matrices should share a fixed budget of parameters? (Hu et al. 2021, table 5.)
#pragma once

#include "experiments/ablations/experiment.h"

namespace graft {

Experiment lora_weight_choice();

}  // namespace graft
