// Decoders: how tokens become a text again.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace graft {

// Changes the tokens of a text; what it leaves is joined without anything in between. May be called
// by several threads.
using Decoder = std::function<void(std::vector<std::string>&)>;

// The decoder that an object of tokenizer.json describes: ByteLevel, WordPiece, Metaspace,
// BPEDecoder, ByteFallback, Fuse, Strip, Replace, Sequence. `name` is what messages call it. Throws
// Error, naming the key, for any other and for unknown keys.
Decoder read_decoder(const std::string& name, const nlohmann::json& value);

}  // namespace graft
