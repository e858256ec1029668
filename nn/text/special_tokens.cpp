#include "nn/text/special_tokens.h"

#include <algorithm>
#include <utility>

#include "nn/text/byte_level.h"
#include "nn/text/unicode.h"

namespace graft {
namespace {

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  std::size_t before = begin;
  while (before > 0 && (static_cast<unsigned char>(text[--before]) & 0xC0) == 0x80) continue;
  return (begin > 0 && is(char_at(text, before).code, kWord)) ||
         (end < text.size() && is(char_at(text, end).code, kWord));
}

}  // namespace

SpecialSplitter::SpecialSplitter(std::vector<SpecialToken> tokens, const Normalizer& normalizer)
    : tokens_(std::move(tokens)) {
  std::vector<std::string> contents;
  for (const SpecialToken& token : tokens_)
    contents.push_back(token.normalized && normalizer ? normalizer(token.content) : token.content);
  for (const bool normalized : {false, true}) {
    std::vector<std::pair<std::string_view, int>> keys;
    // Of tokens that are equal once normalized the first wins, and special ones go first; in a trie
    // it is the last that counts.
    for (const bool special : {false, true})
      for (std::size_t i = tokens_.size(); i-- > 0;)
        if (tokens_[i].normalized == normalized && tokens_[i].special == special)
          keys.emplace_back(contents[i], int(i));
    tries_[normalized] = Trie(std::move(keys));
  }
}

std::vector<Piece> SpecialSplitter::split(std::string_view text, bool normalized) const {
  const Trie& trie = tries_[normalized];
  std::vector<Piece> pieces;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Trie::Match match = trie.longest(text.substr(at));
    const std::size_t begin = at, end = at + std::max<std::size_t>(match.size, 1);
    at = end;  // the search goes on behind the token itself: white space taken along may begin one
    if (match.value < 0) continue;
    const SpecialToken& token = tokens_[std::size_t(match.value)];
    if (token.single_word && touches_word(text, begin, end)) continue;
    std::size_t start = std::max(begin, done), stop = std::max(end, done);
    if (token.lstrip && begin > done) start = done + space_before(text.substr(done), begin - done);
    if (token.rstrip) stop = std::max(stop, space_after(text, end));
    if (start > done) pieces.push_back({text.substr(done, start - done), -1});
    pieces.push_back({text.substr(start, stop - start), token.id});
    done = stop;
  }
  if (done < text.size()) pieces.push_back({text.substr(done), -1});
  return pieces;
}

std::vector<Piece> SpecialSplitter::split(std::string_view text) const {
  std::vector<Piece> pieces;
  for (const Piece& piece : split(text, false)) {
    if (piece.id >= 0) {
      pieces.push_back(piece);
      continue;
    }
    const std::vector<Piece> inner = split(piece.text, true);
    pieces.insert(pieces.end(), inner.begin(), inner.end());
  }
  return pieces;
}

}  // namespace graft
