// What Unicode says of a character, as Hugging Face's tokenizers asks it: UTF-8, classes, lower
// case, normal forms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace graft {

struct Char {
  char32_t code = 0;
  int bytes = 0;  // 0 where the text is not UTF-8
};

// The character at text[at], at < text.size().
Char char_at(std::string_view text, std::size_t at);
// The bytes of the character that begins with `first`, in a text known to be UTF-8.
inline std::size_t char_size(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
void append_utf8(std::string& text, char32_t c);

// The offset of the first byte that is not part of well-formed UTF-8, or npos.
std::size_t find_invalid_utf8(std::string_view text);
// The text, with U+FFFD for each longest stretch of bytes that begins a character but does not end
// one, and for each byte that begins none (Unicode 15, section 3.9, "maximal subparts").
std::string replace_invalid_utf8(std::string text);
std::size_t count_chars(std::string_view utf8);
bool is_ascii(std::string_view text);

// The classes that the reference uses. Its libraries know different versions of Unicode, so two
// classes with the same definition are not always the same set (unicode_tables.h).
enum Class : std::uint16_t {
  kLetter = 1,        // \p{L} of its pattern matcher
  kNumber = 2,        // \p{N} of the same
  kSpace = 4,         // the property White_Space
  kWord = 8,          // \w
  kNumeric = 16,      // what the Digits pre-tokenizer takes for one
  kPunctuation = 32,  // BERT's: category P, and ASCII's symbols
  kNonspacing = 64,   // what BertNormalizer takes for an accent
  kCombining = 128,   // what StripAccents takes for one
  kControl = 256,     // what BertNormalizer's clean_text removes
  kIdeograph = 512,   // what its handle_chinese_chars sets apart
};
std::uint16_t classes_of(char32_t c);
inline bool is(char32_t c, std::uint16_t any_of) { return (classes_of(c) & any_of) != 0; }

// Lower case character by character, without a look at the neighbours.
std::string lower_case(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normal_form(std::string_view text, NormalForm form);

// The end of the extended grapheme cluster that begins at text[begin] (Unicode annex 29).
std::size_t grapheme_end(std::string_view text, std::size_t begin);

}  // namespace graft
