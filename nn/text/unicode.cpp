#include "nn/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "nn/text/unicode_tables.h"
#include "tensor/error.h"

namespace graft {
namespace {

constexpr char32_t kCodes = 0x110000;

bool is_white(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// The blocks that BERT's own code lists; hiragana, katakana and hangul are words like any other.
bool is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B81F) ||
         (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0x2F800 && c <= 0x2FA1F);
}

std::uint16_t classes_by_category(char32_t c) {
  switch (utf8proc_category(utf8proc_int32_t(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter | kWord;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return kNumber | kNumeric | kWord;
    case UTF8PROC_CATEGORY_NO:
      return kNumber | kNumeric;
    case UTF8PROC_CATEGORY_MN:
      return kNonspacing | kCombining | kWord;
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kCombining | kWord;
    case UTF8PROC_CATEGORY_PC:
      return kPunctuation | kWord;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return kPunctuation;
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
      return c == '\t' || c == '\n' || c == '\r' ? 0 : kControl;
    default:
      return 0;
  }
}

std::vector<std::uint16_t> make_classes() {
  std::vector<std::uint16_t> classes(kCodes);
  for (char32_t c = 0; c < kCodes; ++c) {
    classes[c] = classes_by_category(c);
    if (is_white(c)) classes[c] |= kSpace;
    if (is_ideograph(c)) classes[c] |= kIdeograph;
    if (c < 128 && std::strchr("$+<=>^`|~", int(c)) != nullptr && c != 0)
      classes[c] |= kPunctuation;
  }
  for (const char32_t joiner : {0x200C, 0x200D}) classes[joiner] |= kWord;
  for (const ClassCorrection& correction : class_corrections()) {
    for (const CodeRange& range : correction.yes)
      for (char32_t c = range.first; c <= range.last; ++c) classes[c] |= correction.of;
    for (const CodeRange& range : correction.no)
      for (char32_t c = range.first; c <= range.last; ++c)
        classes[c] &= std::uint16_t(~correction.of);
  }
  return classes;
}

void append_lower(std::string& lower, char32_t c) {
  if (c == 0x130) {  // I with a dot: the only one whose lower case is two characters
    lower += "i\u0307";
    return;
  }
  for (const LowerCorrection& correction : lower_corrections())
    if (c >= correction.first && c <= correction.last)
      return append_utf8(lower, char32_t(std::int32_t(c) + correction.shift));
  append_utf8(lower, char32_t(utf8proc_tolower(utf8proc_int32_t(c))));
}

bool is_normalized(char32_t c) {
  const auto all = unnormalized();
  const auto at = std::ranges::lower_bound(all, c, {}, &CodeRange::last);
  return at == all.end() || c < at->first;
}

int combining_class(char32_t c) {
  return utf8proc_get_property(utf8proc_int32_t(c))->combining_class;
}

// Long runs of marks in their canonical order, which changes no normal form: utf8proc sorts them by
// swapping neighbours, and a text made to be slow would take it the square of its length.
std::string sort_marks(std::string_view text) {
  constexpr std::size_t kLongRun = 64;
  std::string sorted;
  std::vector<std::pair<int, std::string_view>> run;
  const auto flush = [&] {
    if (run.size() > kLongRun)
      std::ranges::stable_sort(run, {}, &std::pair<int, std::string_view>::first);
    for (const auto& mark : run) sorted += mark.second;
    run.clear();
  };
  for (std::size_t at = 0; at < text.size();) {
    const Char c = char_at(text, at);
    const int place = combining_class(c.code);
    if (place == 0) flush();
    run.emplace_back(place, text.substr(at, std::size_t(c.bytes)));
    if (place == 0) flush();
    at += std::size_t(c.bytes);
  }
  flush();
  return sorted;
}

std::string map_form(std::string_view piece, NormalForm form) {
  const std::string text = sort_marks(piece);
  int options = UTF8PROC_STABLE;
  options |=
      form == NormalForm::nfc || form == NormalForm::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::nfkc || form == NormalForm::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* made = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 utf8proc_ssize_t(text.size()), &made, utf8proc_option_t(options));
  check(size >= 0, "tokenizer: a normal form: {}", utf8proc_errmsg(size));
  const std::string result(reinterpret_cast<const char*>(made), std::size_t(size));
  std::free(made);
  return result;
}

}  // namespace

Char char_at(std::string_view text, std::size_t at) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at);
  if (bytes[0] < 0x80) return {bytes[0], 1};
  utf8proc_int32_t code = 0;
  const auto size = utf8proc_iterate(bytes, utf8proc_ssize_t(text.size() - at), &code);
  return size > 0 ? Char{char32_t(code), int(size)} : Char{0, 0};
}

