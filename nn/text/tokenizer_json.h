// tokenizer.json, the one-file format of Hugging Face's tokenizers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nn/text/decoder.h"
#include "nn/text/model.h"
#include "nn/text/normalizer.h"
#include "nn/text/post_processor.h"
#include "nn/text/pre_tokenizer.h"
#include "nn/text/special_tokens.h"

namespace graft {

// What a tokenizer is put together from; a function that is empty changes nothing.
struct TokenizerFile {
  std::vector<SpecialToken> specials;  // added_tokens
  Normalizer normalizer;
  PreTokenizer cut;
  bool byte_level = false;
  std::shared_ptr<const WordModel> model;
  Vocabulary tokens;  // special ones included, as the file spells them
  PostProcessor post;
  Decoder decoder;  // empty: tokens are joined by spaces
};

// Reads the text of a tokenizer.json. Throws Error with `name` and the key for any component,
// option or key that this version does not follow, a key given twice, and ids out of range.
TokenizerFile read_tokenizer_json(const std::string& name, std::string_view text);

}  // namespace graft
