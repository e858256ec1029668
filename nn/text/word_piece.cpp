#include "nn/text/word_piece.h"

#include <utility>

#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

using Keys = std::vector<std::pair<std::string_view, int>>;

Keys keys_of(const Vocabulary& tokens) {
  Keys keys;
  for (std::size_t i = 0; i < tokens.size(); ++i) keys.emplace_back(tokens[i], int(i));
  return keys;
}

void append_unknown(int unk, std::string_view word, std::vector<int>& ids) {
  check(unk >= 0,
        "tokenizer: the word '{}' is unknown and the vocabulary lacks its unk_token to say so",
        word.substr(0, 80));
  ids.push_back(unk);
}

}  // namespace

WordPiece::WordPiece(const Vocabulary& tokens, const std::string& prefix, std::size_t longest,
                     int unk)
    : starts_(keys_of(tokens)), longest_(longest), unk_(unk) {
  Keys keys = keys_of(tokens);
  std::erase_if(keys, [&](const auto& key) { return !key.first.starts_with(prefix); });
  for (auto& key : keys) key.first.remove_prefix(prefix.size());
  continuations_ = Trie(std::move(keys));
}

bool WordPiece::append_pieces(std::string_view word, std::vector<int>& ids) const {
  if (word.size() > longest_ && count_chars(word) > longest_) return false;
  for (std::size_t at = 0; at < word.size();) {
    const Trie::Match piece = (at == 0 ? starts_ : continuations_).longest(word.substr(at));
    if (piece.value < 0) return false;
    ids.push_back(piece.value);
    at += piece.size;
  }
  return true;
}

void WordPiece::encode(std::string_view word, std::vector<int>& ids) const {
  const std::size_t before = ids.size();
  if (append_pieces(word, ids)) return;
  ids.resize(before);
  append_unknown(unk_, word, ids);
}

WordLevel::WordLevel(const Vocabulary& tokens, int unk) : tokens_(keys_of(tokens)), unk_(unk) {}

void WordLevel::encode(std::string_view word, std::vector<int>& ids) const {
  const Trie::Match token = tokens_.longest(word);
  if (token.value >= 0 && token.size == word.size())
    ids.push_back(token.value);
  else
    append_unknown(unk_, word, ids);
}

}  // namespace graft
