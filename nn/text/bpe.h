// Byte-pair encoding: the characters of a word are joined by the merge of lowest rank, leftmost
// first, until none applies. Sennrich et al. 2016 (1508.07909), Algorithm 1; on bytes: Radford et
// al. 2019, section 2.2.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nn/text/model.h"

namespace graft {

// What tokenizer.json says of a BPE model.
struct BpeOptions {
  bool byte_level = false;     // the units are bytes, not characters
  bool byte_fallback = false;  // a character without a token becomes its bytes' tokens, <0x00>...
  bool fuse_unk = false;       // unknown characters side by side are one unknown token
  bool ignore_merges = false;  // a word that is a token is that token
  int unk = -1;                // -1: unknown characters are dropped
  std::string prefix, suffix;  // of units that do not begin a word, and of the one that ends it
};

struct BpeMerge {
  int left, right, made;
};

class Bpe : public WordModel {
 public:
  // `ids`: by bytes (of the characters, or with byte_level of what they spell). `tokens`: as the
  // file spells them. Throws Error, beginning with `name`, for a merge that is there twice.
  Bpe(const std::string& name, std::unordered_map<std::string, int> ids, const Vocabulary& tokens,
      const std::vector<BpeMerge>& merges, BpeOptions options);

  void encode(std::string_view word, std::vector<int>& ids) const override;
  // Where sentencepiece's mark of a space begins a new part, if no merge reaches over that.
  std::size_t part_end(std::string_view word, std::size_t begin) const override;

 private:
  struct Merge {
    std::uint64_t pair = 0;
    int rank = -1, id = -1;  // rank -1: an empty place
  };
  const Merge* find_merge(int left, int right) const;
  void append_units(std::string_view word, std::vector<int>& units) const;
  int unit(std::string_view text, bool begins, bool ends) const;
  bool append_bytes(std::string_view text, std::vector<int>& units) const;
  void join(std::vector<int>& units) const;
  bool can_be_parted(const Vocabulary& tokens, const std::vector<BpeMerge>& merges) const;

  BpeOptions options_;
  std::unordered_map<std::string, int> ids_;
  std::vector<Merge> merges_;      // a hash table, open addressing
  std::array<int, 256> byte_ids_;  // byte_level: of the byte; else of the ASCII character
  std::array<int, 256> fallback_;  // of <0x00>...<0xFF>
  bool parted_ = false;
};

}  // namespace graft
