#include "nn/text/word_patterns.h"

#include "nn/text/byte_level.h"
#include "nn/text/unicode.h"

namespace graft {
namespace {

bool is_newline(char32_t c) { return c == '\n' || c == '\r'; }

// The end of the longest run of characters of (not of) the classes, of at most `most`.
std::size_t run(std::string_view text, std::size_t at, std::uint16_t classes, bool of = true,
                std::size_t most = std::string_view::npos) {
  for (; at < text.size() && most > 0; --most) {
    const Char c = char_at(text, at);
    if (is(c.code, classes) != of) break;
    at += std::size_t(c.bytes);
  }
  return at;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d): its end, or `at`. Without regard to case the long s is an s.
std::size_t contraction_end(std::string_view text, std::size_t at) {
  if (text[at] != '\'') return at;
  const auto lower = [&](std::size_t i) {
    if (i >= text.size()) return '\0';
    return text[i] >= 'A' && text[i] <= 'Z' ? char(text[i] + 32) : text[i];
  };
  const char a = lower(at + 1), b = lower(at + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
  if (text.substr(at + 1).starts_with("\u017F")) return at + 3;
  const bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return two ? at + 3 : at;
}

// White space: up to the last line break of the run; else all of it but the last character where
// something follows, \s*[\r\n]+|\s+(?!\S)|\s+.
std::size_t space_end(std::string_view text, std::size_t begin) {
  std::size_t last = begin, end = begin, line = begin;
  while (end < text.size()) {
    const Char c = char_at(text, end);
    if (!is(c.code, kSpace)) break;
    last = end;
    end += std::size_t(c.bytes);
    if (is_newline(c.code)) line = end;
  }
  if (line > begin) return line;
  return end == text.size() || last == begin ? end : last;
}

// [^\r\n\p{L}\p{N}]?\p{L}+ : its end, or `at`.
std::size_t letters_end(std::string_view text, std::size_t at) {
  const Char c = char_at(text, at);
  if (is(c.code, kLetter)) return run(text, at, kLetter);
  if (is(c.code, kNumber) || is_newline(c.code)) return at;
  const std::size_t begin = at + std::size_t(c.bytes), end = run(text, begin, kLetter);
  return end > begin ? end : at;
}

// LLaMA 3's pattern with numbers of at most `digits` characters.
template <std::size_t digits>
std::size_t modern_end(std::string_view text, std::size_t begin) {
  if (const std::size_t end = contraction_end(text, begin); end > begin) return end;
  if (const std::size_t end = letters_end(text, begin); end > begin) return end;
  if (const std::size_t end = run(text, begin, kNumber, true, digits); end > begin) return end;
  const std::size_t core = begin + (text[begin] == ' ');
  if (std::size_t end = run(text, core, kSpace | kLetter | kNumber, false); end > core) {
    while (end < text.size() && is_newline(char32_t(text[end]))) ++end;
    return end;
  }
  return space_end(text, begin);
}

struct Known {
  std::string_view regex;
  WordEnd end;
};

constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr Known kKnown[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", word_end},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     modern_end<3>},
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     modern_end<3>},
    {kQwen2, modern_end<1>},
};

}  // namespace

const std::string_view kQwen2Pattern = kQwen2;

WordEnd word_pattern(std::string_view regex) {
  for (const Known& known : kKnown)
    if (regex == known.regex) return known.end;
  return nullptr;
}

}  // namespace graft
