// A byte-level BPE as data, as training makes it, and the tokenizer.json that says the same.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nn/text/special_tokens.h"

namespace graft {

// What defines a byte-level BPE tokenizer of GPT-2's kind.
struct BpeModel {
  std::vector<std::string> tokens;          // the bytes of each id
  std::vector<std::pair<int, int>> merges;  // ids (left, right), lowest rank first
  std::vector<SpecialToken> specials;       // content == tokens[id]
  bool add_prefix_space = false;  // a plain piece that does not start with a space is given one
  std::string post_processor;     // as JSON text; empty: made from [CLS] and [SEP] when saved
};

// As tokenizers 0.20 and later write it. Where the model names no post-processor and has [CLS] and
// [SEP], the file's is BERT's "[CLS] $A [SEP] $B:1 [SEP]:1". Throws Error where a byte has no
// token, two tokens are the same, or an id does not fit.
std::string tokenizer_json(const BpeModel& model);

// The model that the text of a tokenizer.json describes. Throws Error, beginning with `name`, for
// any other kind.
BpeModel bpe_model(const std::string& name, std::string_view tokenizer_json);

}  // namespace graft
