#include "nn/text/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <queue>
#include <tuple>

#include "nn/text/byte_level.h"
#include "nn/text/tokenizer_json.h"
#include "tensor/error.h"

namespace graft {
namespace {

constexpr std::size_t kCachedWords = 1 << 18;
constexpr std::size_t kCachedWordBytes = 64;

std::uint64_t pair_key(int left, int right) {
  return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
}

// A token of a word in the making, and its neighbours.
struct Symbol {
  int id, before, after;  // id is -1 once joined to the symbol before it
};

// A merge of the symbol `at` with the one after it.
struct Candidate {
  int rank, at;
  bool operator>(const Candidate& other) const {
    return std::tie(rank, at) > std::tie(other.rank, other.at);
  }
};

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};

}  // namespace

struct Tokenizer::Cache {
  struct Range {
    std::size_t begin, size;
  };
  std::mutex mutex;
  std::unordered_map<std::string, Range, TextHash, std::equal_to<>> words;
  std::vector<int> ids;  // of all words, one after another
};

Tokenizer::Tokenizer(BpeModel model)
    : model_(std::move(model)), splitter_(model_.specials), cache_(std::make_shared<Cache>()) {
  std::vector<bool> is_special(model_.tokens.size());
  skipped_.resize(model_.tokens.size());
  for (const SpecialToken& token : model_.specials) {
    check(
        token.id >= 0 && token.id < size() && model_.tokens[std::size_t(token.id)] == token.content,
        "tokenizer: special token '{}' has id {}, which is another token or none", token.content,
        token.id);
    is_special[std::size_t(token.id)] = true;
    skipped_[std::size_t(token.id)] = token.special;
  }
  for (int i = 0; i < size(); ++i) {
    const std::string& token = model_.tokens[std::size_t(i)];
    if (is_special[std::size_t(i)]) continue;
    const auto [at, fresh] = ids_.emplace(token, i);
    check(fresh, "tokenizer: tokens {} and {} are both '{}'", at->second, i, spell(token));
  }
  for (int b = 0; b < 256; ++b) {
    const auto at = ids_.find(std::string(1, char(b)));
    check(at != ids_.end(),
          "tokenizer: byte 0x{:02X} has no token; a byte-level vocabulary has all 256", b);
    byte_ids_.push_back(at->second);
  }
  for (const auto& [left, right] : model_.merges) {
    const int rank = int(merges_.size());
    check(left >= 0 && left < size() && right >= 0 && right < size(),
          "tokenizer: merge {} joins ids {} and {}; ids are 0..{}", rank, left, right, size() - 1);
    const std::string &a = model_.tokens[std::size_t(left)], &b = model_.tokens[std::size_t(right)];
    const auto made = ids_.find(a + b);
    check(made != ids_.end(), "tokenizer: merge {} makes '{}', which is no token", rank,
          spell(a + b));
    check(merges_.emplace(pair_key(left, right), Merge{rank, made->second}).second,
          "tokenizer: merge {} ('{}' '{}') is there twice", rank, spell(a), spell(b));
  }
}

Tokenizer Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  BpeModel model = read_tokenizer_json(tokenizer_json);
  try {
    return Tokenizer(std::move(model));
  } catch (const Error& error) {
    fail("{}: {}", tokenizer_json.string(), error.what());
  }
}

void Tokenizer::save(const std::filesystem::path& tokenizer_json) const {
  write_tokenizer_json(model_, tokenizer_json);
}

std::vector<int> Tokenizer::encode(std::string_view text) const {
  if (const std::size_t bad = find_invalid_utf8(text); bad != std::string_view::npos)
    fail("tokenizer: the text is not UTF-8 at byte {} of {} (0x{:02X})", bad, text.size(),
         static_cast<unsigned char>(text[bad]));
  std::vector<int> ids;
  ids.reserve(text.size() / 4 + 1);
  const std::lock_guard lock(cache_->mutex);
  for (const Piece& piece : splitter_.split(text)) {
    if (piece.id >= 0)
      ids.push_back(piece.id);
    else if (model_.add_prefix_space && !piece.text.starts_with(' '))
      encode_piece(" " + std::string(piece.text), ids);
    else
      encode_piece(piece.text, ids);
  }
  return ids;
}

void Tokenizer::encode_piece(std::string_view text, std::vector<int>& ids) const {
  Cache& cache = *cache_;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = word_end(text, begin);
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (const auto known = cache.words.find(word); known != cache.words.end()) {
      const auto first = cache.ids.begin() + std::ptrdiff_t(known->second.begin);
      ids.insert(ids.end(), first, first + std::ptrdiff_t(known->second.size));
      continue;
    }
    const std::size_t before = ids.size();
    encode_word(word, ids);
    if (word.size() > kCachedWordBytes || cache.words.size() >= kCachedWords) continue;
    cache.words.emplace(std::string(word), Cache::Range{cache.ids.size(), ids.size() - before});
    cache.ids.insert(cache.ids.end(), ids.begin() + std::ptrdiff_t(before), ids.end());
  }
}

void Tokenizer::encode_word(std::string_view word, std::vector<int>& ids) const {
  const int n = int(word.size());
  std::vector<Symbol> symbols(word.size());
  for (int i = 0; i < n; ++i) {
    const int byte = static_cast<unsigned char>(word[std::size_t(i)]);
    symbols[std::size_t(i)] = {byte_ids_[std::size_t(byte)], i - 1, i + 1 < n ? i + 1 : -1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto merge_at = [&](int at) {
    const Symbol& left = symbols[std::size_t(at)];
    if (left.id < 0 || left.after < 0) return merges_.end();
    return merges_.find(pair_key(left.id, symbols[std::size_t(left.after)].id));
  };
  const auto propose = [&](int at) {
    if (const auto merge = merge_at(at); merge != merges_.end())
      queue.push({merge->second.rank, at});
  };
  for (int i = 0; i + 1 < n; ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    // An earlier merge may have changed this pair since it was proposed.
    const auto merge = merge_at(best.at);
    if (merge == merges_.end() || merge->second.rank != best.rank) continue;
    Symbol& left = symbols[std::size_t(best.at)];
    Symbol& right = symbols[std::size_t(left.after)];
    left.id = merge->second.id;
    left.after = right.after;
    right.id = -1;
    if (left.after >= 0) symbols[std::size_t(left.after)].before = best.at;
    if (left.before >= 0) propose(left.before);
    propose(best.at);
  }
  for (const Symbol& symbol : symbols)
    if (symbol.id >= 0) ids.push_back(symbol.id);
}

std::string Tokenizer::decode(std::span<const int> ids, bool skip_special) const {
  std::string text;
  for (const int id : ids) {
    check(id >= 0 && id < size(), "tokenizer: id {} to decode; ids are 0..{}", id, size() - 1);
    if (!(skip_special && skipped_[std::size_t(id)])) text += model_.tokens[std::size_t(id)];
  }
  return text;
}

int Tokenizer::id(std::string_view token) const {
  if (const int special = special_id({token}); special >= 0) return special;
  const auto at = ids_.find(std::string(token));
  check(at != ids_.end(), "tokenizer: no token '{}' among {}", token, size());
  return at->second;
}

int Tokenizer::special_id(std::initializer_list<std::string_view> names) const {
  for (const std::string_view name : names)
    for (const SpecialToken& token : model_.specials)
      if (token.content == name) return token.id;
  return -1;
}

}  // namespace graft
