#include "nn/text/byte_level.h"

#include <utf8proc.h>

#include <array>

namespace graft {
namespace {

enum class Kind : unsigned char { other, letter, number, space };

struct Char {
  char32_t code;
  int bytes;  // 0 where the text is not UTF-8
};

Char char_at(std::string_view text, std::size_t at) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at);
  if (bytes[0] < 0x80) return {bytes[0], 1};
  utf8proc_int32_t code = 0;
  const auto size = utf8proc_iterate(bytes, utf8proc_ssize_t(text.size() - at), &code);
  return size > 0 ? Char{char32_t(code), int(size)} : Char{0, 0};
}

Kind unicode_kind(char32_t c) {
  switch (utf8proc_category(utf8proc_int32_t(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return Kind::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return Kind::number;
    default:
      return is_space(c) ? Kind::space : Kind::other;
  }
}

Kind kind_of(char32_t c) {
  static const auto ascii = [] {
    std::array<Kind, 128> kinds;
    for (char32_t i = 0; i < 128; ++i) kinds[i] = unicode_kind(i);
    return kinds;
  }();
  return c < 128 ? ascii[c] : unicode_kind(c);
}

std::size_t run_end(std::string_view text, std::size_t at, Kind kind) {
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

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Char c = char_at(text, at);
    if (c.bytes == 0) return at;
    at += std::size_t(c.bytes);
  }
  return std::string_view::npos;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::size_t word_end(std::string_view text, std::size_t begin) {
  if (const std::size_t size = contraction_size(text.substr(begin))) return begin + size;
  const std::size_t core = begin + (text[begin] == ' ');
  if (core < text.size()) {
    const Char first = char_at(text, core);
    const Kind kind = kind_of(first.code);
    if (kind != Kind::space) return run_end(text, core + std::size_t(first.bytes), kind);
  }
  std::size_t last = begin, end = begin;
  while (end < text.size()) {
    const Char c = char_at(text, end);
    if (kind_of(c.code) != Kind::space) break;
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
    if (!is_space(char_at(text, start).code)) break;
    end = start;
  }
  return end;
}

std::size_t space_after(std::string_view text, std::size_t begin) {
  return run_end(text, begin, Kind::space);
}

std::string spell(std::string_view bytes) {
  std::string spelling;
  for (const char b : bytes) {
    const char32_t c = alphabet().character[static_cast<unsigned char>(b)];
    utf8proc_uint8_t buffer[4];
    const auto size = utf8proc_encode_char(utf8proc_int32_t(c), buffer);
    spelling.append(reinterpret_cast<const char*>(buffer), std::size_t(size));
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
