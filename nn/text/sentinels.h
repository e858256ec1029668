// Sentinels: the tokens that stand for spans of a text which an encoder-decoder is to write (Raffel
// et al. 2020, 1910.10683, section 3.1.4).
#pragma once

#include <string>
#include <string_view>

namespace graft {

// "<extra_id_7>", as T5's vocabulary calls them.
std::string sentinel(int which);

// A tokenizer.json with `count` sentinels behind its `size` tokens, the first of them last, as in
// T5's vocabulary, and a post_processor that sets the token `end` behind every text and nothing
// before it. Throws where it has sentinels already or `end` is none of its special tokens.
std::string add_sentinels(const std::string& name, std::string_view tokenizer_json, int size,
                          int end, int count);

}  // namespace graft
