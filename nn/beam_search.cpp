// Beam search as transformers 5 does it (generation/utils.py, _beam_search), one prompt's beams
// independent of the others'.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "nn/decoding.h"

namespace graft {
namespace {

struct Beam {
  std::vector<std::int32_t> all;  // prompt and answer
  double sum = 0;                 // of the answer's log probabilities
};

// One way to go on.
struct Step {
  int beam;
  std::int32_t token;
  double sum;
  Generated::End end;
  bool ends;
};

class Search {
 public:
  Search(int name, const std::vector<std::int32_t>& prompt, const GenerateSpec& spec)
      : name_(name), prompt_(prompt.size()), spec_(spec), running_{{prompt, 0}} {}

  int name() const { return name_; }
  int beams() const { return static_cast<int>(running_.size()); }
  std::int32_t last(int beam) const { return running_[static_cast<std::size_t>(beam)].all.back(); }

  // Takes each running beam's scores for its next token. Returns which beams the new ones came
  // from; none where the search is over.
  std::vector<int> advance(const std::vector<std::vector<double>>& scores,
                           const std::vector<int>& room) {
    const std::vector<Step> steps = best_steps(scores, room);
    finish(steps);
    std::vector<Beam> next;
    std::vector<int> from;
    for (const Step& s : steps) {
      if (s.ends || static_cast<int>(next.size()) == spec_.beams) continue;
      Beam beam = running_[static_cast<std::size_t>(s.beam)];
      beam.all.push_back(s.token);
      beam.sum = s.sum;
      next.push_back(std::move(beam));
      from.push_back(s.beam);
    }
    running_ = std::move(next);
    if (running_.empty() || !may_improve()) return {};
    return from;
  }

  Generated best() const { return finished_.front(); }

 private:
  int made() const { return static_cast<int>(running_[0].all.size() - prompt_); }
  bool full() const { return static_cast<int>(finished_.size()) == spec_.beams; }

  // The likeliest steps over all beams: so many that enough of them go on.
  std::vector<Step> best_steps(const std::vector<std::vector<double>>& scores,
                               const std::vector<int>& room) const {
    std::vector<Step> all;
    for (int b = 0; b < beams(); ++b) {
      const Beam& beam = running_[static_cast<std::size_t>(b)];
      std::vector<double> next = log_softmax(scores[static_cast<std::size_t>(b)]);
      restrict_next(next, beam.all, made(), spec_);
      for (std::size_t t = 0; t < next.size(); ++t) {
        if (!std::isfinite(next[t])) continue;
        all.push_back({b, static_cast<std::int32_t>(t), beam.sum + next[t], {}, false});
      }
    }
    check(!all.empty(), "generate: every token is banned; lower no_repeat_ngram");
    const std::size_t keep =
        std::min(all.size(), static_cast<std::size_t>(spec_.beams) *
                                 std::max<std::size_t>(2, 1 + spec_.stop.size()));
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(keep), all.end(),
                      [](const Step& x, const Step& y) {
                        return x.sum != y.sum
                                   ? x.sum > y.sum
                                   : std::pair(x.beam, x.token) < std::pair(y.beam, y.token);
                      });
    all.resize(keep);
    for (Step& s : all) {
      const bool stops =
          std::find(spec_.stop.begin(), spec_.stop.end(), s.token) != spec_.stop.end();
      const bool last = made() + 1 == spec_.max_tokens;
      s.ends = stops || last || room[static_cast<std::size_t>(s.beam)] < 1;
      s.end = stops  ? Generated::End::stop
              : last ? Generated::End::count
                     : Generated::End::positions;
    }
    return all;
  }

  double normed(double sum, int length) const {
    return sum / std::pow(length, spec_.length_penalty);
  }

  // Steps that end and are among the best `beams` become finished, as long as they may be better.
  void finish(const std::vector<Step>& steps) {
    if (full() && spec_.until == GenerateSpec::Until::beams_full) return;
    for (std::size_t i = 0; i < steps.size() && static_cast<int>(i) < spec_.beams; ++i) {
      const Step& s = steps[i];
      if (!s.ends) continue;
      const auto& all = running_[static_cast<std::size_t>(s.beam)].all;
      Generated answer{{all.begin() + static_cast<std::ptrdiff_t>(prompt_), all.end()},
                       s.end,
                       normed(s.sum, made() + 1)};
      answer.tokens.push_back(s.token);
      finished_.push_back(std::move(answer));
    }
    std::stable_sort(finished_.begin(), finished_.end(),
                     [](const Generated& x, const Generated& y) { return x.score > y.score; });
    if (static_cast<int>(finished_.size()) > spec_.beams)
      finished_.resize(static_cast<std::size_t>(spec_.beams));
  }

  bool may_improve() const {
    if (!full()) return true;
    if (spec_.until == GenerateSpec::Until::beams_full) return false;
    const bool longest =
        spec_.until == GenerateSpec::Until::never_better && spec_.length_penalty > 0;
    return normed(running_[0].sum, longest ? spec_.max_tokens : made()) > finished_.back().score;
  }

  int name_;
  std::size_t prompt_;
  const GenerateSpec& spec_;
  std::vector<Beam> running_;        // best first
  std::vector<Generated> finished_;  // best first
};

}  // namespace

std::vector<Generated> beam_search(const Model& model,
                                   const std::vector<std::vector<std::int32_t>>& prompts,
                                   const GenerateSpec& spec) {
  std::vector<Search> going;
  std::vector<Generated> out(prompts.size());
  Reader reader(model, prompts, spec);
  std::vector<std::vector<std::int32_t>> news;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    news.push_back(reader.beginning(i));
    going.emplace_back(static_cast<int>(i), news[i], spec);
  }
  while (!going.empty()) {
    std::vector<int> names, from;
    for (const Search& search : going) names.insert(names.end(), search.beams(), search.name());
    const auto scores = reader.read(news, names);
    std::vector<Search> left;
    news.clear();
    int row = 0;
    for (Search& search : going) {
      const int beams = search.beams();
      std::vector<int> room;
      for (int b = 0; b < beams; ++b) room.push_back(reader.room(row + b));
      const std::vector<int> chosen =
          search.advance({scores.begin() + row, scores.begin() + row + beams}, room);
      if (chosen.empty()) {
        out[static_cast<std::size_t>(search.name())] = search.best();
      } else {
        for (std::size_t b = 0; b < chosen.size(); ++b) {
          from.push_back(row + chosen[b]);
          news.push_back({search.last(static_cast<int>(b))});
        }
        left.push_back(std::move(search));
      }
      row += beams;
    }
    if (!left.empty()) reader.select(from);
    going = std::move(left);
  }
  return out;
}

}  // namespace graft
