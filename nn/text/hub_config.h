// What a folder's small files say of its tokenizer: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, and the model's config.json for the kind.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nn/text/special_tokens.h"

namespace graft {

class HubConfig {
 public:
  // What the folder's tokenizer itself is in.
  enum class Beside { older_files, tokenizer_json };
  // Throws Error for a file that is no JSON object, and beside older files, which say less
  // themselves, for a key of tokenizer_config.json that is neither known to change nothing here nor
  // asked for below.
  explicit HubConfig(const std::filesystem::path& folder, Beside = Beside::older_files);

  // "GPT2", "Roberta", "Qwen2", "Bert", "T5" or "Llama": by tokenizer_class, else by the model's
  // type; `otherwise` where neither is said. Throws Error for any other.
  std::string family(const std::string& otherwise) const;
  // Which of them, or "XLMRoberta", transformers reads a tokenizer.json with, taking the vocabulary
  // alone; "" where it takes the file as it is.
  std::string rebuilder() const;
  bool lends_class() const;  // the model's type is another family's than its tokenizer's class
  bool flag(const std::string& key, bool otherwise) const;
  const nlohmann::json* find(const std::string& key) const;  // null counts as absent
  const std::string& name() const { return name_; }

  // The special tokens and the added ones, each with an id: that of `ids`, a vocabulary, else the
  // one the files give it, else the next free one. `defaults` are pairs of a key such as
  // "eos_token" and the token that the family has there, in order. The ids are added to `ids`.
  std::vector<SpecialToken> specials(
      const std::vector<std::pair<std::string, std::string>>& defaults,
      std::unordered_map<std::string, int>& ids) const;
  // The same tokens with the ids that the files give them, else -1.
  std::vector<SpecialToken> wanted(
      const std::vector<std::pair<std::string, std::string>>& defaults) const;
  // Those alone that the files give ids.
  std::vector<SpecialToken> numbered() const;
  // The token of a key, or "" where there is none.
  std::string special(const std::string& key, const std::string& otherwise) const;

 private:
  SpecialToken named(const std::string& key, const std::string& otherwise) const;
  std::string class_name(const nlohmann::json& of, const char* key) const;

  std::string name_;
  nlohmann::json config_, added_, model_;
};

}  // namespace graft
