// Sentencepiece's precompiled character map: which short strings of a text are replaced by which.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// The map is a double-array trie (Darts-clone's units of 32 bits) over the strings to replace, and
// the replacements, each ended by a zero byte. Taku Kudo and John Richardson 2018 (1808.06226),
// section 3.5; read as the crate spm_precompiled reads it.
class Charsmap {
 public:
  // `blob`: the trie's size in bytes (4 bytes, little endian), the trie, the replacements. Throws
  // Error, beginning with `name`, where the sizes do not fit or a replacement is not UTF-8.
  Charsmap(const std::string& name, std::string_view blob);

  // Grapheme cluster by grapheme cluster: one of at most five bytes that begins with a key becomes
  // that (shortest) key's replacement, whole; of any other each character that begins with a key.
  // Throws Error where that makes much more than the text (normalizer.h).
  std::string normalize(std::string_view text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view chunk) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

// The bytes that base64 text stands for (RFC 4648, padded). Throws Error, beginning with `name`.
std::string from_base64(const std::string& name, std::string_view text);
std::string to_base64(std::string_view bytes);

}  // namespace graft
