#include "nn/text/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "nn/files/atomic.h"
#include "nn/text/byte_level.h"
#include "nn/text/hub_files.h"
#include "nn/text/sentinels.h"
#include "nn/text/tokenizer_json.h"
#include "nn/text/unicode.h"
#include "nn/text/word_cache.h"
#include "tensor/error.h"

namespace graft {
namespace {

constexpr std::size_t kLongestText = std::size_t(1) << 29;  // bytes; places in a word are ints

}  // namespace

struct Tokenizer::Parts : TokenizerFile {
  std::string name, json;
  SpecialSplitter splitter;
  std::unordered_map<std::string, int> ids;      // a byte-level token's by its bytes
  std::vector<bool> skipped;                     // by id: left out by decode(ids, true)
  std::unordered_map<int, std::string> decoded;  // tokens that decode() shows otherwise

  const std::string& shown(int id) const {
    const auto other = decoded.find(id);
    return other == decoded.end() ? tokens[std::size_t(id)] : other->second;
  }
};

struct Tokenizer::Cache {
  std::mutex mutex;
  WordCache words;
};

Tokenizer::Tokenizer(const BpeModel& model) : Tokenizer("tokenizer", tokenizer_json(model)) {}

Tokenizer::Tokenizer(const std::string& name, std::string tokenizer_json)
    : cache_(std::make_shared<Cache>()) {
  auto parts = std::make_shared<Parts>();
  static_cast<TokenizerFile&>(*parts) = read_tokenizer_json(name, tokenizer_json);
  parts->name = name;
  parts->json = std::move(tokenizer_json);
  parts->splitter = SpecialSplitter(parts->specials, parts->normalizer);
  std::unordered_set<std::string_view> special;
  // The reference decodes a token that is looked for in normalized text as it is looked for, and
  // then no longer knows it for a special one.
  for (const SpecialToken& token : parts->specials) {
    if (token.special) special.insert(token.content);
    if (token.normalized && parts->normalizer)
      parts->decoded.emplace(token.id, parts->normalizer(token.content));
  }
  for (std::size_t i = 0; i < parts->tokens.size(); ++i) {
    const std::string& token = parts->tokens[i];
    parts->skipped.push_back(special.contains(parts->shown(int(i))));
    if (token.empty()) continue;
    const auto bytes = parts->byte_level ? unspell(token) : std::nullopt;
    parts->ids.emplace(bytes.value_or(token), int(i));
  }
  parts_ = std::move(parts);
}

Tokenizer Tokenizer::load(const std::filesystem::path& folder_or_file) {
  HubFile file = read_hub_tokenizer(folder_or_file);
  return Tokenizer(file.name, std::move(file.tokenizer_json));
}

void Tokenizer::save(const std::filesystem::path& tokenizer_json) const {
  write_file_atomically(tokenizer_json, parts_->json);
}

std::vector<int> Tokenizer::encode(std::string_view text) const {
  if (const std::size_t bad = find_invalid_utf8(text); bad != std::string_view::npos)
    fail("tokenizer: the text is not UTF-8 at byte {} of {} (0x{:02X})", bad, text.size(),
         static_cast<unsigned char>(text[bad]));
  check(text.size() <= kLongestText, "tokenizer: the text has {} bytes; need {} or less, in parts",
        text.size(), kLongestText);
  std::vector<int> ids;
  ids.reserve(text.size() / 4 + 1);
  const std::lock_guard lock(cache_->mutex);
  for (const Piece& raw : parts_->splitter.split(text, false)) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    const std::string normal = parts_->normalizer ? parts_->normalizer(std::string(raw.text)) : "";
    check(normal.size() <= kLongestText, "tokenizer: normalized, the text has {} bytes; need {}",
          normal.size(), kLongestText);
    const std::string_view plain = parts_->normalizer ? std::string_view(normal) : raw.text;
    for (const Piece& piece : parts_->splitter.split(plain, true)) {
      const bool first = raw.text.data() == text.data() && piece.text.data() == plain.data();
      if (piece.id >= 0)
        ids.push_back(piece.id);
      else
        encode_words(piece.text, first, ids);
    }
  }
  return ids;
}

void Tokenizer::encode_words(std::string_view text, bool first, std::vector<int>& ids) const {
  Words all;
  all.words.push_back({text, first});
  if (parts_->cut) parts_->cut(all);
  const WordModel& model = *parts_->model;
  for (const Word& word : all.words) {
    for (std::size_t begin = 0; begin < word.text.size();) {
      const std::size_t end = model.part_end(word.text, begin);
      const std::string_view part = word.text.substr(begin, end - begin);
      begin = end;
      if (cache_->words.append(part, ids)) continue;
      const std::size_t before = ids.size();
      model.encode(part, ids);
      cache_->words.add(part, std::span(ids).subspan(before));
    }
  }
}

MarkedIds Tokenizer::encode_marked(std::string_view text) const { return mark(encode(text)); }

MarkedIds Tokenizer::encode_marked(std::string_view first, std::string_view second) const {
  return mark(encode(first), encode(second));
}

MarkedIds Tokenizer::mark(const std::vector<int>& ids) const { return parts_->post.single(ids); }

MarkedIds Tokenizer::mark(const std::vector<int>& first, const std::vector<int>& second) const {
  return parts_->post.pair(first, second);
}

std::vector<int> Tokenizer::beginning() const { return parts_->post.before(); }

bool Tokenizer::closes() const { return parts_->post.closes(); }

Tokenizer Tokenizer::open_ended() const {
  if (!parts_->post.closes()) return *this;
  auto json = nlohmann::ordered_json::parse(parts_->json);
  json["post_processor"] = nullptr;
  return Tokenizer(parts_->name, json.dump(2));
}

std::string Tokenizer::decode(std::span<const int> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  for (const int id : ids) {
    check(id >= 0, "tokenizer: id {} to decode; ids are 0..{}", id, size() - 1);
    if (id >= size()) continue;
    const std::string& token = parts_->shown(id);
    if (!token.empty() && !(skip_special && parts_->skipped[std::size_t(id)]))
      tokens.push_back(token);
  }
  if (parts_->decoder) parts_->decoder(tokens);
  std::string text;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    text.append(!parts_->decoder && i > 0 ? " " : "").append(tokens[i]);
  return text;
}

int Tokenizer::size() const { return int(parts_->tokens.size()); }

int Tokenizer::id(std::string_view token) const {
  if (const int special = special_id({token}); special >= 0) return special;
  const auto at = parts_->ids.find(std::string(token));
  check(at != parts_->ids.end(), "tokenizer: no token '{}' among {}", token, size());
  return at->second;
}

const std::string& Tokenizer::token(int id) const {
  check(id >= 0 && id < size(), "tokenizer: token of id {}; ids are 0..{}", id, size() - 1);
  return parts_->tokens[std::size_t(id)];
}

const std::vector<SpecialToken>& Tokenizer::specials() const { return parts_->specials; }

Tokenizer Tokenizer::with_sentinels(int count) const {
  return Tokenizer(parts_->name, add_sentinels(parts_->name, parts_->json, size(), sep(), count));
}

BpeModel Tokenizer::model() const { return bpe_model(parts_->name, parts_->json); }

int Tokenizer::special_id(std::initializer_list<std::string_view> names) const {
  for (const std::string_view name : names)
    for (const SpecialToken& token : parts_->specials)
      if (token.content == name) return token.id;
  return -1;
}

}  // namespace graft
