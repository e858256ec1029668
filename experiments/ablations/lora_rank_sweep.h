// How much rank does a low-rank update need? (Hu et al. 2021, tables 6 and 18.)
#pragma once

#include "experiments/ablations/experiment.h"

namespace graft {

Experiment lora_rank_sweep();

}  // namespace graft
