#include "nn/text/hub_files.h"

#include <algorithm>
#include <climits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nn/files/atomic.h"
#include "nn/text/charsmap.h"
#include "nn/text/hub_config.h"
#include "nn/text/json_entry.h"
#include "nn/text/sentencepiece.h"
#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using Ids = std::unordered_map<std::string, int>;
using Specials = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kMark = "\u2581";

int id_of(const Ids& ids, const std::string& token) {
  const auto known = ids.find(token);
  check(known != ids.end(), "tokenizer: the vocabulary has no '{}' to set around a text", token);
  return known->second;
}

Json added_tokens(const std::vector<SpecialToken>& specials) {
  Json all = Json::array();
  for (const SpecialToken& token : specials)
    all.push_back({{"id", token.id},
                   {"content", token.content},
                   {"single_word", token.single_word},
                   {"lstrip", token.lstrip},
                   {"rstrip", token.rstrip},
                   {"normalized", token.normalized},
                   {"special", token.special}});
  return all;
}

// The keys of a tokenizer.json in their usual order, all but the model null.
Json new_root(const std::vector<SpecialToken>& specials) {
  Json root{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  root["added_tokens"] = added_tokens(specials);
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"})
    root[key] = nullptr;
  return root;
}

// A template of special tokens and texts: "$A" and "$B" are texts, "" is left out; `type` is the
// pair's second text's.
struct Template {
  const Ids& ids;
  Json special_tokens = Json::object();

  Json part(const std::string& text, int type) {
    if (text.starts_with('$')) return {{"Sequence", {{"id", text.substr(1)}, {"type_id", type}}}};
    special_tokens[text] = {
        {"id", text}, {"ids", Json::array({id_of(ids, text)})}, {"tokens", Json::array({text})}};
    return {{"SpecialToken", {{"id", text}, {"type_id", type}}}};
  }
  Json row(const std::vector<std::pair<std::string, int>>& parts) {
    Json made = Json::array();
    for (const auto& [text, type] : parts)
      if (!text.empty()) made.push_back(part(text, type));
    return made;
  }
  Json processor(const Json& single, const Json& pair) const {
    return {{"type", "TemplateProcessing"},
            {"single", single},
            {"pair", pair},
            {"special_tokens", special_tokens}};
  }
};

// What transformers sets where a family has no template of its own.
Json bos_eos_template(const HubConfig& config, const Specials& defaults, const Ids& ids) {
  const auto token = [&](const char* flag, const std::string& key) -> std::string {
    const auto known = std::ranges::find(defaults, key, &Specials::value_type::first);
    return config.flag(flag, false)
               ? config.special(key, known == defaults.end() ? "" : known->second)
               : "";
  };
  const std::string bos = token("add_bos_token", "bos_token");
  const std::string eos = token("add_eos_token", "eos_token");
  Template rows{ids};
  const Json single = rows.row({{bos, 0}, {"$A", 0}, {eos, 0}});
  const Json pair = rows.row({{bos, 0}, {"$A", 0}, {eos, 0}, {bos, 1}, {"$B", 1}, {eos, 1}});
  return rows.processor(single, pair);
}

Json vocab_json(const Ids& ids) {
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [token, id] : ids) sorted.emplace_back(id, token);
  std::ranges::sort(sorted);
  Json vocab = Json::object();
  // emplace_back, because an insertion by key would search all keys before it.
  auto& entries = vocab.get_ref<Json::object_t&>();
  for (const auto& [id, token] : sorted) entries.emplace_back(token, id);
  return vocab;
}

std::vector<std::string> lines_of(const fs::path& path) {
  const std::string text = read_file(path);
  const std::size_t bad = find_invalid_utf8(text);
  check(bad == std::string::npos, "{} is not UTF-8 at byte {}", path.string(), bad);
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    if (lines.back().ends_with('\r')) lines.back().pop_back();
    begin = end + 1;
  }
  return lines;
}

// --- vocab.json and merges.txt ------------------------------------------------------------------

