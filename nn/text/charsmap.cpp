#include "nn/text/charsmap.h"

#include "nn/text/normalizer.h"
#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

constexpr std::size_t kLongestCluster = 5;  // bytes; a longer one is taken character by character
constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::uint32_t read_u32(std::string_view bytes) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(bytes[std::size_t(i)]);
  return value;
}

// The fields of a unit.
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FF; }
std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

}  // namespace

Charsmap::Charsmap(const std::string& name, std::string_view blob) {
  check(blob.size() >= 4, "{}: the map has {} bytes; need 4 or more", name, blob.size());
  const std::size_t trie = read_u32(blob);
  check(trie % 4 == 0 && trie >= 4 && trie <= blob.size() - 4,
        "{}: the map's trie has {} bytes; need a multiple of 4 up to {}", name, trie,
        blob.size() - 4);
  for (std::size_t i = 0; i < trie; i += 4) units_.push_back(read_u32(blob.substr(4 + i)));
  replacements_ = blob.substr(4 + trie);
  const std::size_t bad = find_invalid_utf8(replacements_);
  check(bad == std::string::npos, "{}: the map's replacements are not UTF-8 at byte {}", name, bad);
}

std::optional<std::string_view> Charsmap::replacement(std::string_view chunk) const {
  std::size_t at = offset(units_[0]);
  for (const char c : chunk) {
    const std::uint32_t byte = static_cast<unsigned char>(c);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label(units_[at]) != byte) return std::nullopt;
    const std::uint32_t unit = units_[at];
    at ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (at >= units_.size()) return std::nullopt;
    const std::size_t begin = value(units_[at]);
    const std::string_view all = replacements_;
    // A start within a character can only come of a damaged file.
    if (begin > all.size() || (begin < all.size() && (all[begin] & 0xC0) == 0x80))
      return std::nullopt;
    return all.substr(begin, std::min(all.find('\0', begin), all.size()) - begin);
  }
  return std::nullopt;
}

std::string Charsmap::normalize(std::string_view text) const {
  std::string made;
  made.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    check(made.size() <= kMostGrowth * text.size() + kMostAdded,
          "tokenizer: the charsmap makes more than {} bytes of a text of {}", made.size(),
          text.size());
    // Between two letters, digits or signs of ASCII there is always a boundary.
    const auto plain = [&](std::size_t i) { return text[i] >= 0x20 && text[i] < 0x7F; };
    const bool single = plain(at) && (at + 1 == text.size() || plain(at + 1));
    const std::size_t end = single ? at + 1 : grapheme_end(text, at);
    const std::string_view cluster = text.substr(at, end - at);
    at = end;
    if (cluster.size() <= kLongestCluster)
      if (const auto whole = replacement(cluster)) {
        made += *whole;
        continue;
      }
    for (std::size_t i = 0; i < cluster.size();) {
      const std::string_view one = cluster.substr(i, char_size(cluster[i]));
      made += replacement(one).value_or(one);
      i += one.size();
    }
  }
  return made;
}

std::string from_base64(const std::string& name, std::string_view text) {
  check(text.size() % 4 == 0, "{}: {} characters of base64; need a multiple of 4", name,
        text.size());
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t group = 0;
    std::size_t padding = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      const char c = text[i + k];
      const bool pad = c == '=' && k >= 2 && i + 4 == text.size();
      const std::size_t digit = pad ? 0 : kDigits.find(c);
      check(digit != std::string_view::npos && (pad || padding == 0),
            "{}: not base64 at character {}", name, i + k);
      padding += pad;
      group = group << 6 | std::uint32_t(digit);
    }
    for (std::size_t k = 0; k + padding < 3; ++k) bytes += char(group >> (16 - 8 * k) & 0xFF);
  }
  return bytes;
}

std::string to_base64(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      text += i + k > bytes.size() ? '=' : kDigits[group >> (18 - 6 * k) & 63];
  }
  return text;
}

}  // namespace graft
