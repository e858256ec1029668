// vocab.json and merges.txt (GPT-2, RoBERTa, Qwen2) and vocab.txt (BERT) as a tokenizer.json.
#include <algorithm>
#include <cstdint>

#include "nn/files/atomic.h"
#include "nn/text/hub_json.h"
#include "nn/text/unicode.h"
#include "nn/text/word_patterns.h"
#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::uint64_t kMostId = 999999999;

std::vector<std::string> lines_of(const fs::path& path) {
  const std::string text = read_file(path);
  const std::size_t bad = find_invalid_utf8(text);
  check(bad == std::string::npos, "{} is not UTF-8 at byte {}", path.string(), bad);
  const std::size_t zero = text.find('\0');
  check(zero == std::string::npos, "{}: byte {} is zero; need text", path.string(), zero);
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    if (lines.back().ends_with('\r')) lines.back().pop_back();
    begin = end + 1;
  }
  return lines;
}

HubIds read_ids(const fs::path& path) {
  const json vocab = parse_strict(path.string(), read_file(path));
  check(vocab.is_object(), "{} is {}; need an object", path.string(), shown(vocab));
  HubIds ids;
  for (const auto& item : vocab.items()) {
    check(item.value().is_number_unsigned() && item.value().get<std::uint64_t>() <= kMostId,
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

}  // namespace

Json byte_level_cut(const std::string& family, bool prefix) {
  const Json level{{"type", "ByteLevel"},
                   {"add_prefix_space", prefix},
                   {"trim_offsets", true},
                   {"use_regex", family != "Qwen2"}};
  if (family != "Qwen2") return level;
  const Json split{{"type", "Split"},
                   {"pattern", {{"Regex", kQwen2Pattern}}},
                   {"behavior", "Isolated"},
                   {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, level})}};
}

Json bert_parts(const HubConfig& config) {
  // Null: as lowercase says.
  const Json accents =
      config.find("strip_accents") ? Json(config.flag("strip_accents", false)) : Json();
  return {{"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", config.flag("tokenize_chinese_chars", true)},
            {"strip_accents", accents},
            {"lowercase", config.flag("do_lower_case", true)}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}}};
}

Json byte_level_tokenizer(const fs::path& vocab, const fs::path& merges, const HubConfig& config) {
  const std::string family = config.family("GPT2");
  check(family == "GPT2" || family == "Roberta" || family == "Qwen2",
        "{}: tokenizer_class is {}'s; beside {} need GPT2's, Roberta's or Qwen2's", config.name(),
        family, vocab.string());
  HubIds ids = read_ids(vocab);
  const Json vocabulary = vocab_json(ids);
  const HubSpecials& defaults = class_specials(family);
  const bool prefix = config.flag("add_prefix_space", false);
  Json root = new_tokenizer_json(config.specials(defaults, ids));
  if (family == "Qwen2") root["normalizer"] = {{"type", "NFC"}};
  root["pre_tokenizer"] = byte_level_cut(family, prefix);
  if (family == "Roberta") {
    const std::string sep = config.special("sep_token", "</s>");
    const std::string cls = config.special("cls_token", "<s>");
    root["post_processor"] = {{"type", "RobertaProcessing"},
                              {"sep", Json::array({sep, hub_id(ids, sep)})},
                              {"cls", Json::array({cls, hub_id(ids, cls)})},
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

Json word_piece_tokenizer(const fs::path& path, const HubConfig& config) {
  const std::string family = config.family("Bert");
  check(family == "Bert", "{}: tokenizer_class is {}'s; beside {} need BERT's", config.name(),
        family, path.string());
  HubIds ids;
  const std::vector<std::string> lines = lines_of(path);
  // A token that is there twice has the later id.
  for (std::size_t i = 0; i < lines.size(); ++i)
    if (!lines[i].empty()) ids[lines[i]] = int(i);
  const Json vocabulary = vocab_json(ids);
  const HubSpecials& defaults = class_specials("Bert");
  Json root = new_tokenizer_json(config.specials(defaults, ids));
  const Json parts = bert_parts(config);  // items() keeps no temporary alive
  for (const auto& part : parts.items()) root[part.key()] = part.value();
  HubTemplate rows(ids);
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

}  // namespace graft
