#include "nn/text/hub_class.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "nn/text/hub_json.h"
#include "nn/text/word_patterns.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMostClassId = 999999999;

const json& found_in(const json& of, const char* key) {
  static const json none;
  const auto at = of.is_object() ? of.find(key) : of.end();
  return at == of.end() ? none : *at;
}

std::string type_named(const json& part) {
  const json& type = found_in(part, "type");
  return type.is_string() ? type.get<std::string>() : part.is_null() ? "null" : part.type_name();
}

// The steps of a pre_tokenizer or a normalizer, of which a Sequence has several.
std::vector<json> steps_of(const json& part, const char* inside) {
  if (part.is_null()) return {};
  const json& several = found_in(part, inside);
  if (type_named(part) != "Sequence" || !several.is_array()) return {part};
  return several.get<std::vector<json>>();
}

// A file's id, -1 where it is none.
int id_in(const json& value) {
  // What was put in here is signed.
  const bool is = value.is_number_integer() && value >= 0 && value <= std::uint64_t{kMostClassId};
  return is ? value.get<int>() : -1;
}

// Files older than the key `type` say by their other keys what the model is.
std::string model_kind(const json& model) {
  if (model.contains("type")) return type_named(model);
  if (model.contains("merges")) return "BPE";
  if (model.contains("max_input_chars_per_word")) return "WordPiece";
  return found_in(model, "vocab").is_array() ? "Unigram" : "WordLevel";
}

bool is_step(const json& step, const char* type) { return type_named(step) == type; }

class ClassReader {
 public:
  ClassReader(const HubConfig& config, std::string file, json& root)
      : config_(config), file_(std::move(file)), root_(root) {}

  // Whether anything was set.
  bool read() {
    const std::vector<json> cut = steps_of(found_in(root_, "pre_tokenizer"), "pretokenizers");
    const bool byte_level =
        std::ranges::any_of(cut, [](const json& s) { return is_step(s, "ByteLevel"); });
    std::string reader = config_.rebuilder();
    // Of LLaMA 3's kind, which is called so, too: transformers sees that it is not LLaMA's.
    if (reader == "Llama" && byte_level) reader = "";
    // Others' models that only say GPT-2's class, cut in their own way first: as they were trained.
    if (reader == "GPT2" && cut.size() > 1 && byte_level && config_.lends_class()) reader = "";
    if (reader == "Bert") read_bert();
    if (reader == "Llama") read_llama();
    if (reader == "GPT2" || reader == "Roberta" || reader == "Qwen2") read_byte_level(reader, cut);
    if (reader == "XLMRoberta") read_xlm_roberta(cut);
    read_tokens(reader);
    return changed_;
  }

 private:
  void set(json& place, const json& value) {
    if (place == value) return;
    place = value;
    changed_ = true;
  }

  void need_model(const char* reader, const char* type) {
    const std::string is = model_kind(root_["model"]);
    check(is == type,
          "{}: its model is {}; the class by {} (or the model's type) is {}'s, which needs {}",
          file_, is, config_.name(), reader, type);
  }

  void read_bert() {
    need_model("BERT", "WordPiece");
    const json parts = bert_parts(config_);
    for (const auto& part : parts.items()) set(root_[part.key()], part.value());
  }

  void read_llama() {
    need_model("LLaMA", "BPE");
    const json parts = llama_parts(config_);
    for (const char* key : {"normalizer", "pre_tokenizer", "decoder"}) set(root_[key], parts[key]);
    for (const auto& part : parts["model"].items()) set(root_["model"][part.key()], part.value());
  }

  void read_byte_level(const std::string& reader, const std::vector<json>& cut) {
    need_model(reader.c_str(), "BPE");
    const bool prefix = config_.flag("add_prefix_space", false);
    const bool qwen2 = reader == "Qwen2";
    const std::string normal = type_named(found_in(root_, "normalizer"));
    const bool split = cut.size() == 2 && is_step(cut[0], "Split") &&
                       found_in(found_in(cut[0], "pattern"), "Regex") == std::string(kQwen2Pattern);
    const bool alike = qwen2 ? split && is_step(cut[1], "ByteLevel") && normal == "NFC"
                             : cut.size() == 1 && is_step(cut[0], "ByteLevel") && normal == "null";
    check(
        alike,
        "{}: its normalizer is {} and its pre_tokenizer {}; the class by {} (or the model's type) "
        "is {}'s, which has {}{}",
        file_, normal, type_named(found_in(root_, "pre_tokenizer")), config_.name(), reader,
        qwen2 ? "NFC, and Split by their own pattern before ByteLevel" : "none, and ByteLevel",
        qwen2 ? "" : "; tokenizer_class PreTrainedTokenizerFast takes the file as it is");
    if (found_in(cut.back(), "add_prefix_space") != prefix ||
        (!qwen2 && found_in(cut.back(), "use_regex") == false))
      set(root_["pre_tokenizer"], byte_level_cut(reader, prefix));
  }

