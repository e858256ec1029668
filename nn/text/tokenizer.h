// Byte-level BPE: text to token ids and back, as GPT-2 and RoBERTa do it, in a Hugging Face
// tokenizer.json.
//
// Text is cut at special tokens, then into words (byte_level.h); the bytes of a word are joined by
// the merge of lowest rank, leftmost first, until none applies. Every byte is a token, so any text
// has ids, and decode(encode(text)) == text but for white space that add_prefix_space adds or a
// special token takes along. Sennrich et al. 2016 (1508.07909), Algorithm 1; on bytes: Radford et
// al. 2019, section 2.2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nn/text/special_tokens.h"

namespace graft {

// What defines a byte-level BPE tokenizer; a tokenizer.json in memory.
struct BpeModel {
  std::vector<std::string> tokens;          // the bytes of each id
  std::vector<std::pair<int, int>> merges;  // ids (left, right), lowest rank first
  std::vector<SpecialToken> specials;       // content == tokens[id]
  bool add_prefix_space = false;  // a plain piece that does not start with a space is given one
  std::string post_processor;     // as JSON text; empty: made from [CLS] and [SEP] when saved
};

class Tokenizer {
 public:
  // Throws Error where a byte has no token, two tokens are the same, or a merge makes no token.
  explicit Tokenizer(BpeModel model);

  // Reads a tokenizer.json of this kind; throws Error, naming the key, for any other.
  static Tokenizer load(const std::filesystem::path& tokenizer_json);
  // Writes a tokenizer.json that Hugging Face's tokenizers reads; an older file is replaced whole.
  void save(const std::filesystem::path& tokenizer_json) const;

  // The ids of a UTF-8 text, without [CLS] and the like around it; special tokens written in the
  // text become their ids. Throws Error with the byte offset where the text is not UTF-8. Several
  // threads may call it; they take turns.
  std::vector<int> encode(std::string_view text) const;
  // The bytes of the tokens, which may start or end within a character. Throws Error for an id
  // outside 0..size()-1.
  std::string decode(std::span<const int> ids, bool skip_special = false) const;

  int size() const { return int(model_.tokens.size()); }
  // The id of a special token or of a token's bytes, e.g. "[MASK]" or " the". Throws Error if there
  // is none.
  int id(std::string_view token) const;
  const BpeModel& model() const { return model_; }

  // Ids of the special tokens by their BERT, RoBERTa and GPT-2 names; -1 if there is none.
  int pad() const { return special_id({"[PAD]", "<pad>"}); }
  int unk() const { return special_id({"[UNK]", "<unk>"}); }
  int cls() const { return special_id({"[CLS]", "<s>"}); }
  int sep() const { return special_id({"[SEP]", "</s>"}); }
  int mask() const { return special_id({"[MASK]", "<mask>"}); }
  int bos() const { return special_id({"<s>", "<|endoftext|>"}); }
  int eos() const { return special_id({"</s>", "<|endoftext|>"}); }

 private:
  struct Merge {
    int rank, id;
  };
  struct Cache;

  void encode_piece(std::string_view text, std::vector<int>& ids) const;
  void encode_word(std::string_view word, std::vector<int>& ids) const;
  int special_id(std::initializer_list<std::string_view> names) const;

  BpeModel model_;
  SpecialSplitter splitter_;
  std::unordered_map<std::string, int> ids_;         // by bytes, without the special tokens
  std::unordered_map<std::uint64_t, Merge> merges_;  // by pair_key
  std::vector<int> byte_ids_;
  std::vector<bool> skipped_;     // by id: left out by decode(ids, true)
  std::shared_ptr<Cache> cache_;  // words met so far; copies of a tokenizer share it
};

}  // namespace graft
