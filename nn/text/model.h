// Models: how a word becomes token ids.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the ids of one word of valid UTF-8. Several threads may call it.
  virtual void encode(std::string_view word, std::vector<int>& ids) const = 0;
  // Calls f on parts of the word, in order, whose ids are those of the word one after another:
  // shorter words are met again more often. The word itself where it cannot be taken apart.
  virtual std::size_t part_end(std::string_view word, std::size_t begin) const {
    return (void)begin, word.size();
  }
};

// Token strings by id. An id without a token has an empty string.
using Vocabulary = std::vector<std::string>;

struct ModelFile {
  std::unique_ptr<WordModel> model;
  Vocabulary tokens;  // as the file spells them
};

// The model that an object of tokenizer.json describes: BPE, WordPiece, Unigram or WordLevel.
// `byte_level`: words are bytes, and tokens spell them (byte_level.h). `name` is what messages call
// it. Throws Error, naming the key, for any other, for unknown keys, for ids below 0, there twice,
// or with gaps so wide that most ids have no token.
ModelFile read_word_model(const std::string& name, const nlohmann::json& value, bool byte_level);

}  // namespace graft