void append_utf8(std::string& text, char32_t c) {
  utf8proc_uint8_t buffer[4];
  const auto size = utf8proc_encode_char(utf8proc_int32_t(c), buffer);
  text.append(reinterpret_cast<const char*>(buffer), std::size_t(size));
}

bool is_ascii(std::string_view text) {
  std::size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if ((word & 0x8080808080808080u) != 0) return false;
  }
  return std::all_of(text.begin() + std::ptrdiff_t(at), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::size_t find_invalid_utf8(std::string_view text) {
  if (is_ascii(text)) return std::string_view::npos;
  for (std::size_t at = 0; at < text.size();) {
    const Char c = char_at(text, at);
    if (c.bytes == 0) return at;
    at += std::size_t(c.bytes);
  }
  return std::string_view::npos;
}

std::string replace_invalid_utf8(std::string text) {
  if (find_invalid_utf8(text) == std::string::npos) return text;
  std::string valid;
  for (std::size_t at = 0; at < text.size();) {
    if (const Char c = char_at(text, at); c.bytes > 0) {
      valid.append(text, at, std::size_t(c.bytes));
      at += std::size_t(c.bytes);
      continue;
    }
    const auto byte = [&](std::size_t i) {
      return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
    };
    const unsigned first = byte(at), second = byte(at + 1);
    const unsigned least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    const bool leads = first >= 0xC2 && first <= 0xF4;
    const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    std::size_t begun = 1;
    if (leads && second >= least && second <= most)
      for (begun = 2; begun < length && (byte(at + begun) & 0xC0) == 0x80;) ++begun;
    valid += "\uFFFD";
    at += begun;
  }
  return valid;
}

std::size_t count_chars(std::string_view utf8) {
  return std::size_t(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::uint16_t classes_of(char32_t c) {
  static const std::vector<std::uint16_t> classes = make_classes();
  return c < kCodes ? classes[c] : 0;
}

std::string lower_case(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Char c = char_at(text, at);
    if (c.code < 0x80)
      lower += char(c.code >= 'A' && c.code <= 'Z' ? c.code + 32 : c.code);
    else
      append_lower(lower, c.code);
    at += std::size_t(c.bytes);
  }
  return lower;
}

std::string normal_form(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  // A character that the reference leaves alone also joins none beside it: it is cut out.
  std::string result;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Char c = char_at(text, at);
    if (c.bytes > 1 && !is_normalized(c.code)) {
      if (at > done) result += map_form(text.substr(done, at - done), form);
      done = at + std::size_t(c.bytes);
      result += text.substr(at, std::size_t(c.bytes));
    }
    at += std::size_t(c.bytes);
  }
  return done < text.size() ? result + map_form(text.substr(done), form) : result;
}

std::size_t grapheme_end(std::string_view text, std::size_t begin) {
  Char before = char_at(text, begin);
  std::size_t at = begin + std::size_t(before.bytes);
  utf8proc_int32_t state = 0;
  while (at < text.size()) {
    const Char next = char_at(text, at);
    if (utf8proc_grapheme_break_stateful(utf8proc_int32_t(before.code), utf8proc_int32_t(next.code),
                                         &state))
      break;
    before = next;
    at += std::size_t(next.bytes);
  }
  return at;
}

}  // namespace graft
