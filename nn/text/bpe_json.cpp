#include "nn/text/bpe_json.h"

#include <unordered_map>
#include <utility>

#include "nn/text/byte_level.h"
#include "nn/text/json_entry.h"
#include "nn/text/tokenizer_json.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

ordered_json default_post_processor(const BpeModel& model) {
  int cls = -1, sep = -1;
  for (const SpecialToken& token : model.specials) {
    if (token.content == "[CLS]") cls = token.id;
    if (token.content == "[SEP]") sep = token.id;
  }
  if (cls < 0 || sep < 0)
    return {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", false},
            {"use_regex", true}};
  const auto special = [](const char* id, int type) -> ordered_json {
    return {{"SpecialToken", {{"id", id}, {"type_id", type}}}};
  };
  const auto text = [](const char* id, int type) -> ordered_json {
    return {{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  const auto entry = [](const char* token, int id) -> ordered_json {
    return {{"id", token},
            {"ids", ordered_json::array({id})},
            {"tokens", ordered_json::array({token})}};
  };
  ordered_json made{{"type", "TemplateProcessing"}};
  made["single"] = ordered_json::array({special("[CLS]", 0), text("A", 0), special("[SEP]", 0)});
  made["pair"] = made["single"];
  made["pair"].push_back(text("B", 1));
  made["pair"].push_back(special("[SEP]", 1));
  made["special_tokens"] = {{"[CLS]", entry("[CLS]", cls)}, {"[SEP]", entry("[SEP]", sep)}};
  return made;
}

ordered_json model_json(const BpeModel& model) {
  std::vector<std::string> spellings;
  for (const std::string& token : model.tokens) spellings.push_back(spell(token));
  for (const SpecialToken& token : model.specials) spellings[std::size_t(token.id)] = token.content;
  ordered_json vocab = ordered_json::object(), merges = ordered_json::array();
  // emplace_back, because an insertion by key would search all keys before it.
  auto& entries = vocab.get_ref<ordered_json::object_t&>();
  for (std::size_t i = 0; i < spellings.size(); ++i) entries.emplace_back(spellings[i], int(i));
  for (const auto& [left, right] : model.merges)
    merges.push_back(
        ordered_json::array({spellings[std::size_t(left)], spellings[std::size_t(right)]}));
  ordered_json made{{"type", "BPE"}};
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"})
    made[key] = nullptr;
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) made[key] = false;
  made["vocab"] = std::move(vocab);
  made["merges"] = std::move(merges);
  return made;
}

// Every byte has a token, and no two tokens are the same but for special ones.
void check_model(const BpeModel& model) {
  const int size = int(model.tokens.size());
  std::vector<bool> is_special(model.tokens.size());
  for (const SpecialToken& token : model.specials) {
    check(token.id >= 0 && token.id < size && model.tokens[std::size_t(token.id)] == token.content,
          "tokenizer: special token '{}' has id {}, which is another token or none", token.content,
          token.id);
    is_special[std::size_t(token.id)] = true;
  }
  std::unordered_map<std::string, int> ids;
  for (int i = 0; i < size; ++i) {
    const std::string& token = model.tokens[std::size_t(i)];
    if (is_special[std::size_t(i)]) continue;
    const auto [at, fresh] = ids.emplace(token, i);
    check(fresh, "tokenizer: tokens {} and {} are both '{}'", at->second, i, spell(token));
  }
  for (int b = 0; b < 256; ++b)
    check(ids.contains(std::string(1, char(b))),
          "tokenizer: byte 0x{:02X} has no token; a byte-level vocabulary has all 256", b);
  for (std::size_t i = 0; i < model.merges.size(); ++i) {
    const auto [left, right] = model.merges[i];
    check(left >= 0 && left < size && right >= 0 && right < size,
          "tokenizer: merge {} joins ids {} and {}; ids are 0..{}", i, left, right, size - 1);
  }
}

}  // namespace

std::string tokenizer_json(const BpeModel& model) {
  check_model(model);
  ordered_json added = ordered_json::array();
  for (const SpecialToken& token : model.specials)
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  ordered_json root{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  root["added_tokens"] = std::move(added);
  root["normalizer"] = nullptr;
  root["pre_tokenizer"] = {{"type", "ByteLevel"},
                           {"add_prefix_space", model.add_prefix_space},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  root["post_processor"] = model.post_processor.empty() ? default_post_processor(model)
                                                        : ordered_json::parse(model.post_processor);
  root["decoder"] = {{"type", "ByteLevel"},
                     {"add_prefix_space", true},
                     {"trim_offsets", true},
                     {"use_regex", true}};
  root["model"] = model_json(model);
  return root.dump(2) + "\n";
}

BpeModel bpe_model(const std::string& name, std::string_view text) {
  const TokenizerFile file = read_tokenizer_json(name, text);
  const json root = parse_strict(name, text);
  const json &cut = root["pre_tokenizer"], &model = root["model"];
  check(file.byte_level && cut["type"] == "ByteLevel" && cut.value("use_regex", true) &&
            !file.normalizer && !model.value("ignore_merges", false),
        "{}: it is no byte-level BPE of GPT-2's kind, and cannot be had as one", name);
  BpeModel made;
  made.add_prefix_space = cut.value("add_prefix_space", true);
  made.specials = file.specials;
  made.post_processor = root.contains("post_processor") ? root["post_processor"].dump() : "null";
  std::unordered_map<std::string, int> ids;
  for (std::size_t i = 0; i < file.tokens.size(); ++i) {
    ids.emplace(file.tokens[i], int(i));
    made.tokens.push_back(unspell(file.tokens[i]).value_or(file.tokens[i]));
  }
  for (const SpecialToken& token : made.specials)
    made.tokens[std::size_t(token.id)] = token.content;
  for (const json& merge : model["merges"]) {
    const std::string pair = merge.is_string() ? merge.get<std::string>() : "";
    const std::size_t space = pair.find(' ');
    const auto part = [&](std::size_t i) {
      if (merge.is_array()) return merge[i].get<std::string>();
      return i == 0 ? pair.substr(0, space) : pair.substr(space + 1);
    };
    made.merges.emplace_back(ids.at(part(0)), ids.at(part(1)));
  }
  return made;
}

}  // namespace graft
