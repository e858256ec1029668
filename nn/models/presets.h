// Models by name: the shapes of published models, and of this project's own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nn/modules.h"

namespace graft {

// Throws Error for a name that is not among them, listing those that are.
//
// What Model(arch).parameters() counts is what transformers' language model has, each tensor once:
// BERT and RoBERTa with the head over the vocabulary and without the pooler. gpt3-175b is GPT-2's
// architecture at that size, 174,604,259,328; the 175,255.8 M of Hu et al. 2021 cannot be
// derived from any published shape.
Arch arch_named(std::string_view name);
std::vector<std::string> arch_names();

// The same encoder without a head over the vocabulary. bert-base then has 108,891,648 parameters;
// with the pooler, a matrix and bias of 590,592, the 109,482,240 that papers call 110 M.
Arch without_lm_head(Arch arch);

}  // namespace graft
