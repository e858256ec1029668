#include "experiments/pretrain/corpus_windows.h"

#include <algorithm>
#include <numeric>

#include "nn/files/atomic.h"

namespace graft {

CorpusWindows::CorpusWindows(const std::filesystem::path& text, const Tokenizer& tokenizer,
                             int length, bool causal)
    : length_(length),
      body_(causal ? length : length - 2),
      causal_(causal),
      vocab_(tokenizer.size()),
      cls_(tokenizer.cls()),
      sep_(tokenizer.sep()),
      mask_(tokenizer.mask()) {
  check(length >= 8, "corpus: windows of {} tokens; need at least 8", length);
  check(cls_ >= 0 && sep_ >= 0 && (causal || mask_ >= 0),
        "corpus: the tokenizer has no [CLS], [SEP] or [MASK]");
  const std::string bytes = read_file(text);
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    if (end > 0) {
      for (int id : tokenizer.encode(rest.substr(0, end))) tokens_.push_back(id);
      tokens_.push_back(sep_);
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  check(tokens() >= body_, "corpus: '{}' has {} tokens; need at least {}", text.string(), tokens(),
        body_);
}

std::int64_t CorpusWindows::offset(std::uint32_t seed, int epoch) const {
  return philox({0, 0, 0, stream_id("window offset")},
                {seed, static_cast<std::uint32_t>(epoch)})[0] %
         body_;
}

std::int64_t CorpusWindows::windows(std::uint32_t seed, int epoch) const {
  return (tokens() - offset(seed, epoch)) / body_;
}

const std::vector<std::int64_t>& CorpusWindows::order(std::uint32_t seed, int epoch) const {
  if (order_of_ == std::pair{seed, epoch}) return order_;
  order_.resize(windows(seed, epoch));
  std::iota(order_.begin(), order_.end(), 0);
  const Key key{seed, static_cast<std::uint32_t>(epoch)};
  for (std::int64_t i = static_cast<std::int64_t>(order_.size()) - 1; i > 0; --i) {
    const double u = uniform(key, stream_id("window order"), i);
    std::swap(order_[i], order_[static_cast<std::int64_t>(u * (i + 1))]);
  }
  order_of_ = {seed, epoch};
  return order_;
}

Batch CorpusWindows::batch(std::uint32_t seed, int epoch, std::int64_t first, std::int64_t count,
                           const MaskingRule& rule) const {
  const auto& order = this->order(seed, epoch);
  check(0 <= first && first + count <= static_cast<std::int64_t>(order.size()),
        "corpus: windows {}..{} of {}", first, first + count, order.size());
  const Key key{seed, static_cast<std::uint32_t>(epoch)};
  const std::uint32_t stream = stream_id("masking");
  Batch b;
  for (std::int64_t w = first; w < first + count; ++w) {
    const std::int32_t* body = &tokens_[offset(seed, epoch) + order[w] * body_];
    b.example.push_back(static_cast<std::uint32_t>(order[w]));
    b.length.push_back(length_);
    if (causal_) {
      for (int i = 0; i < body_; ++i) {
        b.token.push_back(body[i]);
        b.token_label.push_back(i + 1 < body_ ? body[i + 1] : -1);
      }
      continue;
    }
    b.token.push_back(cls_);
    b.token_label.push_back(-1);
    for (int i = 0; i < body_; ++i) {
      const Counter r =
          philox(address(stream, b.example.back(), static_cast<std::uint32_t>(i), 0), key);
      const bool chosen = uniform(r[0]) < rule.rate && body[i] != sep_;
      const float kind = uniform(r[1]);
      std::int32_t seen = body[i];
      if (chosen && kind < 0.8f) seen = mask_;
      if (chosen && kind >= 0.9f) seen = static_cast<std::int32_t>(r[2] % vocab_);
      b.token.push_back(seen);
      b.token_label.push_back(chosen ? body[i] : -1);
    }
    b.token.push_back(sep_);
    b.token_label.push_back(-1);
  }
  return b;
}

}  // namespace graft
