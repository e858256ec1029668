// The language-modelling half of the rank sweep (Hu et al. 2021, table 18): test loss against rank.
// It is on where the set-up has a causal base and a language task.
#pragma once

#include "experiments/ablations/experiment.h"

namespace graft {

// Label of the arm that stands for LoRA, as Experiment::language_subject.
std::string language_subject();
std::vector<PlannedArm> language_arms(const Setup&, const std::string& task);
std::vector<Statement> language_claims(const std::string& task);
void language_figure(Page&, const View&, const std::string& task,
                     const std::filesystem::path& stem);
// Why this half is off in a set-up without a language task, and what the paper has there.
std::string language_is_off(const Setup&);

}  // namespace graft
