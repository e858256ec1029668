// Rows of a method's own among a text's: what prompts do to an embedding's Sequence.
#pragma once

#include <vector>

#include "nn/model.h"
#include "peft/spec.h"

namespace graft {

// `count` rows before row `at` of a sequence, or after its last where `at` is its length.
struct Gap {
  int at = 0, count = 0;
};

// s with rows of `rows` [n, D] put in: gaps[i] are those of sequence i, in ascending order, and
// take 0, 1, 2, ... of `rows` in turn, alike in every sequence. A row that is put in has the
// position of the row that it stands before (or one more than the last); all that follow move up.
// It is virtual, with `source` < 0: no label stands there, and heads read over it unless that is
// kPooledRow. ctx must have the batch, for the examples' numbers.
Sequence with_rows(Sequence s, const Tensor& rows, const std::vector<std::vector<Gap>>& gaps,
                   std::int32_t source, const Ctx& ctx);

// The stacks whose texts get rows: the only one, or an encoder-decoder's by `in=` (encoder, which
// reads, is the standard; decoder; both).
std::vector<Stack> stacks_of(Options&, const Arch&, const std::string& standard = "encoder");
Model& model_of(Model&, Stack);

// `tokens=12-40.41-7`: one row for each, ids joined by a dot are averaged. Empty if not given.
// Throws for what is no such list or not in the vocabulary.
std::vector<std::vector<std::int32_t>> tokens_of(Options&, const Arch&);

}  // namespace graft
