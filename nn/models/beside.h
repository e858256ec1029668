// What stands beside a model's weights in its folder: the tokenizer and the tokens it sets around
// texts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"
#include "nn/text/tokenizer.h"

namespace graft {

// An encoder's config.json need not name the special tokens: ids that `arch` lacks are taken from
// the folder's tokenizer.json, or else from the older files where these can be read.
void fill_ids(Arch& arch, const std::filesystem::path& folder);

// The tokenizer as it stands beside such a model: itself but for a decoder's that marks texts as an
// encoder reads them, from [CLS] to [SEP], which is had open (Tokenizer::open_ended).
Tokenizer tokenizer_beside(const Arch&, const Tokenizer&);
// What its tokenizer sets before every text of a decoder: LLaMA's <s>, for others mostly nothing.
std::vector<std::int32_t> text_beginning(const Arch&, const Tokenizer&);
// The tokens of a text that a decoder is to go on from, behind that; for an encoder's, the text's.
std::vector<std::int32_t> prompt_tokens(const Arch&, const Tokenizer&, std::string_view text);

// tokenizer_config.json: what AutoTokenizer needs beside tokenizer.json. Segments are among its
// outputs only where the model's texts had them. Throws where the model and the tokenizer disagree
// about a special token: before training is when to ask.
std::string tokenizer_config(const Arch&, const Tokenizer&, bool segments);
// What a base's folder says beyond that, for the model made of it: the chat template, the side of
// padding and of cutting, the names of its special tokens.
void keep_tokenizer_config(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace graft