Ids read_ids(const fs::path& path) {
  const json vocab = parse_strict(path.string(), read_file(path));
  check(vocab.is_object(), "{} is {}; need an object", path.string(), shown(vocab));
  Ids ids;
  for (const auto& item : vocab.items()) {
    check(item.value().is_number_unsigned() && item.value().get<std::uint64_t>() <= INT_MAX,
          "{}: '{}' has id {}; need 0 or more", path.string(), item.key(), shown(item.value()));
    ids.emplace(item.key(), item.value().get<int>());
  }
  return ids;
}

Json read_merges(const fs::path& path) {
  Json merges = Json::array();
  for (const std::string& line : lines_of(path)) {
    if (line.starts_with("#version") || line.empty()) continue;
    const std::size_t space = line.find(' ');
    check(space != line.npos && line.find(' ', space + 1) == line.npos,
          "{}: line '{}'; need two tokens and one space between them", path.string(), line);
    merges.push_back(Json::array({line.substr(0, space), line.substr(space + 1)}));
  }
  return merges;
}

Specials byte_level_specials(const std::string& family) {
  if (family == "Roberta")
    return {{"bos_token", "<s>"},    {"eos_token", "</s>"},  {"unk_token", "<unk>"},
            {"sep_token", "</s>"},   {"pad_token", "<pad>"}, {"cls_token", "<s>"},
            {"mask_token", "<mask>"}};
  const std::string end = "<|endoftext|>";
  if (family == "Qwen2") return {{"eos_token", end}, {"unk_token", end}, {"pad_token", end}};
  return {{"bos_token", end}, {"eos_token", end}, {"unk_token", end}};
}

Json byte_level_cut(const std::string& family, bool prefix) {
  const Json level{{"type", "ByteLevel"},
                   {"add_prefix_space", prefix},
                   {"trim_offsets", true},
                   {"use_regex", family != "Qwen2"}};
  if (family != "Qwen2") return level;
  const Json split{
      {"type", "Split"},
      {"pattern",
       {{"Regex",
         R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, level})}};
}

Json read_byte_level(const fs::path& vocab, const fs::path& merges, const HubConfig& config) {
  const std::string family = config.family("GPT2");
  check(family == "GPT2" || family == "Roberta" || family == "Qwen2",
        "{}: tokenizer_class is {}'s; beside {} need GPT2's, Roberta's or Qwen2's", config.name(),
        family, vocab.string());
  Ids ids = read_ids(vocab);
  const Json vocabulary = vocab_json(ids);
  const Specials defaults = byte_level_specials(family);
  const bool prefix = config.flag("add_prefix_space", false);
  Json root = new_root(config.specials(defaults, ids));
  if (family == "Qwen2") root["normalizer"] = {{"type", "NFC"}};
  root["pre_tokenizer"] = byte_level_cut(family, prefix);
  if (family == "Roberta") {
    const std::string sep = config.special("sep_token", "</s>");
    const std::string cls = config.special("cls_token", "<s>");
    root["post_processor"] = {{"type", "RobertaProcessing"},
                              {"sep", Json::array({sep, id_of(ids, sep)})},
                              {"cls", Json::array({cls, id_of(ids, cls)})},
                              {"trim_offsets", true},
                              {"add_prefix_space", prefix}};
  } else {
    root["post_processor"] = bos_eos_template(config, defaults, ids);
  }
  root["decoder"] = {{"type", "ByteLevel"},
                     {"add_prefix_space", true},
                     {"trim_offsets", true},
                     {"use_regex", true}};
  root["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", ""},
                   {"end_of_word_suffix", ""},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false}};
  root["model"]["vocab"] = vocabulary;
  root["model"]["merges"] = read_merges(merges);
  return root;
}

// --- vocab.txt ----------------------------------------------------------------------------------

