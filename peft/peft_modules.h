// The modules of a Hugging Face model that PEFT can wrap, and the linears of ours that they are.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "nn/modules.h"

namespace graft {

struct PeftModule {
  struct Piece {
    Site site;
    int rows;  // of the module's output
  };
  std::string name;  // "bert.encoder.layer.0.attention.self.query"
  int in = 0, out = 0;
  std::vector<Piece> pieces;  // one; GPT-2's c_attn is q, k and v
};

// Every linear of the blocks, in the model's order.
std::vector<PeftModule> peft_modules(const Arch&);

// Every norm, those outside the blocks, too.
std::vector<PeftModule> peft_norms(const Arch&);

// Whether PEFT finds a module by an entry of target_modules: its whole name, or the end of it from
// a dot on.
bool is_target(const std::string& module, const std::string& target);

// The shortest target_modules by which PEFT finds these modules and no other one of the family's
// model; their whole names where no shorter ones do.
std::vector<std::string> targets_for(const Arch&, const std::set<std::string>& modules);

}  // namespace graft
