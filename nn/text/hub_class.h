// A tokenizer.json as transformers reads it beside a tokenizer_config.json.
#pragma once

#include <filesystem>
#include <string>

namespace graft {

// Of many classes (BertTokenizer, LlamaTokenizer ...) transformers 5 takes no more of a
// tokenizer.json than its vocabulary: how texts are normalized and cut follows from
// tokenizer_config.json. And tokens that are named there stand in texts as special ones do, though
// the file may not know it. Returns the text of the file with that set, or as it was where it says
// the same; throws Error, naming the key and both values, where the two cannot be brought together.
// add_bos_token and add_eos_token are not looked at: transformers drops them beside this file.
std::string as_its_class_reads(const std::filesystem::path& folder, std::string tokenizer_json);

}  // namespace graft
