// The clause on text: what an adapted decoder writes over a cache is what it gives without one.
#include <algorithm>
#include <cmath>

#include "nn/generate.h"
#include "peft/contract_trial.h"

namespace graft {
namespace {

const std::vector<std::vector<std::int32_t>> kPrompts{{5, 9, 2, 11}, {3, 17}};

// Prompts and answers as one batch that is read at once, without a cache. Labels stand where an
// answer's tokens are predicted: an infix goes before them.
Batch read_at_once(const Arch& arch, const std::vector<Generated>& answers) {
  Batch b, source;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    std::vector<std::int32_t> text = kPrompts[i];
    if (arch.crosses()) {
      source.token.insert(source.token.end(), text.begin(), text.end());
      source.length.push_back(static_cast<int>(text.size()));
      source.example.push_back(static_cast<std::uint32_t>(i));
      text = {arch.start};
    }
    b.token_label.insert(b.token_label.end(), text.size() - 1, -1);
    for (const std::int32_t t : answers[i].tokens) text.push_back(t), b.token_label.push_back(t);
    b.token.insert(b.token.end(), text.begin(), text.end() - 1);
    b.length.push_back(static_cast<int>(text.size()) - 1);
    b.example.push_back(static_cast<std::uint32_t>(i));
  }
  if (arch.crosses()) b.source = std::make_shared<Batch>(std::move(source));
  return b;
}

struct Read {
  std::vector<double> score;  // sum of the answer's log probabilities
  double behind = 0;          // the most that a token of an answer lies behind the likeliest
};

Read read(const Model& model, const std::vector<Generated>& answers) {
  const Batch batch = read_at_once(model.arch(), answers);
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  const std::vector<std::int32_t> rows = labelled_rows(s, batch);
  std::vector<std::int32_t> token;
  for (const std::int32_t row : rows) token.push_back(s.source[static_cast<std::size_t>(row)]);
  const std::vector<double> logits = model.lm_logits(s, rows, ctx).value().to_vector();
  const auto width = static_cast<std::size_t>(model.arch().vocab);
  Read out;
  std::size_t row = 0;
  for (const Generated& answer : answers) {
    double sum = 0;
    for (std::size_t i = 0; i < answer.tokens.size(); ++i, ++row) {
      const auto at = logits.begin() + static_cast<std::ptrdiff_t>(row * width);
      const double most = *std::max_element(at, at + static_cast<std::ptrdiff_t>(width));
      double total = 0;
      for (std::size_t v = 0; v < width; ++v) total += std::exp(at[v] - most);
      const double behind = most - at[answer.tokens[i]];
      out.behind = std::max(out.behind, behind);
      sum -= behind + std::log(total);
    }
    out.score.push_back(sum);
  }
  return out;
}

}  // namespace

void Contract::writing() {
  constexpr const char* kClause = "it writes with a cache as without, and with beams";
  if (kind == Body::encoder) return;
  const NoRecord off;
  Trial t = trial();
  t.jitter_all();
  double worst = 0;
  for (const int beams : {1, 2}) {
    GenerateSpec how;
    how.max_tokens = 3, how.beams = beams;
    const auto answers = generate(t.model, kPrompts, how);
    const Read again = read(t.model, answers);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const double length = beams > 1 ? static_cast<double>(answers[i].tokens.size()) : 1;
      worst = std::max(worst, std::abs(answers[i].score - again.score[i] / length));
    }
    if (beams == 1) worst = std::max(worst, again.behind);
  }
  add(kClause, worst < 1e-4, fmt::format("largest difference of a log probability {:.1e}", worst));
}

}  // namespace graft
