#include "nn/text/unigram.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {
constexpr double kUnknownPenalty = 10;  // below the least score
}

Unigram::Unigram(const Vocabulary& tokens, std::vector<double> scores, int unk, bool byte_fallback)
    : scores_(std::move(scores)), unk_(unk), byte_fallback_(byte_fallback) {
  std::vector<std::pair<std::string_view, int>> keys;
  for (std::size_t i = 0; i < tokens.size(); ++i) keys.emplace_back(tokens[i], int(i));
  trie_ = Trie(std::move(keys));
  double least = std::numeric_limits<double>::infinity();
  for (const double score : scores_) least = std::min(least, score);
  unknown_score_ = least - kUnknownPenalty;
  for (int b = 0; b < 256; ++b) {
    const std::string spelled = fmt::format("<0x{:02X}>", b);
    const Trie::Match token = trie_.longest(spelled);
    byte_ids_.push_back(token.size == spelled.size() ? token.value : -1);
  }
}

void Unigram::search(std::string_view word, std::vector<Node>& best) const {
  best.assign(word.size() + 1, {0, -1, -1});
  const auto offer = [&](std::size_t start, std::size_t end, double score, int id) {
    Node& node = best[end];
    if (node.start < 0 || score > node.score) node = {score, id, int(start)};
  };
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t one = char_size(word[at]);
    const double here = best[at].score;
    bool single = false;
    trie_.prefixes(word.substr(at), [&](std::size_t size, int id) {
      offer(at, at + size, scores_[std::size_t(id)] + here, id);
      single |= size == one;
    });
    if (!single) {
      check(unk_ >= 0, "tokenizer: '{}' has no token and model.unk_id is null",
            word.substr(at, one));
      offer(at, at + one, unknown_score_ + here, unk_);
    }
    at += one;
  }
}

void Unigram::append_unknown(std::string_view text, std::vector<int>& ids) const {
  // Unknown characters together may spell a token whose score was too low to be chosen.
  const Trie::Match token = trie_.longest(text);
  if (token.value >= 0 && token.size == text.size()) {
    ids.push_back(token.value);
    return;
  }
  const auto id = [&](char b) { return byte_ids_[static_cast<unsigned char>(b)]; };
  if (byte_fallback_ && std::ranges::all_of(text, [&](char b) { return id(b) >= 0; }))
    for (const char b : text) ids.push_back(id(b));
  else
    ids.push_back(unk_);
}

void Unigram::encode(std::string_view word, std::vector<int>& ids) const {
  thread_local std::vector<Node> best;
  search(word, best);
  thread_local std::vector<std::pair<int, int>> pieces;  // ends and ids, from the last backwards
  pieces.clear();
  for (int end = int(word.size()); end > 0; end = best[std::size_t(end)].start) {
    const Node& node = best[std::size_t(end)];
    // Unknown characters side by side are one unknown token.
    if (node.id == unk_ && !pieces.empty() && pieces.back().second == unk_) continue;
    pieces.emplace_back(end, node.id);
  }
  std::size_t begin = 0;
  for (std::size_t i = pieces.size(); i-- > 0;) {
    const auto [end, id] = pieces[i];
    if (id == unk_)
      append_unknown(word.substr(begin, std::size_t(end) - begin), ids);
    else
      ids.push_back(id);
    begin = std::size_t(end);
  }
}

}  // namespace graft
