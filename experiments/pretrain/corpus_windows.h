// A tokenised corpus cut into training windows, as a pure function of (seed, epoch).
#pragma once

#include <filesystem>
#include <vector>

#include "nn/batch.h"
#include "nn/text/tokenizer.h"

namespace graft {

// What a base learns: to tell masked tokens (encoders), the next token (decoders), or the spans
// that were dropped (encoder-decoders).
enum class Objective { masked, causal, span };
const char* name(Objective);

struct MaskingRule {
  // Of the tokens are predicted. masked: 80 % of them are masked, 10 % random, 10 % kept.
  double rate = 0.15;
  double span = 3;          // tokens in a dropped span, on average
  bool all_masked = false;  // masked: every token that is predicted is masked, for measuring
};

// Which tokens of a window of so many are dropped: Raffel et al. 2020 (1910.10683), section 3.3.4,
// as the released code has it (t5/data/preprocessors.py, random_spans_noise_mask): round(rate
// tokens) of them, in round(that / span) spans, both at least 1; spans and what is kept between
// them are cut at random. A window begins with kept tokens and ends in a span. A pure function of
// the key and the window's number.
std::vector<bool> dropped_spans(int tokens, const MaskingRule&, Key, std::uint32_t window);

class CorpusWindows {
 public:
  // Each line of the file is a paragraph. Paragraphs are joined by the separator and cut into
  // windows of at most `length` tokens, CLS and SEP (encoders) or the end token (decoders)
  // included. For encoder-decoders they are joined by a line break, since the separator ends what
  // they write, and `length` counts the text's tokens alone.
  CorpusWindows(const std::filesystem::path& text, const Tokenizer&, int length, Objective);

  const std::vector<std::int32_t>& stream() const { return tokens_; }
  std::int64_t tokens() const { return static_cast<std::int64_t>(tokens_.size()); }
  // The windows of one epoch start at an offset of their own and come in an order of their own.
  std::int64_t windows(std::uint32_t seed, int epoch) const;

  // Windows [first, first + count) of that epoch's order, as a batch with token labels. span: the
  // encoder reads the window with a sentinel in each dropped span's place, the decoder writes every
  // sentinel and its span; both end with the end token. The paper's figure 2 ends the decoder's
  // text with one more sentinel; the released code does not.
  Batch batch(std::uint32_t seed, int epoch, std::int64_t first, std::int64_t count,
              const MaskingRule&) const;

 private:
  const std::vector<std::int64_t>& order(std::uint32_t seed, int epoch) const;
  std::int64_t offset(std::uint32_t seed, int epoch) const;

  void read(const std::filesystem::path& text, const Tokenizer&);
  void add_masked(Batch&, const std::int32_t* body, const MaskingRule&, Key) const;
  void add_spans(Batch&, Batch& source, const std::int32_t* body, const MaskingRule&, Key) const;

  std::vector<std::int32_t> tokens_;
  int length_, body_;  // body_: corpus tokens per window
  Objective objective_;
  int vocab_, cls_, sep_, mask_, start_;
  std::vector<std::int32_t> sentinels_;
  mutable std::vector<std::int64_t> order_;
  mutable std::pair<std::uint32_t, int> order_of_{0, -1};
};

}  // namespace graft
