// Special tokens: strings such as [MASK] that are one token wherever they stand in a text, whatever
// the merges say.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// One of tokenizer.json's added_tokens.
struct SpecialToken {
  std::string content;
  int id = -1;
  bool special = true;      // left out by a decode that skips special tokens
  bool normalized = false;  // matched only where no token without this flag was
  bool lstrip = false;      // takes the white space before it along
  bool rstrip = false;      // and after it
};

// A stretch of a text: a special token, or plain text where id is -1.
struct Piece {
  std::string_view text;
  int id = -1;
};

// Cuts texts at special tokens: at the leftmost one, and at the longest of those that start there.
class SpecialSplitter {
 public:
  SpecialSplitter() = default;
  explicit SpecialSplitter(const std::vector<SpecialToken>& tokens);

  // The pieces of a valid UTF-8 text in order; together they are the text.
  std::vector<Piece> split(std::string_view text) const;

 private:
  struct Group {
    std::vector<SpecialToken> tokens;  // longest first
    std::array<bool, 256> starts{};    // by first byte
  };
  static const SpecialToken* match(const Group& group, std::string_view text);
  static void split(const Group& group, std::string_view text, std::vector<Piece>& pieces);

  std::array<Group, 2> groups_;  // without and with `normalized`
};

}  // namespace graft