Json read_word_piece(const fs::path& path, const HubConfig& config) {
  const std::string family = config.family("Bert");
  check(family == "Bert", "{}: tokenizer_class is {}'s; beside {} need BERT's", config.name(),
        family, path.string());
  Ids ids;
  const std::vector<std::string> lines = lines_of(path);
  // A token that is there twice has the later id.
  for (std::size_t i = 0; i < lines.size(); ++i)
    if (!lines[i].empty()) ids[lines[i]] = int(i);
  const Json vocabulary = vocab_json(ids);
  const Specials defaults{{"unk_token", "[UNK]"},
                          {"sep_token", "[SEP]"},
                          {"pad_token", "[PAD]"},
                          {"cls_token", "[CLS]"},
                          {"mask_token", "[MASK]"}};
  Json root = new_root(config.specials(defaults, ids));
  // Null: as lowercase says.
  const Json accents =
      config.find("strip_accents") ? Json(config.flag("strip_accents", false)) : Json();
  root["normalizer"] = {{"type", "BertNormalizer"},
                        {"clean_text", true},
                        {"handle_chinese_chars", config.flag("tokenize_chinese_chars", true)},
                        {"strip_accents", accents},
                        {"lowercase", config.flag("do_lower_case", true)}};
  root["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  Template rows{ids};
  const std::string cls = config.special("cls_token", "[CLS]");
  const std::string sep = config.special("sep_token", "[SEP]");
  const Json single = rows.row({{cls, 0}, {"$A", 0}, {sep, 0}});
  const Json pair = rows.row({{cls, 0}, {"$A", 0}, {sep, 0}, {"$B", 1}, {sep, 1}});
  root["post_processor"] = rows.processor(single, pair);
  root["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  root["model"] = {{"type", "WordPiece"},
                   {"unk_token", config.special("unk_token", "[UNK]")},
                   {"continuing_subword_prefix", "##"},
                   {"max_input_chars_per_word", 100}};
  root["model"]["vocab"] = vocabulary;
  return root;
}

// --- sentencepiece ------------------------------------------------------------------------------

Json metaspace(const char* scheme, bool split) {
  return {
      {"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", scheme}, {"split", split}};
}

// Sentencepiece's own BPE joins whichever pair makes the piece of least id: as merges, all ways to
// make a piece of two, by that piece's id and then by the length of the left one.
Json merges_of(const std::vector<SentencePiece>& pieces, const Ids& ids) {
  Json merges = Json::array();
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const std::string& piece = pieces[id].text;
    if (ids.at(piece) != int(id)) continue;
    for (std::size_t cut = char_size(piece[0]); cut < piece.size(); cut += char_size(piece[cut])) {
      const std::string left = piece.substr(0, cut), right = piece.substr(cut);
      if (ids.contains(left) && ids.contains(right)) merges.push_back(Json::array({left, right}));
    }
  }
  return merges;
}

// The pieces that are met in a text only as a whole: control symbols, and the user's own.
void add_controls(const SentencePieceModel& model, std::vector<SpecialToken>& specials) {
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    const bool control = piece.type == SentencePiece::control;
    if (!control && piece.type != SentencePiece::user_defined) continue;
    if (std::ranges::find(specials, piece.text, &SpecialToken::content) != specials.end()) continue;
    specials.push_back({piece.text, int(id), control, false, false, false, false});
  }
  std::ranges::sort(specials, {}, &SpecialToken::id);
}

Ids ids_of(const SentencePieceModel& model) {
  Ids ids;
  for (std::size_t i = 0; i < model.pieces.size(); ++i) ids[model.pieces[i].text] = int(i);
  return ids;
}

