// Texts as vectors: what a model makes of each, pooled to one row.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "nn/model.h"
#include "nn/text/tokenizer.h"

namespace graft {

struct EmbedSpec {
  Pool pool = Pool::mean;
  bool normalised = false;  // each row divided by its length, as sentence-transformers does
  int max_tokens = 0;       // longer texts lose their ends; 0: only those beyond the model's places
  int batch = 32;           // texts per pass; makes no difference to the result
  std::function<void(std::size_t done)> progress{};  // called after each pass
};

struct Embedded {
  Array rows;   // f32 [texts, D]
  int cut = 0;  // texts that lost their ends
};

// The rows that are pooled are the last block's, after the final norm; of an encoder-decoder the
// encoder's. Texts get the special tokens that the tokenizer's file puts around one, also when
// they are cut. Throws naming the text that has no token at all.
Embedded embed_texts(const Model&, const Tokenizer&, std::span<const std::string> texts,
                     const EmbedSpec&);

}  // namespace graft
