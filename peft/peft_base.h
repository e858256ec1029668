// The base's own tensors in folders of PEFT's: biases and modules that train whole.
#pragma once

#include "peft/peft_folder.h"

namespace graft {

// One tensor of the base as its family's files have it: a parameter of ours, or several that are
// pieces of it, as GPT-2's q, k and v.
struct PeftTensor {
  struct Piece {
    Site site;
    Shape shape;
  };
  std::string module, tensor;  // "transformer.h.0.attn.c_attn", "bias"
  std::string parameter;       // what it is called here
  bool transposed = false;
  std::vector<Piece> pieces;
  Part part() const { return pieces[0].site.part; }
};

// Every one, in the model's order.
std::vector<PeftTensor> peft_tensors(const Arch&);

// Whether a bias is among those that `bias=all` trains.
bool is_inner_bias(const PeftTensor&);

// Takes the tensor that a folder has under this name; a problem where it is missing or does not
// fit.
void take_base(PeftReading&, const PeftTensor&, const std::string& name);

// Writes under this name what the source has of it; false where it has nothing, and throws where it
// lacks a piece.
bool put_base(PeftWriting&, const PeftTensor&, const std::string& name);

// Takes the modules that `modules_to_save` names beside a head's. Returns the parts that they are.
std::set<Part> take_saved(PeftReading&, const std::vector<PeftTensor>&);

// Why a part cannot be trained whole in the same way there and here; "" where it can.
std::string no_save(const Arch&, Part, bool headed);

}  // namespace graft
