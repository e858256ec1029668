#include "nn/text/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>
#include <tuple>

#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

constexpr std::string_view kMark = "\u2581";

std::uint64_t pair_key(int left, int right) {
  return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
}

std::size_t place_of(std::uint64_t pair, std::size_t places) {
  return std::size_t((pair * 0x9E3779B97F4A7C15u) >> 32) & (places - 1);
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

}  // namespace

Bpe::Bpe(const std::string& name, std::unordered_map<std::string, int> ids,
         const Vocabulary& tokens, const std::vector<BpeMerge>& merges, BpeOptions options)
    : options_(std::move(options)), ids_(std::move(ids)) {
  for (int b = 0; b < 256; ++b) {
    const auto known = ids_.find(std::string(1, char(b)));
    byte_ids_[std::size_t(b)] = known == ids_.end() ? -1 : known->second;
    const auto spelled = ids_.find(fmt::format("<0x{:02X}>", b));
    fallback_[std::size_t(b)] = spelled == ids_.end() ? -1 : spelled->second;
  }
  merges_.resize(std::bit_ceil(2 * merges.size() + 2));
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const auto [left, right, made] = merges[i];
    const std::uint64_t pair = pair_key(left, right);
    std::size_t place = place_of(pair, merges_.size());
    for (; merges_[place].rank >= 0; place = (place + 1) & (merges_.size() - 1))
      check(merges_[place].pair != pair, "{}: merges[{}] ('{}' '{}') is there twice", name, i,
            tokens[std::size_t(left)], tokens[std::size_t(right)]);
    merges_[place] = {pair, int(i), made};
  }
  parted_ = can_be_parted(tokens, merges);
}

const Bpe::Merge* Bpe::find_merge(int left, int right) const {
  const std::uint64_t pair = pair_key(left, right);
  std::size_t place = place_of(pair, merges_.size());
  for (; merges_[place].rank >= 0; place = (place + 1) & (merges_.size() - 1))
    if (merges_[place].pair == pair) return &merges_[place];
  return nullptr;
}

// Words that sentencepiece keeps whole texts in fall apart where a mark follows another character:
// then a cache of words serves. It is the same as long as no merge joins over such a place, and the
// mark itself is a token, so that unknown characters before it are done with.
bool Bpe::can_be_parted(const Vocabulary& tokens, const std::vector<BpeMerge>& merges) const {
  if (options_.byte_level || options_.ignore_merges || !ids_.contains(std::string(kMark)) ||
      !options_.prefix.empty() || !options_.suffix.empty())
    return false;
  const auto known = std::ranges::count_if(fallback_, [](int id) { return id >= 0; });
  if (options_.byte_fallback && known != 256) return false;
  return std::ranges::none_of(merges, [&](const BpeMerge& merge) {
    return !tokens[std::size_t(merge.left)].ends_with(kMark) &&
           tokens[std::size_t(merge.right)].starts_with(kMark);
  });
}

std::size_t Bpe::part_end(std::string_view word, std::size_t begin) const {
  if (!parted_) return word.size();
  std::size_t at = begin;
  while (word.substr(at).starts_with(kMark)) at += kMark.size();
  return std::min(word.find(kMark, at), word.size());
}

int Bpe::unit(std::string_view text, bool begins, bool ends) const {
  const bool bare = (begins || options_.prefix.empty()) && (!ends || options_.suffix.empty());
  if (bare && text.size() == 1) return byte_ids_[static_cast<unsigned char>(text[0])];
  std::string whole = (begins ? "" : options_.prefix) + std::string(text);
  if (ends) whole += options_.suffix;
  const auto known = ids_.find(whole);
  return known == ids_.end() ? -1 : known->second;
}

bool Bpe::append_bytes(std::string_view text, std::vector<int>& units) const {
  const auto id = [&](char b) { return fallback_[static_cast<unsigned char>(b)]; };
  if (!std::ranges::all_of(text, [&](char b) { return id(b) >= 0; })) return false;
  for (const char b : text) units.push_back(id(b));
  return true;
}

void Bpe::append_units(std::string_view word, std::vector<int>& units) const {
  int unknown = 0;  // met and not yet appended; bytes that are fallen back to go before them
  const auto flush = [&] {
    if (unknown > 0) units.push_back(options_.unk);
    unknown = 0;
  };
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t size = options_.byte_level ? 1 : char_size(word[at]);
    const std::string_view text = word.substr(at, size);
    const bool begins = at == 0, ends = at + size == word.size();
    at += size;
    if (const int id = unit(text, begins, ends); id >= 0) {
      flush();
      units.push_back(id);
      continue;
    }
    if (options_.byte_fallback) {
      const bool bare = (begins || options_.prefix.empty()) && (!ends || options_.suffix.empty());
      const std::string whole = bare ? std::string(text)
                                     : (begins ? "" : options_.prefix) + std::string(text) +
                                           (ends ? options_.suffix : "");
      if (append_bytes(whole, units)) continue;
    }
    if (options_.unk < 0) continue;
    if (!options_.fuse_unk) flush();
    unknown = 1;
  }
  flush();
}

void Bpe::join(std::vector<int>& units) const {
  const int n = int(units.size());
  std::vector<Symbol> symbols(units.size());
  for (int i = 0; i < n; ++i)
    symbols[std::size_t(i)] = {units[std::size_t(i)], i - 1, i + 1 < n ? i + 1 : -1};
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto merge_at = [&](int at) -> const Merge* {
    const Symbol& left = symbols[std::size_t(at)];
    if (left.id < 0 || left.after < 0) return nullptr;
    return find_merge(left.id, symbols[std::size_t(left.after)].id);
  };
  const auto propose = [&](int at) {
    if (const Merge* merge = merge_at(at)) queue.push({merge->rank, at});
  };
  for (int i = 0; i + 1 < n; ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    // An earlier merge may have changed this pair since it was proposed.
    const Merge* merge = merge_at(best.at);
    if (merge == nullptr || merge->rank != best.rank) continue;
    Symbol& left = symbols[std::size_t(best.at)];
    Symbol& right = symbols[std::size_t(left.after)];
    left.id = merge->id;
    left.after = right.after;
    right.id = -1;
    if (left.after >= 0) symbols[std::size_t(left.after)].before = best.at;
    if (left.before >= 0) propose(left.before);
    propose(best.at);
  }
  units.clear();
  for (const Symbol& symbol : symbols)
    if (symbol.id >= 0) units.push_back(symbol.id);
}

void Bpe::encode(std::string_view word, std::vector<int>& ids) const {
  if (options_.ignore_merges)
    if (const auto known = ids_.find(std::string(word)); known != ids_.end()) {
      ids.push_back(known->second);
      return;
    }
  std::vector<int> units;
  append_units(word, units);
  if (units.size() > 1) join(units);
  ids.insert(ids.end(), units.begin(), units.end());
}

}  // namespace graft
