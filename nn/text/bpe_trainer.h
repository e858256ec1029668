// Training a byte-level BPE vocabulary: join the most frequent pair of tokens, again and again.
//
// Sennrich et al. 2016 (1508.07909), Algorithm 1, with word counts and incremental pair counts.
// Deterministic: of pairs with the same count the one whose left bytes, then right bytes, are
// smaller comes first.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/tokenizer.h"

namespace graft {

struct BpeTraining {
  int vocab_size = 8192;  // with special tokens and the 256 bytes
  std::vector<std::string>
      specials;  // ids 0, 1, ... in this order; the byte b is id specials.size() + b
  bool add_prefix_space = false;
};

// Each text is cut as encode() cuts it, so special tokens written in it count as no word. Only
// pairs seen twice are joined: a short text may give a vocabulary smaller than asked for. Throws
// Error for text that is not UTF-8, a special token that is empty, there twice, or one character
// that already spells a byte, and a vocab_size without room for specials and bytes.
Tokenizer train_bpe(std::span<const std::string_view> texts, const BpeTraining& options);

// Each file is one text; a message names the file.
Tokenizer train_bpe(const std::vector<std::filesystem::path>& files, const BpeTraining& options);

}  // namespace graft
