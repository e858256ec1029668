// Text to token ids and back, as Hugging Face's tokenizers does it.
//
// A text is cut at special tokens (special_tokens.h); what lies between is normalized
// (normalizer.h), cut into words (pre_tokenizer.h), and each word split into tokens (model.h). Ids
// become a text by decoder.h; post_processor.h sets [CLS] and the like around texts. All of it is
// read from the files of a folder as the hub has it (hub_files.h).
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/text/bpe_json.h"
#include "nn/text/post_processor.h"
#include "nn/text/special_tokens.h"

namespace graft {

class Tokenizer {
 public:
  // Throws Error where a byte has no token, two tokens are the same, or a merge makes no token.
  explicit Tokenizer(const BpeModel& model);

  // Reads a tokenizer.json, or a folder: its tokenizer.json, or without one the older files that
  // hub_files.h lists. Throws Error, naming file and key, for what this version does not follow.
  static Tokenizer load(const std::filesystem::path& folder_or_file);
  // Writes a tokenizer.json that Hugging Face's tokenizers reads; an older file is replaced whole.
  // It is the loaded one byte for byte, or what the older files are equal to.
  void save(const std::filesystem::path& tokenizer_json) const;

  // The ids of a UTF-8 text, without [CLS] and the like around it; special tokens written in the
  // text become their ids. Throws Error with the byte offset where the text is not UTF-8. Several
  // threads may call it; they take turns.
  std::vector<int> encode(std::string_view text) const;
  // The ids of one text or a pair with the special tokens that the file's post_processor puts
  // around them, and each token's type (which of the pair it belongs to, for BERT).
  MarkedIds encode_marked(std::string_view text) const;
  MarkedIds encode_marked(std::string_view first, std::string_view second) const;
  // The same from ids that have none around them.
  MarkedIds mark(const std::vector<int>& ids) const;
  MarkedIds mark(const std::vector<int>& first, const std::vector<int>& second) const;
  // What the file's post_processor sets before one text, and whether it sets a token behind it.
  std::vector<int> beginning() const;
  bool closes() const;
  // A tokenizer that sets a special token at a text's end, but without any around texts; itself
  // where it sets none there.
  Tokenizer open_ended() const;
  // The text of the tokens, with or without the special ones. Bytes that are no UTF-8, as where
  // the ids begin or end within a character, are shown as U+FFFD. An id that no token has is left
  // out: a model's vocabulary may be larger. Throws Error for one below 0.
  std::string decode(std::span<const int> ids, bool skip_special = false) const;

  int size() const;  // one more than the greatest id
  // The id of a special token or of a token, e.g. "[MASK]", "##ing"; a byte-level one's by its
  // bytes, e.g. " the". Throws Error if there is none.
  int id(std::string_view token) const;
  // A token as the file spells it; "" for an id that stands for none. Throws Error for one outside
  // 0..size()-1.
  const std::string& token(int id) const;
  const std::vector<SpecialToken>& specials() const;
  // The same for an encoder-decoder: with T5's marks of dropped spans, <extra_id_0> and so on,
  // behind the vocabulary, and with nothing around texts but an end token (sentinels.h).
  Tokenizer with_sentinels(int count) const;
  // A byte-level BPE of GPT-2's kind as data; throws Error for any other.
  BpeModel model() const;

  // Ids of the special tokens by the names they have in BERT, RoBERTa, GPT-2, T5 and LLaMA; -1 if
  // there is none.
  int pad() const { return special_id({"[PAD]", "<pad>"}); }
  int unk() const { return special_id({"[UNK]", "<unk>"}); }
  int cls() const { return special_id({"[CLS]", "<s>"}); }
  int sep() const { return special_id({"[SEP]", "</s>"}); }
  int mask() const { return special_id({"[MASK]", "<mask>"}); }
  int bos() const { return special_id({"<s>", "<|endoftext|>", "<|begin_of_text|>"}); }
  int eos() const { return special_id({"</s>", "<|endoftext|>", "<|end_of_text|>"}); }

 private:
  struct Parts;
  struct Cache;

  Tokenizer(const std::string& name, std::string tokenizer_json);
  void encode_words(std::string_view text, bool first, std::vector<int>& ids) const;
  int special_id(std::initializer_list<std::string_view> names) const;

  std::shared_ptr<const Parts> parts_;
  std::shared_ptr<Cache> cache_;  // words met so far; copies of a tokenizer share it
};

}  // namespace graft