  void read_xlm_roberta(const std::vector<json>& cut) {
    const bool prefix = config_.flag("add_prefix_space", true);
    for (const json& step : cut) {
      if (!is_step(step, "Metaspace")) continue;
      const json &scheme = found_in(step, "prepend_scheme"),
                 &old = found_in(step, "add_prefix_space");
      const bool never = scheme == "never" || (scheme.is_null() && old == false);
      check(never != prefix,
            "{}: its pre_tokenizer's prepend_scheme is {}, add_prefix_space in {} is {}", file_,
            never ? "never" : "always", config_.name(), prefix);
    }
  }

  // The id that the vocabulary has for a token, -1 for none.
  int id_of(const std::string& token) const {
    const json& vocab = found_in(found_in(root_, "model"), "vocab");
    if (vocab.is_object()) {
      const auto at = vocab.find(token);
      return at == vocab.end() ? -1 : id_in(*at);
    }
    for (std::size_t i = 0; i < vocab.size(); ++i)
      if (vocab[i].is_array() && !vocab[i].empty() && vocab[i][0] == token) return int(i);
    return -1;
  }

  // Beyond all ids of the vocabulary and the added tokens.
  int next_id() const {
    int next = 0;
    const json& vocab = found_in(found_in(root_, "model"), "vocab");
    if (vocab.is_array()) next = int(vocab.size());
    if (vocab.is_object())
      for (const json& id : vocab) next = std::max(next, id_in(id) + 1);
    for (const json& token : found_in(root_, "added_tokens"))
      next = std::max(next, id_in(found_in(token, "id")) + 1);
    return next;
  }

  void need_id(const SpecialToken& token, int id) const {
    check(token.id == id,
          "{}: '{}' has id {} by its vocabulary, and id {} by added_tokens_decoder in {}", file_,
          token.content, id, token.id, config_.name());
  }

  // Tokens that only have a name, and that the vocabulary lacks, are left out: they would have ids
  // beyond the model's.
  void read_tokens(const std::string& reader) {
    json& added = root_["added_tokens"];
    if (added.is_null()) added = json::array();
    if (!added.is_array()) return;  // the reader of the file says so
    std::map<std::string, std::size_t> there;
    for (std::size_t i = 0; i < added.size(); ++i)
      if (const json& text = found_in(added[i], "content"); text.is_string())
        there.emplace(text.get<std::string>(), i);
    const bool flags = config_.find("added_tokens_decoder") != nullptr;
    std::set<std::string> wanted;
    for (const SpecialToken& token : config_.wanted(class_specials(reader))) {
      wanted.insert(token.content);
      const auto known = there.find(token.content);
      json* entry = known == there.end() ? nullptr : &added[known->second];
      int id = entry ? id_in(found_in(*entry, "id")) : id_of(token.content);
      if (id < 0 && token.id < 0) continue;
      if (id < 0) id = next_id();
      if (token.id >= 0) need_id(token, id);
      if (entry && (!flags || token.id < 0)) continue;
      const json as = added_token({token.content, id, token.special, token.normalized, token.lstrip,
                                   token.rstrip, token.single_word});
      if (entry) {
        set(*entry, as);
      } else {
        added.push_back(as);
        changed_ = true;
      }
    }
    if (!reader.empty() && flags)
      for (const auto& [text, at] : there)
        check(
            wanted.contains(text),
            "{}: '{}' is one of its added_tokens, added_tokens_decoder in {} does not have it, and "
            "of {}'s class that one counts",
            file_, text, config_.name(), reader);
  }

  const HubConfig& config_;
  std::string file_;
  json& root_;
  bool changed_ = false;
};

}  // namespace

std::string as_its_class_reads(const fs::path& folder, std::string text) {
  if (!fs::exists(folder / "tokenizer_config.json")) return text;
  const HubConfig config(folder, HubConfig::Beside::tokenizer_json);
  const std::string file = (folder / "tokenizer.json").string();
  json root = parse_strict(file, text);
  // What is no tokenizer is left for its reader to say.
  if (!found_in(root, "model").is_object()) return text;
  return ClassReader(config, file, root).read() ? root.dump(2) + "\n" : text;
}

}  // namespace graft
