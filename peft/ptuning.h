// What a spec of P-tuning says, and the rows that its prompt encoder gives: read by the method
// (ptuning.cpp) and by PEFT's folders (peft_prompts.cpp).
#pragma once

#include <functional>

#include "nn/parameter.h"
#include "peft/virtual_rows.h"

namespace graft {

// `3+m+3+t1+3+a`: numbers are virtual rows, what stands between them the text's tokens, in order.
struct Template {
  struct Piece {
    enum class Kind { rows, tokens, to_mask, first, rest } kind;
    int count = 0;  // of rows, and of tokens
  };
  Template(const std::string& text, const Arch&);
  int rows() const;
  bool at_start() const;  // rows, and then all of the text
  // Where the rows stand in sequence i, which begins at row `start`. Throws where the template asks
  // for what the text has not.
  std::vector<Gap> gaps(const Sequence&, std::size_t i, int start, const Ctx&) const;

  std::string text;
  std::vector<Piece> pieces;

 private:
  int to_the_mask(const Sequence&, int from, int end, const Ctx&) const;
  int first_text(const Sequence&, int from, int end, const Ctx&) const;
  int mask_, sep_;
};

struct PtuningOptions {
  PtuningOptions(Options&, const Arch&);

  std::vector<Stack> stacks;
  Template place;
  std::string encoder;  // lstm, mlp, mlp2, none
  int hidden;
  bool pooled;
};

// The prompt encoder's parameters: names, shapes and starts (of uniform ones the range), in order.
struct EncoderWeight {
  std::string name;
  Shape shape;
  Init init;
};
std::vector<EncoderWeight> encoder_weights(const PtuningOptions&, int width);
// The rows [n, d] for all stacks, one after another, of the parameters by name.
using ByName = std::function<Tensor(const std::string&)>;
Tensor encoded_rows(const PtuningOptions&, const ByName&);

}  // namespace graft