Json read_llama(const std::string& name, const SentencePieceModel& model, const HubConfig& config) {
  check(model.type == SentencePieceModel::bpe, "{}: its model_type is {}; LLaMA's need BPE's, {}",
        name, model.type, int(SentencePieceModel::bpe));
  Ids ids = ids_of(model);
  const Json vocabulary = vocab_json(ids);
  const Specials defaults{{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
  std::vector<SpecialToken> specials = config.specials(defaults, ids);
  add_controls(model, specials);
  Json root = new_root(specials);
  const bool prefix = config.flag("add_prefix_space", true);
  const bool legacy = config.flag("legacy", false);
  root["pre_tokenizer"] = metaspace(!prefix ? "never" : legacy ? "always" : "first", false);
  root["post_processor"] = bos_eos_template(config, defaults, ids);
  Json steps =
      Json::array({Json{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
                   Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}}});
  if (prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  root["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
  root["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", true},
                   {"byte_fallback", true},
                   {"ignore_merges", false}};
  root["model"]["vocab"] = vocabulary;
  root["model"]["merges"] = merges_of(model.pieces, ids_of(model));
  return root;
}

Json read_t5(const std::string& name, const SentencePieceModel& model, const HubConfig& config) {
  check(model.type == SentencePieceModel::unigram && model.pieces.size() > 2,
        "{}: its model_type is {}; T5's need Unigram's, {}, and three pieces or more", name,
        model.type, int(SentencePieceModel::unigram));
  constexpr int kMostExtra = 10000;
  const json* wanted = config.find("extra_ids");
  check(wanted == nullptr || (wanted->is_number_unsigned() && *wanted <= kMostExtra),
        "{}: extra_ids is {}; need 0..{}", config.name(), wanted ? shown(*wanted) : "", kMostExtra);
  Ids ids = ids_of(model);
  Json vocabulary = Json::array();
  for (const SentencePiece& piece : model.pieces)
    vocabulary.push_back(Json::array({piece.text, double(piece.score)}));
  std::vector<SpecialToken> extra;
  for (int i = wanted ? wanted->get<int>() : 100; i-- > 0;) {
    const std::string token = fmt::format("<extra_id_{}>", i);
    extra.push_back({token, int(vocabulary.size()), true, false, false, false, false});
    ids[token] = int(vocabulary.size());
    vocabulary.push_back(Json::array({token, 0.0}));
  }
  const Specials defaults{{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
  std::vector<SpecialToken> specials = config.specials(defaults, ids);
  for (const SpecialToken& token : extra)
    if (std::ranges::find(specials, token.content, &SpecialToken::content) == specials.end())
      specials.push_back(token);
  add_controls(model, specials);
  Json root = new_root(specials);
  if (!model.charsmap.empty())
    root["normalizer"] = {{"type", "Precompiled"},
                          {"precompiled_charsmap", to_base64(model.charsmap)}};
  root["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", Json::array({Json{{"type", "WhitespaceSplit"}},
                                                          metaspace("always", true)})}};
  Template rows{ids};
  const Json single = rows.row({{"$A", 0}, {"</s>", 0}});
  const Json pair = rows.row({{"$A", 0}, {"</s>", 0}, {"$B", 0}, {"</s>", 0}});
  root["post_processor"] = rows.processor(single, pair);
  root["decoder"] = metaspace("always", true);
  root["model"] = {{"type", "Unigram"}, {"unk_id", 2}, {"byte_fallback", false}};
  root["model"]["vocab"] = vocabulary;
  return root;
}

Json read_pieces(const fs::path& path, const HubConfig& config) {
  const SentencePieceModel model = read_sentencepiece(path.string(), read_file(path));
  const std::string family = config.family(path.filename() == "spiece.model" ? "T5" : "Llama");
  check(family == "T5" || family == "Llama",
        "{}: tokenizer_class is {}'s; beside {} need T5's or Llama's", config.name(), family,
        path.string());
  return family == "T5" ? read_t5(path.string(), model, config)
                        : read_llama(path.string(), model, config);
}

}  // namespace

HubFile read_hub_tokenizer(const fs::path& path) {
  if (!fs::is_directory(path)) return {path.string(), read_file(path)};
  if (fs::exists(path / "tokenizer.json"))
    return {(path / "tokenizer.json").string(), read_file(path / "tokenizer.json")};
  const auto made = [&](const char* file, const Json& root) -> HubFile {
    return {(path / file).string(), root.dump(2) + "\n"};
  };
  for (const char* pieces : {"spiece.model", "tokenizer.model"})
    if (fs::exists(path / pieces)) return made(pieces, read_pieces(path / pieces, HubConfig(path)));
  for (const char* vocab : {"vocab.json", "encoder.json"})
    for (const char* merges : {"merges.txt", "vocab.bpe"})
      if (fs::exists(path / vocab) && fs::exists(path / merges))
        return made(vocab, read_byte_level(path / vocab, path / merges, HubConfig(path)));
  if (fs::exists(path / "vocab.txt"))
    return made("vocab.txt", read_word_piece(path / "vocab.txt", HubConfig(path)));
  fail(
      "{}: no tokenizer; need tokenizer.json, or vocab.json and merges.txt, or vocab.txt, or "
      "spiece.model, or tokenizer.model",
      path.string());
}

}  // namespace graft
