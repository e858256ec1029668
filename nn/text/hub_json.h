// The pieces of a tokenizer.json that the readers of older files put together.
#pragma once

#include <filesystem>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nn/text/hub_config.h"
#include "nn/text/json_entry.h"
#include "nn/text/special_tokens.h"

namespace graft {

using HubIds = std::unordered_map<std::string, int>;                   // by token
using HubSpecials = std::vector<std::pair<std::string, std::string>>;  // key, token

// The special tokens that transformers' class of a family has where its folder says no others, in
// the order that gives them ids; none for "".
const HubSpecials& class_specials(const std::string& family);

// One of added_tokens.
Json added_token(const SpecialToken& token);

// The keys of a tokenizer.json in their usual order, without a model and all else null.
Json new_tokenizer_json(const std::vector<SpecialToken>& added_tokens);

// The object `vocab` of a model, by id.
Json vocab_json(const HubIds& ids);

// The id of a token that is set around texts. Throws Error where there is none.
int hub_id(const HubIds& ids, const std::string& token);

// A template of special tokens and texts: "$A" and "$B" are texts, "" is left out.
class HubTemplate {
 public:
  explicit HubTemplate(const HubIds& ids) : ids_(ids) {}
  // The parts with their types. Throws Error for a token without an id.
  Json row(const std::vector<std::pair<std::string, int>>& parts);
  Json processor(const Json& single, const Json& pair) const;

 private:
  Json part(const std::string& text, int type);
  const HubIds& ids_;
  Json special_tokens_ = Json::object();
};

// The post_processor that transformers sets where a family has none of its own: add_bos_token and
// add_eos_token of the configuration, with the family's tokens where it names no others.
Json bos_eos_template(const HubConfig& config, const HubSpecials& defaults, const HubIds& ids);

// What transformers' classes set: a "normalizer", a "pre_tokenizer", a "decoder", and what else
// their "model" is than its vocabulary. The byte-level family is "GPT2", "Roberta" or "Qwen2".
Json bert_parts(const HubConfig& config);
Json llama_parts(const HubConfig& config);
Json byte_level_cut(const std::string& family, bool prefix);

// The tokenizer.json that older files are equal to; hub_files.h says which. Throw Error for files
// that cannot be read and for another family's configuration.
Json word_piece_tokenizer(const std::filesystem::path& vocab_txt, const HubConfig& config);
Json byte_level_tokenizer(const std::filesystem::path& vocab, const std::filesystem::path& merges,
                          const HubConfig& config);
Json sentencepiece_tokenizer(const std::filesystem::path& model, const HubConfig& config);

}  // namespace graft
