// A tokenised corpus cut into training windows, as a pure function of (seed, epoch).
#pragma once

#include <filesystem>
#include <vector>

#include "nn/batch.h"
#include "nn/text/tokenizer.h"

namespace graft {

struct MaskingRule {
  double rate = 0.15;  // of the tokens are predicted; 80 % of them masked, 10 % random, 10 % kept
};

class CorpusWindows {
 public:
  // Each line of the file is a paragraph. Paragraphs are joined by the separator and cut into
  // windows of at most `length` tokens, CLS and SEP (encoders) or the end token (decoders)
  // included.
  CorpusWindows(const std::filesystem::path& text, const Tokenizer&, int length, bool causal);

  const std::vector<std::int32_t>& stream() const { return tokens_; }
  std::int64_t tokens() const { return static_cast<std::int64_t>(tokens_.size()); }
  // The windows of one epoch start at an offset of their own and come in an order of their own.
  std::int64_t windows(std::uint32_t seed, int epoch) const;

  // Windows [first, first + count) of that epoch's order, as a batch with token labels: masked
  // tokens (encoders) or the next token (decoders).
  Batch batch(std::uint32_t seed, int epoch, std::int64_t first, std::int64_t count,
              const MaskingRule&) const;

 private:
  const std::vector<std::int64_t>& order(std::uint32_t seed, int epoch) const;
  std::int64_t offset(std::uint32_t seed, int epoch) const;

  std::vector<std::int32_t> tokens_;
  int length_, body_;  // body_: corpus tokens per window
  bool causal_;
  int vocab_, cls_, sep_, mask_;
  mutable std::vector<std::int64_t> order_;
  mutable std::pair<std::uint32_t, int> order_of_{0, -1};
};

}  // namespace graft
