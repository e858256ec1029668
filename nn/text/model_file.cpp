// Reading the object `model` of tokenizer.json.
#include <climits>
#include <cstdint>
#include <unordered_map>
#include <utility>

#include "nn/text/bpe.h"
#include "nn/text/byte_level.h"
#include "nn/text/json_entry.h"
#include "nn/text/model.h"
#include "nn/text/unigram.h"
#include "nn/text/word_piece.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;

constexpr std::size_t kLongestAffix = 100;  // each character of a text may get one

using Ids = std::unordered_map<std::string, int>;

// Tokens by id.
Vocabulary read_vocabulary(const std::string& name, const json& vocab) {
  check(vocab.is_object(), "{} is not an object", name);
  // Published vocabularies skip few ids; a file that skips most is damaged, or means harm.
  const std::size_t most = 2 * vocab.size() + 1000;
  Vocabulary tokens;
  for (const auto& item : vocab.items()) {
    const json& id = item.value();
    check(id.is_number_unsigned() && id.get<std::uint64_t>() < most,
          "{}: '{}' has id {}; {} tokens need ids of 0 or more and below {}", name, item.key(),
          id.dump(), vocab.size(), most);
    const auto at = id.get<std::size_t>();
    if (at >= tokens.size()) tokens.resize(at + 1);
    check(tokens[at].empty(), "{}: '{}' and '{}' both have id {}", name, tokens[at], item.key(),
          at);
    tokens[at] = item.key();
  }
  return tokens;
}

Ids ids_of(const Vocabulary& tokens) {
  Ids ids;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (!tokens[i].empty()) ids.emplace(tokens[i], int(i));
  return ids;
}

int find_id(const Ids& ids, const std::string& token) {
  const auto known = ids.find(token);
  return known == ids.end() ? -1 : known->second;
}

std::pair<std::string, std::string> read_merge(const std::string& name, const json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  check(merge.is_string(), "{} is {}; need \"a b\" or [\"a\", \"b\"]", name, shown(merge));
  const std::string text = merge.get<std::string>();
  const std::size_t space = text.find(' ');
  check(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
        "{} is '{}'; need two tokens and one space between them", name, text);
  return {text.substr(0, space), text.substr(space + 1)};
}

std::vector<BpeMerge> read_merges(const std::string& name, const json& merges, const Ids& ids,
                                  const std::string& prefix) {
  std::vector<BpeMerge> made;
  made.reserve(merges.size());
  for (const json& merge : merges) {
    const auto at = [&] { return fmt::format("{}[{}]", name, made.size()); };
    const auto [left, right] =
        merge.is_array() && merge.size() == 2 ? read_merge("", merge) : read_merge(at(), merge);
    const bool cut = !prefix.empty() && right.starts_with(prefix);
    const std::string whole = left + (cut ? right.substr(prefix.size()) : right);
    const BpeMerge found{find_id(ids, left), find_id(ids, right), find_id(ids, whole)};
    if (found.left < 0 || found.right < 0 || found.made < 0)
      fail("{} ('{}' '{}'): vocab has no '{}'", at(), left, right,
           found.left < 0    ? left
           : found.right < 0 ? right
                             : whole);
    made.push_back(found);
  }
  return made;
}

// By the bytes that tokens spell; one with a character that spells none is met only as a special
// token.
Ids spelled_ids(const Vocabulary& tokens) {
  Ids ids;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (const auto bytes = unspell(tokens[i]); bytes && !bytes->empty()) ids[*bytes] = int(i);
  return ids;
}

