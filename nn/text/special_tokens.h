// Special tokens: strings such as [MASK] that are one token wherever they stand in a text, whatever
// the merges say.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/normalizer.h"
#include "nn/text/trie.h"

namespace graft {

// One of tokenizer.json's added_tokens.
struct SpecialToken {
  std::string content;
  int id = -1;
  bool special = true;       // left out by a decode that skips special tokens
  bool normalized = false;   // matched in the normalized text, where no token without this flag was
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool single_word = false;  // matched only where no letter, mark or digit touches it
};

// A stretch of a text: a special token, or plain text where id is -1.
struct Piece {
  std::string_view text;
  int id = -1;
};

// Cuts texts at special tokens: at the leftmost one, and at the longest of those that start there.
class SpecialSplitter {
 public:
  SpecialSplitter() = default;
  // A `normalized` token is looked for as the normalizer, if there is one, leaves it.
  explicit SpecialSplitter(std::vector<SpecialToken> tokens, const Normalizer& normalizer = {});

  // The pieces of a valid UTF-8 text in order; together they are the text. One pass looks for the
  // tokens with `normalized` or for those without.
  std::vector<Piece> split(std::string_view text, bool normalized) const;
  // Both passes, for texts that no normalizer changes.
  std::vector<Piece> split(std::string_view text) const;

 private:
  std::vector<SpecialToken> tokens_;
  std::array<Trie, 2> tries_;  // without and with `normalized`: indices into tokens_
};

}  // namespace graft
