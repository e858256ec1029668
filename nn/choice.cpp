#include "nn/choice.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tensor/parallel.h"

namespace graft {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr int kAtOnce = 256;  // sequences in the decoder, and rows before the vocabulary

// The beginnings, `length` tokens long, that the decoder reads: those of longer targets.
struct Level {
  std::vector<Tokens> beginning;
  std::vector<int> parent;  // the same without its last token, within the level before
  std::vector<int> of;      // by target; -1 where the target is no longer than that
};

std::vector<Level> levels_of(const std::vector<Tokens>& targets) {
  std::vector<Level> levels;
  std::map<Tokens, int> before;
  for (std::size_t length = 0;; ++length) {
    Level level;
    std::map<Tokens, int> known;
    for (const Tokens& target : targets) {
      if (target.size() <= length) {
        level.of.push_back(-1);
        continue;
      }
      Tokens beginning(target.begin(), target.begin() + static_cast<std::ptrdiff_t>(length));
      const auto [at, fresh] = known.emplace(beginning, static_cast<int>(known.size()));
      level.of.push_back(at->second);
      if (!fresh) continue;
      level.beginning.push_back(beginning);
      if (length > 0) beginning.pop_back();
      level.parent.push_back(length > 0 ? before.at(beginning) : 0);
    }
    if (known.empty()) return levels;
    levels.push_back(std::move(level));
    before = std::move(known);
  }
}

void check_targets(const Model& model, const std::vector<Tokens>& targets) {
  check(model.encoder != nullptr,
        "choice: a model of family {} alone; answers are scored by an encoder-decoder",
        model.arch().family);
  check(!targets.empty(), "choice: no targets to choose from");
  for (std::size_t i = 0; i < targets.size(); ++i) {
    check(!targets[i].empty(), "choice: target {} has no tokens", i);
    for (const std::int32_t token : targets[i])
      check(0 <= token && token < model.arch().vocab,
            "choice: target {} has token {}; the model has 0..{}", i, token,
            model.arch().vocab - 1);
  }
  check(std::set(targets.begin(), targets.end()).size() == targets.size(),
        "choice: two of the {} targets are the same", targets.size());
}

// log softmax of each sequence's last row, at the tokens that are asked for.
class NextTokens {
 public:
  NextTokens(const Model& model, const Sequence& s, const Ctx& ctx)
      : model_(model), s_(s), ctx_(ctx) {
    std::int32_t row = -1;
    for (const int length : s.length) last_.push_back(row += length);
  }
  // Calls f(sequence, log p) with log p(token) for every sequence, in no order.
  template <class F>
  void each(F&& f) const {
    for (std::size_t at = 0; at < last_.size(); at += kAtOnce) {
      const std::size_t end = std::min(last_.size(), at + kAtOnce);
      const Array logits = model_
                               .lm_logits(s_,
                                          {last_.begin() + static_cast<std::ptrdiff_t>(at),
                                           last_.begin() + static_cast<std::ptrdiff_t>(end)},
                                          ctx_)
                               .value()
                               .to(Device::cpu);
      dispatch(logits, [&]<class T>(T) {
        const std::int64_t vocab = logits.dim(1);
        parallel_for(logits.dim(0), 4, [&](std::int64_t i) {
          const T* row = logits.data<T>() + i * vocab;
          const double most = *std::max_element(row, row + vocab);
          double sum = 0;
          for (std::int64_t j = 0; j < vocab; ++j) sum += std::exp(double(row[j]) - most);
          const double all = most + std::log(sum);
          f(at + static_cast<std::size_t>(i),
            [&](std::int32_t token) { return double(row[token]) - all; });
        });
      });
    }
  }

 private:
  const Model& model_;
  const Sequence& s_;
  const Ctx& ctx_;
  std::vector<std::int32_t> last_;
};

// Of a few sources: every target's sum, added into out[source][target].
void add_scores(const Model& model, const std::shared_ptr<const Batch>& source,
                const std::vector<Level>& levels, const std::vector<Tokens>& targets,
                std::span<std::vector<double>> out) {
  const std::size_t sources = out.size();
  KvCache cache(model.arch().layers, static_cast<int>(sources));
  for (std::size_t length = 0; length < levels.size(); ++length) {
    const Level& level = levels[length];
    const std::size_t nodes = level.beginning.size();
    Batch batch;
    std::vector<int> from;
    for (std::size_t s = 0; s < sources; ++s)
      for (std::size_t node = 0; node < nodes; ++node) {
        batch.token.push_back(length == 0 ? model.arch().start : level.beginning[node].back());
        batch.length.push_back(1);
        batch.example.push_back(source->example[s]);
        if (!source->adapter.empty()) batch.adapter.push_back(source->adapter[s]);
        if (!source->task.empty()) batch.task.push_back(source->task[s]);
        if (length > 0)
          from.push_back(static_cast<int>(s * levels[length - 1].beginning.size()) +
                         level.parent[node]);
      }
    if (length > 0)
      cache.select(from);
    else
      batch.source = source;
    Ctx ctx;
    ctx.cache = &cache;
    const Sequence s = model.forward(batch, ctx);
    NextTokens(model, s, ctx).each([&](std::size_t row, const auto& log_p) {
      for (std::size_t t = 0; t < targets.size(); ++t)
        if (level.of[t] == static_cast<int>(row % nodes))
          out[row / nodes][t] += log_p(targets[t][length]);
    });
  }
}

}  // namespace

std::vector<std::vector<double>> log_likelihoods(const Model& model, const Batch& source,
                                                 const std::vector<Tokens>& targets) {
  NoRecord off;
  check_targets(model, targets);
  const std::vector<Level> levels = levels_of(targets);
  std::size_t widest = 1;
  for (const Level& level : levels) widest = std::max(widest, level.beginning.size());
  const std::size_t most = std::max<std::size_t>(1, kAtOnce / widest), all = source.length.size();
  std::vector<std::vector<double>> out(all, std::vector<double>(targets.size(), 0));
  std::size_t token = 0;
  for (std::size_t at = 0; at < all; at += most) {
    const auto part = std::make_shared<Batch>();
    const std::size_t end = std::min(all, at + most);
    for (std::size_t i = at; i < end; ++i) {
      part->length.push_back(source.length[i]);
      part->example.push_back(source.example[i]);
      if (!source.adapter.empty()) part->adapter.push_back(source.adapter.at(i));
      if (!source.task.empty()) part->task.push_back(source.task[i]);
      for (int j = 0; j < source.length[i]; ++j) part->token.push_back(source.token[token++]);
    }
    add_scores(model, part, levels, targets, std::span(out).subspan(at, end - at));
  }
  for (const auto& row : out)
    for (const double x : row) check(!std::isnan(x), "choice: the model's scores are NaN");
  return out;
}

}  // namespace graft
