// Pre-tokenizers: how a text is cut into the words that a model then splits into tokens.
#pragma once

#include <deque>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct Word {
  std::string_view text;
  bool first = false;  // begins where the whole text begins, before any special token
};

// Words, and the bytes of those that are not the text's own.
struct Words {
  std::vector<Word> words;
  std::deque<std::string> made;
};

// Cuts each word, and may change the pieces; none of them is empty. May be called by several
// threads.
using PreTokenizer = std::function<void(Words&)>;

// A pre-tokenizer, and whether it ends with ByteLevel: then its words stay plain bytes here, and
// the model's tokens are read as bytes (byte_level.h) instead of spelling every word.
struct PreTokenizerFile {
  PreTokenizer cut;
  bool byte_level = false;
  int steps = 1;  // of a Sequence: how many, those within its steps included
};

// The pre-tokenizer that an object of tokenizer.json describes: ByteLevel, Split with a String or
// a pattern of word_patterns.h, Whitespace, WhitespaceSplit, BertPreTokenizer, Metaspace,
// Punctuation, Digits, Sequence. `name` is what messages call it. Throws Error, naming the key, for
// any other, for unknown keys, and where ByteLevel is not the last step.
PreTokenizerFile read_pre_tokenizer(const std::string& name, const nlohmann::json& value);

// Sentencepiece's mark for a space, and how a word comes by one at its start.
// `first` goes by where the normalized word begins; the reference also looks whether the normalizer
// took characters away before it.
struct Metaspace {
  enum class Prepend { always, first, never };
  std::string mark;
  Prepend prepend;
  bool split;
};
Metaspace read_metaspace(const std::string& name, const nlohmann::json& value);

}  // namespace graft
