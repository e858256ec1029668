// The text rules of GPT-2's byte-level tokenizers: which words a text falls into, and how bytes are
// spelled in a vocabulary.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace graft {

// The end of the word that starts at byte `begin` < text.size() of valid UTF-8. Words cover the
// text without gaps; they are the matches of GPT-2's pattern, encoder.py of its release:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
std::size_t word_end(std::string_view text, std::size_t begin);

// The start of the white space that ends text[0, end), and the end of that which begins at
// text[begin].
std::size_t space_before(std::string_view text, std::size_t end);
std::size_t space_after(std::string_view text, std::size_t begin);

// Bytes as a vocabulary spells them: one printable character each, e.g. " the" is spelled "Ġthe"
// (bytes_to_unicode() in encoder.py). unspell gives nothing where a character stands for no byte.
std::string spell(std::string_view bytes);
std::optional<std::string> unspell(std::string_view spelling);

}  // namespace graft
