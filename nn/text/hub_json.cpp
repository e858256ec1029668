#include "nn/text/hub_json.h"

#include <algorithm>

#include "tensor/error.h"

namespace graft {
const HubSpecials& class_specials(const std::string& family) {
  static const std::string end = "<|endoftext|>";
  static const HubSpecials roberta{
      {"bos_token", "<s>"},   {"eos_token", "</s>"}, {"unk_token", "<unk>"},  {"sep_token", "</s>"},
      {"pad_token", "<pad>"}, {"cls_token", "<s>"},  {"mask_token", "<mask>"}};
  static const std::unordered_map<std::string, HubSpecials> all{
      {"Roberta", roberta},
      {"XLMRoberta", roberta},
      {"GPT2", {{"bos_token", end}, {"eos_token", end}, {"unk_token", end}}},
      {"Qwen2", {{"eos_token", end}, {"unk_token", end}, {"pad_token", end}}},
      {"Bert",
       {{"unk_token", "[UNK]"},
        {"sep_token", "[SEP]"},
        {"pad_token", "[PAD]"},
        {"cls_token", "[CLS]"},
        {"mask_token", "[MASK]"}}},
      {"Llama", {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}}},
      {"T5", {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}}},
      {"", {}}};
  return all.at(family);
}

Json added_token(const SpecialToken& token) {
  return {{"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
          {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
          {"special", token.special}};
}

int hub_id(const HubIds& ids, const std::string& token) {
  const auto known = ids.find(token);
  check(known != ids.end(), "tokenizer: the vocabulary has no '{}' to set around a text", token);
  return known->second;
}

Json new_tokenizer_json(const std::vector<SpecialToken>& specials) {
  Json root{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  root["added_tokens"] = Json::array();
  for (const SpecialToken& token : specials) root["added_tokens"].push_back(added_token(token));
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"})
    root[key] = nullptr;
  return root;
}

Json HubTemplate::part(const std::string& text, int type) {
  if (text == "$A" || text == "$B")
    return {{"Sequence", {{"id", text.substr(1)}, {"type_id", type}}}};
  special_tokens_[text] = {
      {"id", text}, {"ids", Json::array({hub_id(ids_, text)})}, {"tokens", Json::array({text})}};
  return {{"SpecialToken", {{"id", text}, {"type_id", type}}}};
}

Json HubTemplate::row(const std::vector<std::pair<std::string, int>>& parts) {
  Json made = Json::array();
  for (const auto& [text, type] : parts)
    if (!text.empty()) made.push_back(part(text, type));
  return made;
}

Json HubTemplate::processor(const Json& single, const Json& pair) const {
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special_tokens_}};
}

Json bos_eos_template(const HubConfig& config, const HubSpecials& defaults, const HubIds& ids) {
  const auto token = [&](const char* flag, const std::string& key) -> std::string {
    const auto known = std::ranges::find(defaults, key, &HubSpecials::value_type::first);
    return config.flag(flag, false)
               ? config.special(key, known == defaults.end() ? "" : known->second)
               : "";
  };
  const std::string bos = token("add_bos_token", "bos_token");
  const std::string eos = token("add_eos_token", "eos_token");
  HubTemplate rows(ids);
  const Json single = rows.row({{bos, 0}, {"$A", 0}, {eos, 0}});
  const Json pair = rows.row({{bos, 0}, {"$A", 0}, {eos, 0}, {bos, 1}, {"$B", 1}, {eos, 1}});
  return rows.processor(single, pair);
}

Json vocab_json(const HubIds& ids) {
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [token, id] : ids) sorted.emplace_back(id, token);
  std::ranges::sort(sorted);
  Json vocab = Json::object();
  // emplace_back, because an insertion by key would search all keys before it.
  auto& entries = vocab.get_ref<Json::object_t&>();
  for (const auto& [id, token] : sorted) entries.emplace_back(token, id);
  return vocab;
}

}  // namespace graft
