// The regular expressions that published tokenizers cut text with, each as a function written by
// hand: a tokenizer.json that names another one is refused.
#pragma once

#include <cstddef>
#include <string_view>

namespace graft {

// The end of the match that begins at text[begin], begin < text.size(). The patterns leave no
// character out: the next match begins where this one ends.
using WordEnd = std::size_t (*)(std::string_view text, std::size_t begin);

// Qwen2's, which its older files leave unsaid.
extern const std::string_view kQwen2Pattern;

// The function for the text of a pattern: GPT-2's, GPT-4's (cl100k) and LLaMA 3's, Qwen2's; null
// for any other.
WordEnd word_pattern(std::string_view regex);

}  // namespace graft
