// Post-processors: which special tokens stand around one text or a pair, and which token belongs to
// which of the two.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace graft {

// Ids and, for each, its type: what BERT's segment embedding is asked for.
struct MarkedIds {
  std::vector<int> ids, types;
};

// A row of special tokens and texts, for one text and for a pair.
class PostProcessor {
 public:
  struct Part {
    std::vector<int> ids;  // of a special token
    int text = -1;         // or 0 for the first, 1 for the second text
    int type = 0;
  };
  // Adds nothing: the first text's tokens are of type 0, the second's of type 1.
  PostProcessor();
  PostProcessor(std::vector<Part> single, std::vector<Part> pair)
      : single_(std::move(single)), pair_(std::move(pair)) {}

  MarkedIds single(const std::vector<int>& a) const { return fill(single_, a, {}); }
  MarkedIds pair(const std::vector<int>& a, const std::vector<int>& b) const {
    return fill(pair_, a, b);
  }
  // The special tokens before one text.
  std::vector<int> before() const;
  // Whether a special token comes after one text.
  bool closes() const { return !single_.empty() && single_.back().text < 0; }

 private:
  static MarkedIds fill(const std::vector<Part>&, const std::vector<int>&, const std::vector<int>&);
  std::vector<Part> single_, pair_;
};

// The post-processor that an object of tokenizer.json describes: TemplateProcessing,
// BertProcessing, RobertaProcessing, ByteLevel (which changes offsets only), Sequence of these with
// at most one that adds tokens. `name` is what messages call it; ids are below `size`. Throws
// Error, naming the key, for any other, unknown keys, and ids out of range.
PostProcessor read_post_processor(const std::string& name, const nlohmann::json& value,
                                  std::size_t size);

}  // namespace graft
