#include "experiments/pretrain/ngram.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"

namespace graft {
namespace {

// The hash of the n tokens before position i (Fibonacci hashing, 64 bits: with 10^7 n-grams a
// collision somewhere has a chance of 10^-5, and would move one count by one).
std::uint64_t context(const std::vector<std::int32_t>& tokens, std::size_t i, int n) {
  std::uint64_t h = 0x243F6A8885A308D3ull;
  for (int j = n; j >= 1; --j) {
    h = (h ^ static_cast<std::uint64_t>(tokens[i - j] + 1)) * 0x9E3779B97F4A7C15ull;
    h ^= h >> 29;
  }
  return h;
}

// All pairs (context of n tokens, next token) of a text, sorted: a table of counts.
class Table {
 public:
  Table(const std::vector<std::int32_t>& tokens, int n) {
    pairs_.reserve(tokens.size());
    for (std::size_t i = n; i < tokens.size(); ++i)
      pairs_.push_back({context(tokens, i, n), tokens[i]});
    std::sort(pairs_.begin(), pairs_.end());
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      if (i == 0 || pairs_[i].context != pairs_[i - 1].context)
        contexts_.push_back({pairs_[i].context, i, 0, 0});
      ++contexts_.back().count;
      contexts_.back().kinds += i == 0 || pairs_[i] != pairs_[i - 1];
    }
  }

  // (c(h, w) + T(h) below) / (c(h) + T(h)), with T the kinds of token seen after h.
  double refine(std::uint64_t h, std::int32_t token, double below) const {
    const auto at =
        std::lower_bound(contexts_.begin(), contexts_.end(), h,
                         [](const Seen& s, std::uint64_t key) { return s.context < key; });
    if (at == contexts_.end() || at->context != h) return below;
    const auto first = pairs_.begin() + static_cast<std::ptrdiff_t>(at->start);
    const auto [low, high] =
        std::equal_range(first, first + static_cast<std::ptrdiff_t>(at->count), Pair{h, token});
    return (double(high - low) + double(at->kinds) * below) / double(at->count + at->kinds);
  }

 private:
  struct Pair {
    std::uint64_t context;
    std::int32_t token;
    auto operator<=>(const Pair&) const = default;
  };
  struct Seen {
    std::uint64_t context;
    std::size_t start, count, kinds;
  };
  std::vector<Pair> pairs_;
  std::vector<Seen> contexts_;
};

}  // namespace

double ngram_loss(const std::vector<std::int32_t>& train, const std::vector<std::int32_t>& heldout,
                  int order, int vocab) {
  check(order >= 1 && !train.empty() && !heldout.empty(),
        "ngram: order {}, {} training tokens, {} held out; all must be at least 1", order,
        train.size(), heldout.size());
  std::vector<double> p(heldout.size(), 1.0 / vocab);
  for (int n = 0; n < order; ++n) {
    const Table table(train, n);
    for (std::size_t i = n; i < heldout.size(); ++i)
      p[i] = table.refine(context(heldout, i, n), heldout[i], p[i]);
  }
  double loss = 0;
  for (double x : p) loss -= std::log(x);
  return loss / double(p.size());
}

}  // namespace graft
