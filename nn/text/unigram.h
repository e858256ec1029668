// Unigram: of all ways to write a word as tokens the one whose scores sum to most. Kudo 2018
// (1804.10959), section 3.2; ties and unknown characters as Hugging Face's tokenizers has them.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "nn/text/model.h"
#include "nn/text/trie.h"

namespace graft {

class Unigram : public WordModel {
 public:
  // Scores are by id. `unk` -1: none, an unknown character is an Error. With byte_fallback unknown
  // characters become the tokens <0x00>... of their bytes, where all of them are there.
  Unigram(const Vocabulary& tokens, std::vector<double> scores, int unk, bool byte_fallback);
  void encode(std::string_view word, std::vector<int>& ids) const override;

 private:
  struct Node {  // the best path that ends at a place of the word
    double score;
    int id, start;  // of its last token; start -1: no path yet
  };
  void search(std::string_view word, std::vector<Node>& best) const;
  void append_unknown(std::string_view text, std::vector<int>& ids) const;

  Trie trie_;
  std::vector<double> scores_;
  std::vector<int> byte_ids_;  // of <0x00>..., -1 where there is none
  double unknown_score_;
  int unk_;
  bool byte_fallback_;
};

}  // namespace graft
