#include "experiments/pretrain/corpus_windows.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nn/files/atomic.h"
#include "nn/text/sentinels.h"

namespace graft {

namespace {

// Cuts `items` into `parts` random ones, none of them empty: after the places whose draws are
// least.
std::vector<int> cut(int items, int parts, std::uint32_t stream, Key key, std::uint32_t window) {
  std::vector<std::pair<std::uint32_t, int>> places;
  for (int i = 1; i < items; ++i)
    places.push_back(
        {philox(address(stream, window, static_cast<std::uint32_t>(i), 0), key)[0], i});
  std::sort(places.begin(), places.end());
  std::vector<int> ends;
  for (int i = 0; i + 1 < parts; ++i) ends.push_back(places[static_cast<std::size_t>(i)].second);
  std::sort(ends.begin(), ends.end());
  ends.push_back(items);
  for (std::size_t i = ends.size() - 1; i > 0; --i) ends[i] -= ends[i - 1];
  return ends;
}

}  // namespace

const char* name(Objective o) {
  return o == Objective::masked ? "masked" : o == Objective::causal ? "causal" : "span";
}

std::vector<bool> dropped_spans(int tokens, const MaskingRule& rule, Key key,
                                std::uint32_t window) {
  check(tokens >= 2 && rule.span >= 1, "corpus: spans of {} tokens in a window of {}", rule.span,
        tokens);
  const int dropped = std::clamp(static_cast<int>(std::lround(rule.rate * tokens)), 1, tokens - 1);
  const int spans = std::clamp(static_cast<int>(std::lround(dropped / rule.span)), 1,
                               std::min(dropped, tokens - dropped));
  const std::vector<int> gone = cut(dropped, spans, stream_id("dropped spans"), key, window),
                         kept = cut(tokens - dropped, spans, stream_id("kept spans"), key, window);
  std::vector<bool> mask;
  for (std::size_t i = 0; i < gone.size(); ++i) {
    mask.insert(mask.end(), static_cast<std::size_t>(kept[i]), false);
    mask.insert(mask.end(), static_cast<std::size_t>(gone[i]), true);
  }
  return mask;
}

CorpusWindows::CorpusWindows(const std::filesystem::path& text, const Tokenizer& tokenizer,
                             int length, Objective objective)
    : length_(length),
      body_(objective == Objective::masked ? length - 2 : length),
      objective_(objective),
      vocab_(tokenizer.size()),
      cls_(tokenizer.cls()),
      sep_(tokenizer.sep()),
      mask_(tokenizer.mask()),
      start_(tokenizer.pad()) {
  check(length >= 8, "corpus: windows of {} tokens; need at least 8", length);
  if (objective == Objective::span) {
    for (bool more = true; more;) {
      const auto at =
          std::ranges::find(tokenizer.specials(), sentinel(static_cast<int>(sentinels_.size())),
                            &SpecialToken::content);
      if ((more = at != tokenizer.specials().end())) sentinels_.push_back(at->id);
    }
    check(sep_ >= 0 && start_ >= 0 && !sentinels_.empty(),
          "corpus: the tokenizer has no [SEP], [PAD] or <extra_id_0>");
  } else {
    check(cls_ >= 0 && sep_ >= 0 && (objective == Objective::causal || mask_ >= 0),
          "corpus: the tokenizer has no [CLS], [SEP] or [MASK]");
  }
  read(text, tokenizer);
  check(tokens() >= body_, "corpus: '{}' has {} tokens; need at least {}", text.string(), tokens(),
        body_);
}

void CorpusWindows::read(const std::filesystem::path& text, const Tokenizer& tokenizer) {
  std::vector<int> between{sep_};
  if (objective_ == Objective::span) between = tokenizer.encode("\n");
  const std::string bytes = read_file(text);
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    if (end > 0) {
      for (int id : tokenizer.encode(rest.substr(0, end))) tokens_.push_back(id);
      tokens_.insert(tokens_.end(), between.begin(), between.end());
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
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
  Batch b;
  const auto source = std::make_shared<Batch>();
  for (std::int64_t w = first; w < first + count; ++w) {
    const std::int32_t* body = &tokens_[offset(seed, epoch) + order[w] * body_];
    b.example.push_back(static_cast<std::uint32_t>(order[w]));
    if (objective_ == Objective::masked) add_masked(b, body, rule, key);
    if (objective_ == Objective::span) add_spans(b, *source, body, rule, key);
    if (objective_ != Objective::causal) continue;
    b.length.push_back(length_);
    for (int i = 0; i < body_; ++i) {
      b.token.push_back(body[i]);
      b.token_label.push_back(i + 1 < body_ ? body[i + 1] : -1);
    }
  }
  if (objective_ == Objective::span) b.source = source;
  return b;
}

void CorpusWindows::add_masked(Batch& b, const std::int32_t* body, const MaskingRule& rule,
                               Key key) const {
  const std::uint32_t stream = stream_id("masking");
  b.length.push_back(length_);
  b.token.push_back(cls_);
  b.token_label.push_back(-1);
  for (int i = 0; i < body_; ++i) {
    const Counter r =
        philox(address(stream, b.example.back(), static_cast<std::uint32_t>(i), 0), key);
    const bool chosen = uniform(r[0]) < rule.rate && body[i] != sep_;
    const float kind = uniform(r[1]);
    std::int32_t seen = body[i];
    if (chosen && (kind < 0.8f || rule.all_masked)) seen = mask_;
    if (chosen && kind >= 0.9f && !rule.all_masked) seen = static_cast<std::int32_t>(r[2] % vocab_);
    b.token.push_back(seen);
    b.token_label.push_back(chosen ? body[i] : -1);
  }
  b.token.push_back(sep_);
  b.token_label.push_back(-1);
}

void CorpusWindows::add_spans(Batch& b, Batch& source, const std::int32_t* body,
                              const MaskingRule& rule, Key key) const {
  const std::vector<bool> gone = dropped_spans(body_, rule, key, b.example.back());
  std::vector<std::int32_t> seen, told;
  std::size_t spans = 0;
  for (std::size_t i = 0; i < gone.size(); ++i) {
    if (gone[i] && !gone[i - 1]) {
      check(spans < sentinels_.size(),
            "corpus: more spans in a window than the tokenizer's {} sentinels; make windows "
            "shorter or spans longer",
            sentinels_.size());
      seen.push_back(sentinels_[spans]);
      told.push_back(sentinels_[spans++]);
    }
    (gone[i] ? told : seen).push_back(body[i]);
  }
  seen.push_back(sep_);
  told.push_back(sep_);
  source.token.insert(source.token.end(), seen.begin(), seen.end());
  source.length.push_back(static_cast<int>(seen.size()));
  source.example.push_back(b.example.back());
  b.token.push_back(start_);
  b.token.insert(b.token.end(), told.begin(), told.end() - 1);
  b.token_label.insert(b.token_label.end(), told.begin(), told.end());
  b.length.push_back(static_cast<int>(told.size()));
}

}  // namespace graft
