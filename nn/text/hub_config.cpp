#include "nn/text/hub_config.h"

#include <algorithm>
#include <cstdint>

#include "nn/files/atomic.h"
#include "nn/text/json_entry.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMostId = 999999999;

// Keys of tokenizer_config.json that name something else than how a text becomes ids, or are read
// by find() and flag().
constexpr const char* kKnown[] = {"tokenizer_class",
                                  "model_max_length",
                                  "padding_side",
                                  "truncation_side",
                                  "chat_template",
                                  "clean_up_tokenization_spaces",
                                  "name_or_path",
                                  "special_tokens_map_file",
                                  "tokenizer_file",
                                  "use_default_system_prompt",
                                  "spaces_between_special_tokens",
                                  "errors",
                                  "processor_class",
                                  "auto_map",
                                  "from_slow",
                                  "use_fast",
                                  "trim_offsets",
                                  "max_len",
                                  "model_input_names",
                                  "is_local",
                                  "local_files_only",
                                  "backend",
                                  "model_type",
                                  "vocab_file",
                                  "merges_file",
                                  "max_length",
                                  "return_token_type_ids",
                                  "_from_auto",
                                  "do_basic_tokenize",
                                  "never_split",
                                  "sp_model_kwargs",
                                  "split_special_tokens",
                                  "do_lower_case",
                                  "tokenize_chinese_chars",
                                  "strip_accents",
                                  "add_prefix_space",
                                  "add_bos_token",
                                  "add_eos_token",
                                  "legacy",
                                  "extra_ids",
                                  "additional_special_tokens",
                                  "extra_special_tokens",
                                  "added_tokens_decoder",
                                  "bos_token",
                                  "eos_token",
                                  "unk_token",
                                  "sep_token",
                                  "pad_token",
                                  "cls_token",
                                  "mask_token"};

json read_object(const fs::path& path) {
  if (!fs::exists(path)) return json::object();
  json value = parse_strict(path.string(), read_file(path));
  check(value.is_object(), "{} is {}; need an object", path.string(), shown(value));
  return value;
}

SpecialToken read_token(const std::string& name, const json& value) {
  SpecialToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
  } else {
    Entry entry(name, value);
    token.content = entry.text("content");
    token.lstrip = entry.flag("lstrip", false);
    token.rstrip = entry.flag("rstrip", false);
    token.single_word = entry.flag("single_word", false);
    token.normalized = entry.flag("normalized", false);
    token.special = entry.flag("special", true);
    entry.find("__type");
    entry.done();
  }
  check(!token.content.empty(), "{} is an empty token", name);
  return token;
}

// The tokenizer that transformers 5 has for a class or a model's type.
struct ClassOf {
  std::string_view name;
  const char* reads;
};
constexpr ClassOf kClasses[] = {{"GPT2", "GPT2"},
                                {"gpt2", "GPT2"},
                                {"opt", "GPT2"},
                                {"Roberta", "Roberta"},
                                {"roberta", "Roberta"},
                                {"roberta-prelayernorm", "Roberta"},
                                {"Qwen2", "Qwen2"},
                                {"qwen2", "Qwen2"},
                                {"qwen3", "Qwen2"},
                                {"Bert", "Bert"},
                                {"bert", "Bert"},
                                {"DistilBert", "Bert"},
                                {"distilbert", "Bert"},
                                {"T5", "T5"},
                                {"t5", "T5"},
                                {"XLMRoberta", "XLMRoberta"},
                                {"xlm-roberta", "XLMRoberta"},
                                {"Llama", "Llama"}};

const SpecialToken* find_token(const std::vector<SpecialToken>& tokens, const std::string& text) {
  const auto at = std::ranges::find(tokens, text, &SpecialToken::content);
  return at == tokens.end() ? nullptr : &*at;
}

}  // namespace

HubConfig::HubConfig(const fs::path& folder, Beside beside)
    : name_((folder / "tokenizer_config.json").string()),
      config_(read_object(folder / "tokenizer_config.json")),
      added_(read_object(folder / "added_tokens.json")),
      model_(read_object(folder / "config.json")) {
  if (beside == Beside::older_files) {
    for (const auto& item : config_.items())
      check(std::ranges::find(kKnown, item.key()) != std::end(kKnown), "{}: unknown key {}", name_,
            item.key());
    for (const char* key : {"never_split", "sp_model_kwargs"})
      check(find(key) == nullptr || find(key)->empty(), "{}: {} is not empty", name_, key);
    check(flag("do_basic_tokenize", true), "{}: do_basic_tokenize is false; need true", name_);
  }
  check(!flag("split_special_tokens", false), "{}: split_special_tokens is true; need false",
        name_);
  // Files with added_tokens_decoder say there all that the older map does.
  if (find("added_tokens_decoder") == nullptr)
    config_.update(read_object(folder / "special_tokens_map.json"));
}

const json* HubConfig::find(const std::string& key) const {
  const auto at = config_.find(key);
  return at == config_.end() || at->is_null() ? nullptr : &*at;
}

bool HubConfig::flag(const std::string& key, bool otherwise) const {
  const json* found = find(key);
  check(found == nullptr || found->is_boolean(), "{}: {} is not true or false", name_, key);
  return found == nullptr ? otherwise : found->get<bool>();
}

