#include "nn/models/beside.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"
#include "tensor/error.h"

namespace graft {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::uint64_t kLargestId = 999999999;
constexpr const char *kVocabulary = "tokenizer.json", *kSettings = "tokenizer_config.json",
                     *kTemplate = "chat_template.jinja";

// Of tokenizer.json, of any kind: also one whose other keys are not followed here.
void fill_ids_from_json(Arch& arch, const fs::path& tokenizer_json) {
  const std::string name = tokenizer_json.string();
  const json root = parse_strict(name, read_file(tokenizer_json));
  check(root.is_object(), "{}: holds {}; need an object", name, root.type_name());
  if (!root.contains("added_tokens") || !root["added_tokens"].is_array()) return;
  for (const auto& token : root["added_tokens"]) {
    const auto content = token.find("content"), id = token.find("id");
    if (content == token.end() || id == token.end()) continue;
    check(id->is_number_unsigned() && id->get<std::uint64_t>() <= kLargestId,
          "{}: added_tokens: id {}; need 0..{}", name, id->dump(), kLargestId);
    const auto fill = [&](int& field, const char* bert, const char* roberta) {
      if (field < 0 && (*content == bert || *content == roberta)) field = id->get<int>();
    };
    fill(arch.pad, "[PAD]", "<pad>");
    fill(arch.cls, "[CLS]", "<s>");
    fill(arch.sep, "[SEP]", "</s>");
    fill(arch.mask, "[MASK]", "<mask>");
  }
}

// From [CLS] to [SEP]: no text that a decoder reads begins so.
bool marks_for_encoder(const Tokenizer& tokenizer) {
  const std::vector<int> before = tokenizer.beginning();
  return tokenizer.closes() && !before.empty() && tokenizer.token(before.front()) == "[CLS]";
}

}  // namespace

void fill_ids(Arch& arch, const fs::path& folder) {
  if (arch.stack != Stack::encoder) return;
  if (fs::exists(folder / kVocabulary)) return fill_ids_from_json(arch, folder / kVocabulary);
  if (!fs::exists(folder / "vocab.txt") && !fs::exists(folder / "vocab.json")) return;
  std::optional<Tokenizer> found;
  try {
    found = Tokenizer::load(folder);
  } catch (const Error&) {
    return;  // of a kind that is not followed here; who needs the tokenizer is told
  }
  const Tokenizer& tokenizer = *found;
  const auto fill = [](int& field, int id) { field = field < 0 ? id : field; };
  fill(arch.pad, tokenizer.pad()), fill(arch.cls, tokenizer.cls());
  fill(arch.sep, tokenizer.sep()), fill(arch.mask, tokenizer.mask());
}

Tokenizer tokenizer_beside(const Arch& arch, const Tokenizer& tokenizer) {
  const bool open = arch.causal && !arch.crosses() && marks_for_encoder(tokenizer);
  return open ? tokenizer.open_ended() : tokenizer;
}

std::vector<std::int32_t> text_beginning(const Arch& arch, const Tokenizer& tokenizer) {
  if (!arch.causal || arch.crosses() || marks_for_encoder(tokenizer)) return {};
  const std::vector<int> ids = tokenizer.beginning();
  return {ids.begin(), ids.end()};
}

std::vector<std::int32_t> prompt_tokens(const Arch& arch, const Tokenizer& tokenizer,
                                        std::string_view text) {
  std::vector<std::int32_t> tokens = text_beginning(arch, tokenizer);
  const std::vector<int> ids = tokenizer.encode(text);
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  return tokens;
}

std::string tokenizer_config(const Arch& arch, const Tokenizer& tokenizer, bool segments) {
  ordered_json json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                    {"clean_up_tokenization_spaces", false},
                    {"model_input_names", {"input_ids", "attention_mask"}}};
  if (segments)
    json["model_input_names"].insert(json["model_input_names"].begin() + 1, "token_type_ids");
  if (arch.positions > 0) json["model_max_length"] = arch.positions;
  const auto name = [&](const char* key, int of_model, int of_tokenizer) {
    const int id = of_model >= 0 ? of_model : of_tokenizer;
    if (id < 0) return;
    const auto& specials = tokenizer.specials();
    check(std::ranges::any_of(specials, [&](const SpecialToken& t) { return t.id == id; }) &&
              (of_model < 0 || of_tokenizer < 0 || of_model == of_tokenizer),
          "tokenizer_config.json: {} is {} in the model; the tokenizer has {} there", key, id,
          of_tokenizer < 0 ? "no special token" : fmt::format("{}", of_tokenizer));
    json[key] = tokenizer.token(id);
  };
  const bool encoder = arch.stack == Stack::encoder;
  name("bos_token", arch.cls, encoder ? tokenizer.cls() : -1);
  name("eos_token", arch.sep, encoder ? tokenizer.sep() : -1);
  name("pad_token", arch.pad, tokenizer.pad());
  name("unk_token", -1, tokenizer.unk());
  if (encoder) {
    name("cls_token", arch.cls, tokenizer.cls());
    name("sep_token", arch.sep, tokenizer.sep());
    name("mask_token", arch.mask, tokenizer.mask());
  }
  return json.dump(2) + "\n";
}

void keep_tokenizer_config(const fs::path& from, const fs::path& to) {
  if (fs::exists(from / kTemplate))
    write_file_atomically(to / kTemplate, read_file(from / kTemplate));
  if (!fs::exists(from / kSettings) || !fs::exists(to / kSettings)) return;
  const std::string name = (from / kSettings).string();
  const json base = parse_strict(name, read_file(name));
  check(base.is_object(), "{}: holds {}; need an object", name, base.type_name());
  auto kept = ordered_json::parse(read_file(to / kSettings));
  const Tokenizer tokenizer = Tokenizer::load(to);
  for (const char* key : {"chat_template", "padding_side", "truncation_side"})
    if (base.contains(key) && !base[key].is_null()) kept[key] = base[key];
  // A name counts where the tokenizer has such a token; it is a text, or an object with one.
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                          "cls_token", "mask_token"}) {
    const auto at = base.find(key);
    if (at == base.end()) continue;
    const json text = at->is_object() ? at->value("content", json()) : *at;
    if (text.is_string() &&
        std::ranges::any_of(tokenizer.specials(), [&](const SpecialToken& special) {
          return tokenizer.token(special.id) == text.get<std::string>();
        }))
      kept[key] = text;
  }
  write_file_atomically(to / kSettings, kept.dump(2) + "\n");
}

}  // namespace graft
