// Is adapting this base worth anything? Full fine-tuning, LoRA and adapters against what needs no
// base, no training of the base, or no pretraining. The regime in which the ablations' claims mean
// something is measured here, on three tasks.
#pragma once

#include "experiments/ablations/experiment.h"

namespace graft {

Experiment method_comparison();

}  // namespace graft
