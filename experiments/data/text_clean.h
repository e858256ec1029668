// Small text tools for the corpus and the tasks: UTF-8, white space, words and shared n-grams.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "nn/files/lines.h"

namespace graft::data {

// Unpacks one zlib or gzip stream that starts at `packed`; `used` receives the bytes it took.
// Throws Error beginning with `where`.
std::string inflate(std::string_view packed, const std::string& where, std::size_t* used = nullptr);

// Byte offset of the first byte that is not valid UTF-8, or npos.
std::size_t find_bad_utf8(std::string_view text);
// Throws Error with the line of `name` on which a zero byte stands.
void check_no_zero_bytes(std::string_view text, const std::string& name);

// Typographic quotes and dashes become ASCII, soft hyphens and overstrikes ("x BACKSPACE x", "_
// BACKSPACE x") vanish, control and invalid bytes become spaces, runs of white space become one
// space.
std::string clean_text(std::string_view raw);

std::vector<std::string_view> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);
void replace_all(std::string& text, std::string_view from, std::string_view to);

// Paragraphs: the runs of lines between blank lines, each joined by single spaces and cleaned.
std::vector<std::string> paragraphs(std::string_view text);

// True where at least `share` of the bytes that are not spaces are letters: false for tables and
// drawings.
bool is_prose(std::string_view text, double share);

// Lower-case runs of letters, digits and non-ASCII bytes.
std::vector<std::string> plain_words(std::string_view text);

// Remembers every run of eight words of the texts added to it.
class EightGrams {
 public:
  void add(std::string_view text);
  bool shares_one_with(std::string_view text) const;
  std::size_t size() const { return seen_.size(); }

 private:
  std::unordered_set<std::uint64_t> seen_;
};

}  // namespace graft::data
