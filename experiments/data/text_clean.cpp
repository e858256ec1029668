// Plain single-pass implementations; the corpus is read once.
#include "experiments/data/text_clean.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <utility>

#include "tensor/error.h"
#include "tensor/hash.h"

namespace graft::data {
namespace {

bool is_letter(unsigned char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
bool is_word_byte(unsigned char c) { return is_letter(c) || (c >= '0' && c <= '9') || c >= 0x80; }

// Length of the valid UTF-8 sequence at text[i], or 0.
int utf8_length(std::string_view text, std::size_t i) {
  const auto at = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char c = at(i);
  if (c < 0x80) return 1;
  const int n = c >= 0xc2 && c <= 0xdf   ? 2
                : c >= 0xe0 && c <= 0xef ? 3
                : c >= 0xf0 && c <= 0xf4 ? 4
                                         : 0;
  if (n == 0 || i + n > text.size()) return 0;
  for (int k = 1; k < n; ++k)
    if ((at(i + k) & 0xc0) != 0x80) return 0;
  // Overlong forms, surrogates and what lies above U+10FFFF.
  if ((c == 0xe0 && at(i + 1) < 0xa0) || (c == 0xed && at(i + 1) > 0x9f)) return 0;
  if ((c == 0xf0 && at(i + 1) < 0x90) || (c == 0xf4 && at(i + 1) > 0x8f)) return 0;
  return n;
}

// What replaces a UTF-8 sequence, or nullptr for "keep it".
const char* plain_form(std::string_view sequence) {
  static constexpr std::array<std::pair<std::string_view, const char*>, 14> kForms = {{
      {"\u2018", "'"},
      {"\u2019", "'"},
      {"\u201c", "\""},
      {"\u201d", "\""},
      {"\u2013", "-"},
      {"\u2014", " -- "},
      {"\u2026", "..."},
      {"\u00ad", ""},
      {"\u00a0", " "},
      {"\ufeff", ""},
      {"\u2010", "-"},
      {"\u2011", "-"},
      {"\u200b", ""},
      {"\u2012", "-"},
  }};
  for (const auto& [from, to] : kForms)
    if (from == sequence) return to;
  return nullptr;
}

std::string without_overstrikes(std::string_view raw) {
  std::string out;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] == '\b') {
      if (!out.empty()) out.pop_back();
    } else {
      out.push_back(raw[i]);
    }
  }
  return out;
}

std::uint64_t hash_words(const std::string* words) {
  Hash h;
  for (int i = 0; i < 8; ++i) {
    h.bytes(words[i].data(), words[i].size());
    h.word(0x1f);
  }
  return h.value();
}

}  // namespace

std::string inflate(std::string_view packed, const std::string& where, std::size_t* used) {
  z_stream stream{};
  check(inflateInit2(&stream, 15 + 32) == Z_OK, "{}: zlib does not start", where);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  std::vector<char> chunk(1 << 18);
  int state = Z_OK;
  while (state == Z_OK) {
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = static_cast<uInt>(chunk.size());
    state = ::inflate(&stream, Z_NO_FLUSH);
    out.append(chunk.data(), chunk.size() - stream.avail_out);
  }
  if (used) *used = packed.size() - stream.avail_in;
  inflateEnd(&stream);
  check(state == Z_STREAM_END, "{}: damaged or cut-off compressed data", where);
  return out;
}

std::size_t find_bad_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const int n = utf8_length(text, i);
    if (n == 0) return i;
    i += n;
  }
  return std::string_view::npos;
}

void check_no_zero_bytes(std::string_view text, const std::string& name) {
  const std::size_t zero = text.find('\0');
  if (zero == std::string_view::npos) return;
  const auto line = 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(zero), '\n');
  fail("{}:{}: a zero byte; need text in UTF-8 (is the file UTF-16, or no text?)", name, line);
}

std::string clean_text(std::string_view raw) {
  const std::string text = without_overstrikes(raw);
  std::string out;
  const auto append = [&out](std::string_view piece) {
    for (const char c : piece) {
      const bool space = static_cast<unsigned char>(c) <= ' ' || c == 0x7f;
      if (!space)
        out.push_back(c);
      else if (!out.empty() && out.back() != ' ')
        out.push_back(' ');
    }
  };
  for (std::size_t i = 0; i < text.size();) {
    const int n = utf8_length(text, i);
    const std::string_view piece = n == 0 ? " " : std::string_view(text).substr(i, n);
    const char* plain = n > 1 ? plain_form(piece) : nullptr;
    append(plain ? std::string_view(plain) : piece);
    i += n == 0 ? 1 : n;
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> fields;
  while (true) {
    const auto end = text.find(separator);
    fields.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return fields;
    text.remove_prefix(end + 1);
  }
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

std::vector<std::string> paragraphs(std::string_view text) {
  std::vector<std::string> out;
  std::string joined;
  const auto flush = [&] {
    std::string clean = clean_text(joined);
    if (!clean.empty()) out.push_back(std::move(clean));
    joined.clear();
  };
  for (const auto line : split(text, '\n')) {
    const auto content = trim(line);
    if (content.empty())
      flush();
    else
      joined.append(content).push_back(' ');
  }
  flush();
  return out;
}

bool is_prose(std::string_view text, double share) {
  int letters = 0, marks = 0;
  for (const unsigned char c : text) {
    letters += is_letter(c);
    marks += c != ' ';
  }
  return letters > 0 && letters >= share * marks;
}

std::vector<std::string> plain_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const unsigned char c : text) {
    if (is_word_byte(c)) {
      word.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

void EightGrams::add(std::string_view text) {
  const auto words = plain_words(text);
  for (std::size_t i = 0; i + 8 <= words.size(); ++i) seen_.insert(hash_words(&words[i]));
}

bool EightGrams::shares_one_with(std::string_view text) const {
  const auto words = plain_words(text);
  for (std::size_t i = 0; i + 8 <= words.size(); ++i)
    if (seen_.contains(hash_words(&words[i]))) return true;
  return false;
}

}  // namespace graft::data
