#include "experiments/runs/exact_match.h"

#include <algorithm>

#include "nn/generate.h"

namespace graft {

void check_writes(const Model& model, const EncodedTask& task) {
  check(task.goal == Goal::language, "exact match: task {} has labels, not texts to write",
        task.name);
  check(!model.encoder, "exact match: the model has an encoder; need a decoder");
}

ExactMatch exact_match(const Model& model, const EncodedTask& task,
                       const std::vector<EncodedExample>& examples, const RowsDone& done) {
  check_writes(model, task);
  constexpr std::size_t kTogether = 32;
  ExactMatch result;
  for (std::size_t at = 0; at < examples.size(); at += kTogether) {
    const std::size_t to = std::min(at + kTogether, examples.size());
    if (done) done(at);
    std::vector<std::vector<std::int32_t>> prompts, answers;
    GenerateSpec spec{.max_tokens = 1, .stop = {model.arch().sep}};
    for (std::size_t i = at; i < to; ++i) {
      const auto& token = examples[i].token;
      prompts.emplace_back(token.begin(), token.begin() + examples[i].prompt);
      answers.emplace_back(token.begin() + examples[i].prompt, token.end());
      spec.max_tokens = std::max(spec.max_tokens, static_cast<int>(answers.back().size()));
    }
    const auto written = generate(model, prompts, spec);
    for (std::size_t i = 0; i < written.size(); ++i)
      result.right += written[i].end == Generated::End::stop && written[i].tokens == answers[i];
    result.of += static_cast<int>(written.size());
  }
  return result;
}

}  // namespace graft
