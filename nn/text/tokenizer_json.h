// tokenizer.json, the one-file format of Hugging Face's tokenizers, for byte-level BPE only.
#pragma once

#include <filesystem>

#include "nn/text/tokenizer.h"

namespace graft {

// Reads model BPE + pre_tokenizer ByteLevel + decoder ByteLevel; merges as "a b" or ["a", "b"].
// Throws Error with the file and the key for any other kind, an option this version does not
// follow, an unknown key, a key given twice, ids with a gap.
BpeModel read_tokenizer_json(const std::filesystem::path& path);

// Writes what read_tokenizer_json reads, as tokenizers 0.20 and later do. Where the model names no
// post-processor and has [CLS] and [SEP], the file's is BERT's "[CLS] $A [SEP] $B:1 [SEP]:1".
// Throws Error where it cannot write.
void write_tokenizer_json(const BpeModel& model, const std::filesystem::path& path);

}  // namespace graft
