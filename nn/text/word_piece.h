// WordPiece: a word is the longest token that begins it, then the longest continuation of the rest,
// to its end, or unknown as a whole. Wu et al. 2016 (1609.08144), section 4.1, as BERT cuts words.
// WordLevel: a word is a token or unknown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nn/text/model.h"
#include "nn/text/trie.h"

namespace graft {

class WordPiece : public WordModel {
 public:
  // A word of more than `longest` characters is unknown; `unk` -1 makes an unknown word an Error.
  WordPiece(const Vocabulary& tokens, const std::string& prefix, std::size_t longest, int unk);
  void encode(std::string_view word, std::vector<int>& ids) const override;

 private:
  bool append_pieces(std::string_view word, std::vector<int>& ids) const;
  Trie starts_, continuations_;  // the latter without their prefix
  std::size_t longest_;
  int unk_;
};

class WordLevel : public WordModel {
 public:
  WordLevel(const Vocabulary& tokens, int unk);
  void encode(std::string_view word, std::vector<int>& ids) const override;

 private:
  Trie tokens_;
  int unk_;
};

}  // namespace graft
