#include "experiments/runs/unigram.h"

#include <cmath>

namespace graft {

Score unigram_score(const EncodedTask& task, const std::vector<EncodedExample>& examples,
                    int vocab) {
  check(task.goal == Goal::language,
        "unigram: task {} has labels; its floors are majority and bag of words", task.name);
  std::vector<double> count(static_cast<std::size_t>(vocab), 0);
  double tokens = 0, kinds = 0;
  const auto continuation = [](const EncodedExample& e) {
    return std::span(e.token).subspan(static_cast<std::size_t>(e.prompt));
  };
  for (const EncodedExample& e : task.train)
    for (const std::int32_t t : continuation(e)) {
      kinds += count.at(static_cast<std::size_t>(t)) == 0;
      ++count[static_cast<std::size_t>(t)], ++tokens;
    }
  std::vector<float> losses;
  for (const EncodedExample& e : examples) {
    double sum = 0;
    for (const std::int32_t t : continuation(e))
      sum -= std::log((count.at(static_cast<std::size_t>(t)) + kinds / vocab) / (tokens + kinds));
    losses.push_back(static_cast<float>(sum / static_cast<double>(continuation(e).size())));
  }
  return score_predictions(task, examples, losses);
}

}  // namespace graft