std::string HubConfig::class_name(const json& of, const char* key) const {
  const auto at = of.find(key);
  if (at == of.end() || at->is_null()) return "";
  check(at->is_string(), "{}: {} is {}; need a string", name_, key, shown(*at));
  std::string name = at->get<std::string>();
  for (const std::string end : {"Fast", "Tokenizer"})
    if (name.ends_with(end)) name.resize(name.size() - end.size());
  return name;
}

std::string HubConfig::family(const std::string& otherwise) const {
  std::string name = class_name(config_, "tokenizer_class");
  const bool by_model = name.empty();
  if (by_model) name = class_name(model_, "model_type");
  if (name.empty()) return otherwise;
  for (const ClassOf& known : kClasses)
    if (known.name == name) return known.reads;
  if (by_model && (name == "llama" || name == "mistral")) return "Llama";
  fail(
      "{}: {} is '{}'; without a tokenizer.json this version reads those of GPT2, Roberta, Qwen2, "
      "Bert, T5 and Llama",
      name_, by_model ? "config.json's model_type" : "tokenizer_class", name);
}

static std::string rebuilder_of(const std::string& name) {
  const auto at = std::ranges::find(kClasses, name, &ClassOf::name);
  return at == std::end(kClasses) ? "" : at->reads;
}

std::string HubConfig::rebuilder() const {
  const std::string type = class_name(model_, "model_type");
  std::string own = class_name(config_, "tokenizer_class");
  if (own.empty()) own = class_name(model_, "tokenizer_class");
  if (own.empty() || type == "qwen2") return rebuilder_of(type);
  return type == "mistral" ? "" : rebuilder_of(own);
}

bool HubConfig::lends_class() const {
  const std::string type = class_name(model_, "model_type");
  return !type.empty() && rebuilder_of(type) != rebuilder();
}

SpecialToken HubConfig::named(const std::string& key, const std::string& otherwise) const {
  SpecialToken token;
  token.content = otherwise;
  if (const auto at = config_.find(key); at != config_.end()) {
    if (at->is_null() || *at == "") return {};
    token = read_token(name_ + ": " + key, *at);
  }
  token.special = true;
  token.normalized = false;
  return token;
}

std::string HubConfig::special(const std::string& key, const std::string& otherwise) const {
  return named(key, otherwise).content;
}

std::vector<SpecialToken> HubConfig::numbered() const {
  std::vector<SpecialToken> tokens;
  if (const json* decoder = find("added_tokens_decoder")) {
    const std::string name = name_ + ": added_tokens_decoder";
    check(decoder->is_object(), "{} is not an object", name);
    for (const auto& item : decoder->items()) {
      const std::string& id = item.key();
      check(!id.empty() && id.size() <= 9 && id.find_first_not_of("0123456789") == id.npos,
            "{}: '{}' is no id", name, id);
      tokens.push_back(read_token(name + ": " + id, item.value()));
      tokens.back().id = std::stoi(id);
    }
    return tokens;
  }
  for (const auto& item : added_.items()) {
    check(item.value().is_number_unsigned() && item.value().get<std::uint64_t>() <= kMostId,
          "added_tokens.json beside {}: '{}' has id {}", name_, item.key(), shown(item.value()));
    tokens.push_back(read_token(name_, item.key()));
    tokens.back().id = item.value().get<int>();
    tokens.back().special = false;
    tokens.back().normalized = true;
  }
  return tokens;
}

// A name is a reference to the token of the numbered list that is spelled so, flags and all.
std::vector<SpecialToken> HubConfig::wanted(
    const std::vector<std::pair<std::string, std::string>>& defaults) const {
  std::vector<SpecialToken> wanted;
  const std::vector<SpecialToken> numbered = this->numbered();
  const bool whole = find("added_tokens_decoder") != nullptr;  // the older map has ids alone
  const auto want = [&](SpecialToken token, bool named) {
    if (token.content.empty() || find_token(wanted, token.content)) return;
    if (const SpecialToken* known = find_token(numbered, token.content)) {
      token.id = known->id;
      if (whole) token = *known;
      token.special |= named;
    }
    wanted.push_back(std::move(token));
  };
  for (const auto& [key, otherwise] : defaults) want(named(key, otherwise), true);
  for (const char* key :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"})
    want(named(key, ""), true);
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"})
    if (const json* more = find(key)) {
      // An object gives its tokens names of the model's own: {"image_token": "<image>"}.
      check(more->is_structured(), "{}: {} is {}; need an array or an object of tokens", name_, key,
            shown(*more));
      for (const json& token : *more)
        want(read_token(name_ + ": " + key, token), more->is_object());
    }
  for (const SpecialToken& token : numbered) want(token, false);
  std::ranges::stable_sort(wanted, {}, [](const SpecialToken& t) { return unsigned(t.id); });
  return wanted;
}

std::vector<SpecialToken> HubConfig::specials(
    const std::vector<std::pair<std::string, std::string>>& defaults,
    std::unordered_map<std::string, int>& ids) const {
  std::vector<SpecialToken> wanted = this->wanted(defaults);
  int next = 0;
  for (const auto& [token, id] : ids) next = std::max(next, id + 1);
  for (SpecialToken& token : wanted) {
    const auto known = ids.find(token.content);
    token.id = known != ids.end() ? known->second : token.id >= 0 ? token.id : next;
    next = std::max(next, token.id + 1);
    ids.emplace(token.content, token.id);
  }
  std::ranges::sort(wanted, {}, &SpecialToken::id);
  return wanted;
}

}  // namespace graft
