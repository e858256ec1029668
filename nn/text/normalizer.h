// Normalizers: what is done to a text before it is cut into words.
#pragma once

#include <cstddef>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace graft {

// Changes valid UTF-8 to valid UTF-8; may be called by several threads. Throws Error where it would
// make more than kMostGrowth times the text's bytes and kMostAdded.
using Normalizer = std::function<std::string(std::string)>;
constexpr std::size_t kMostGrowth = 64, kMostAdded = 1 << 16;

// The normalizer that an object of tokenizer.json describes: NFC, NFD, NFKC, NFKD, Lowercase,
// StripAccents, Strip, Prepend, Replace, BertNormalizer, Nmt, Precompiled, Sequence. `name` is what
// messages call it. Throws Error, naming the key, for any other and for unknown keys.
Normalizer read_normalizer(const std::string& name, const nlohmann::json& value);

// The tokens of `text` that `pattern`, a String or the Regex " {2,}" of tokenizer.json, finds, each
// replaced; normalizers and decoders share it.
Normalizer read_replace(const std::string& name, const nlohmann::json& value);

}  // namespace graft
