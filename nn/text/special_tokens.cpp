#include "nn/text/special_tokens.h"

#include <algorithm>

#include "nn/text/byte_level.h"

namespace graft {

SpecialSplitter::SpecialSplitter(const std::vector<SpecialToken>& tokens) {
  for (const SpecialToken& token : tokens) {
    Group& group = groups_[token.normalized];
    group.tokens.push_back(token);
    group.starts[static_cast<unsigned char>(token.content[0])] = true;
  }
  for (Group& group : groups_)
    std::ranges::stable_sort(group.tokens, [](const SpecialToken& a, const SpecialToken& b) {
      return a.content.size() > b.content.size();
    });
}

const SpecialToken* SpecialSplitter::match(const Group& group, std::string_view text) {
  if (!group.starts[static_cast<unsigned char>(text[0])]) return nullptr;
  for (const SpecialToken& token : group.tokens)
    if (text.starts_with(token.content)) return &token;
  return nullptr;
}

void SpecialSplitter::split(const Group& group, std::string_view text, std::vector<Piece>& pieces) {
  std::size_t done = 0;
  if (!group.tokens.empty()) {
    for (std::size_t at = 0; at < text.size();) {
      const SpecialToken* token = match(group, text.substr(at));
      if (token == nullptr) {
        ++at;
        continue;
      }
      const std::size_t end = at + token->content.size();
      const std::size_t start = std::max(done, token->lstrip ? space_before(text, at) : at);
      const std::size_t stop = std::max(start, token->rstrip ? space_after(text, end) : end);
      if (start > done) pieces.push_back({text.substr(done, start - done), -1});
      pieces.push_back({text.substr(start, stop - start), token->id});
      done = stop;
      // The search goes on behind the token itself: white space taken along may begin the next.
      at = end;
    }
  }
  if (done < text.size()) pieces.push_back({text.substr(done), -1});
}

std::vector<Piece> SpecialSplitter::split(std::string_view text) const {
  std::vector<Piece> coarse, pieces;
  split(groups_[0], text, coarse);
  for (const Piece& piece : coarse) {
    if (piece.id < 0)
      split(groups_[1], piece.text, pieces);
    else
      pieces.push_back(piece);
  }
  return pieces;
}

}  // namespace graft
