// The files that a folder of the hub may keep its tokenizer in.
#pragma once

#include <filesystem>
#include <string>

namespace graft {

struct HubFile {
  std::string name, tokenizer_json;  // the file's, for messages; and its text
};

// `path` is a tokenizer.json, or a folder with one, which is read as its tokenizer_config.json's
// class does (hub_class.h); or a folder with older files, which are rewritten as the tokenizer.json
// they are equal to:
//   vocab.json (or encoder.json) and merges.txt (or vocab.bpe)   GPT-2, OPT, RoBERTa
//   vocab.txt                                                    BERT
//   spiece.model, tokenizer.model                                T5, LLaMA (sentencepiece)
// beside tokenizer_config.json, special_tokens_map.json and added_tokens.json, as transformers 5
// makes fast tokenizers of them. Throws Error where none of them is there, and for what it cannot
// read.
HubFile read_hub_tokenizer(const std::filesystem::path& path);

}  // namespace graft
