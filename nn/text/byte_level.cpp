#include "nn/text/byte_level.h"

#include <array>
#include <cstdint>

#include "nn/text/unicode.h"

namespace graft {
namespace {

constexpr std::uint16_t kOther = kLetter | kNumber | kSpace;  // stands for none of them

std::uint16_t kind_of(char32_t c) {
  const std::uint16_t kind = classes_of(c) & kOther;
  return kind == 0 ? kOther : kind;
}

std::size_t run_end(std::string_view text, std::size_t at, std::uint16_t kind) {
  while (at < text.size()) {
    const Char c = char_at(text, at);
    if (kind_of(c.code) != kind) break;
    at += std::size_t(c.bytes);
  }
  return at;
}

std::size_t contraction_size(std::string_view text) {
  if (text[0] != '\'') return 0;
  for (std::string_view tail : {"s", "t", "re", "ve", "m", "ll", "d"})
    if (text.substr(1).starts_with(tail)) return 1 + tail.size();
  return 0;
}

struct Alphabet {
  std::array<char32_t, 256> character;
  std::array<int, 0x180> byte;  // -1 where a character stands for no byte
};

const Alphabet& alphabet() {
  static const Alphabet table = [] {
    Alphabet made;
    made.byte.fill(-1);
    char32_t next = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      made.character[b] = printable ? b : next++;
      made.byte[made.character[b]] = int(b);
    }
    return made;
  }();
  return table;
}

}  // namespace

std::size_t word_end(std::string_view text, std::size_t begin) {
  if (const std::size_t size = contraction_size(text.substr(begin))) return begin + size;
  const std::size_t core = begin + (text[begin] == ' ');
  if (core < text.size()) {
    const Char first = char_at(text, core);
    const std::uint16_t kind = kind_of(first.code);
    if (kind != kSpace) return run_end(text, core + std::size_t(first.bytes), kind);
  }
  std::size_t last = begin, end = begin;
  while (end < text.size()) {
    const Char c = char_at(text, end);
    if (kind_of(c.code) != kSpace) break;
    last = end;
    end += std::size_t(c.bytes);
  }
  // \s+(?!\S) leaves the last white space of a longer run to the word that follows it.
  return end == text.size() || last == begin ? end : last;
}

std::size_t space_before(std::string_view text, std::size_t end) {
  while (end > 0) {
    std::size_t start = end - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!is(char_at(text, start).code, kSpace)) break;
    end = start;
  }
  return end;
}

std::size_t space_after(std::string_view text, std::size_t begin) {
  return run_end(text, begin, kSpace);
}

std::string spell(std::string_view bytes) {
  std::string spelling;
  for (const char b : bytes) {
    append_utf8(spelling, alphabet().character[static_cast<unsigned char>(b)]);
  }
  return spelling;
}

std::optional<std::string> unspell(std::string_view spelling) {
  std::string bytes;
  for (std::size_t at = 0; at < spelling.size();) {
    const Char c = char_at(spelling, at);
    if (c.bytes == 0 || c.code >= alphabet().byte.size() || alphabet().byte[c.code] < 0)
      return std::nullopt;
    bytes.push_back(char(alphabet().byte[c.code]));
    at += std::size_t(c.bytes);
  }
  return bytes;
}

}  // namespace graft
