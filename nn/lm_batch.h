// Texts as a batch for language modelling.
#pragma once

#include <filesystem>

#include "nn/model.h"
#include "nn/text/tokenizer.h"

namespace graft {

// The texts of a file, one on each line that is not empty, as tokens with the model's end token
// behind them, and before them what the tokenizer begins a decoder's texts with. A text that has no
// room in the model's positions loses its end. Throws where the file cannot be read or has no text,
// where a line is not UTF-8 (naming it), and for a model without an end token.
std::vector<std::vector<std::int32_t>> read_texts(const std::filesystem::path& file,
                                                  const Tokenizer&, const Arch&);

// The texts first, first + 1, ... as one batch, `count` of them; behind the last comes the first
// again. Every token tells the next one. A text's random draws follow from its number. Throws where
// there is no text, or one of fewer than two tokens.
Batch lm_batch(const std::vector<std::vector<std::int32_t>>& texts, std::size_t first,
               std::size_t count);

}  // namespace graft