ModelFile read_bpe(Entry& entry, bool byte_level) {
  const json* dropout = entry.find("dropout");
  check(dropout == nullptr || *dropout == 0.0, "{}: dropout is {}; this version reads only null",
        entry.name(), dropout == nullptr ? "" : shown(*dropout));
  BpeOptions options;
  options.byte_level = byte_level;
  options.byte_fallback = entry.flag("byte_fallback", false);
  options.fuse_unk = entry.flag("fuse_unk", false);
  options.ignore_merges = entry.flag("ignore_merges", false);
  options.prefix = entry.text("continuing_subword_prefix", "");
  options.suffix = entry.text("end_of_word_suffix", "");
  check(options.prefix.size() <= kLongestAffix && options.suffix.size() <= kLongestAffix,
        "{}: its prefix has {} bytes, its suffix {}; need {} at most", entry.name(),
        options.prefix.size(), options.suffix.size(), kLongestAffix);
  const std::string unk = entry.text("unk_token", "");
  Vocabulary tokens = read_vocabulary(entry.inside("vocab"), entry.at("vocab"));
  Ids ids = ids_of(tokens);
  const auto merges =
      read_merges(entry.inside("merges"), entry.array("merges"), ids, options.prefix);
  if (!unk.empty()) options.unk = find_id(ids, unk);
  if (byte_level) {
    check(!options.byte_fallback, "{}: byte_fallback is true beside pre_tokenizer ByteLevel",
          entry.name());
    ids = spelled_ids(tokens);
  }
  auto model = std::make_unique<Bpe>(entry.name(), std::move(ids), tokens, merges, options);
  return {std::move(model), std::move(tokens)};
}

ModelFile read_word_piece(Entry& entry) {
  const std::string prefix = entry.text("continuing_subword_prefix", "##");
  const std::size_t longest = entry.find("max_input_chars_per_word")
                                  ? entry.count("max_input_chars_per_word", INT_MAX)
                                  : 100;
  const std::string unk = entry.text("unk_token", "[UNK]");
  Vocabulary tokens = read_vocabulary(entry.inside("vocab"), entry.at("vocab"));
  auto model = std::make_unique<WordPiece>(tokens, prefix, longest, find_id(ids_of(tokens), unk));
  return {std::move(model), std::move(tokens)};
}

ModelFile read_word_level(Entry& entry) {
  const std::string unk = entry.text("unk_token", "<unk>");
  Vocabulary tokens = read_vocabulary(entry.inside("vocab"), entry.at("vocab"));
  auto model = std::make_unique<WordLevel>(tokens, find_id(ids_of(tokens), unk));
  return {std::move(model), std::move(tokens)};
}

ModelFile read_unigram(Entry& entry) {
  Vocabulary tokens;
  std::vector<double> scores;
  for (const json& piece : entry.array("vocab")) {
    check(piece.is_array() && piece.size() == 2 && piece[0].is_string() && piece[1].is_number(),
          "{}[{}] is {}; need [\"token\", score]", entry.inside("vocab"), tokens.size(),
          shown(piece));
    tokens.push_back(piece[0].get<std::string>());
    scores.push_back(piece[1].get<double>());
  }
  int unk = -1;
  if (entry.find("unk_id")) {
    check(!tokens.empty(), "{} is empty, and unk_id is not null", entry.inside("vocab"));
    unk = int(entry.count("unk_id", tokens.size() - 1));
  }
  const bool fallback = entry.flag("byte_fallback", false);
  auto model = std::make_unique<Unigram>(tokens, std::move(scores), unk, fallback);
  return {std::move(model), std::move(tokens)};
}

// Files older than the key `type` say by their other keys what they are.
std::string model_type(Entry& entry) {
  if (entry.find("type")) return entry.text("type");
  if (entry.find("merges")) return "BPE";
  if (entry.find("max_input_chars_per_word")) return "WordPiece";
  const json* vocab = entry.find("vocab");
  return vocab != nullptr && vocab->is_array() ? "Unigram" : "WordLevel";
}

}  // namespace

ModelFile read_word_model(const std::string& name, const json& value, bool byte_level) {
  Entry entry(name, value);
  const std::string type = model_type(entry);
  check(type == "BPE" || !byte_level,
        "{}: type is \"{}\"; this version reads pre_tokenizer ByteLevel only with BPE", name, type);
  ModelFile made;
  if (type == "BPE")
    made = read_bpe(entry, byte_level);
  else if (type == "WordPiece")
    made = read_word_piece(entry);
  else if (type == "Unigram")
    made = read_unigram(entry);
  else if (type == "WordLevel")
    made = read_word_level(entry);
  else
    fail("{}: type is \"{}\"; need BPE, WordPiece, Unigram or WordLevel", name, type);
  entry.done();
  return made;
}

}  // namespace graft
