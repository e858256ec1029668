#include "experiments/ablations/judging.h"

#include <algorithm>
#include <set>

namespace graft {
namespace {

const std::string kFullTuning = "full fine-tuning";

const std::string& subject_of(const View& view, const std::string& task) {
  const Experiment& e = view.experiment();
  return view.setup().is_language(task) ? e.language_subject : e.subject;
}

struct Need {
  std::string arm, less;
  double points;  // below 0: it may be less by so much
};

std::vector<Need> needs_of(const View& view, const std::string& task, bool near_full) {
  const bool language = view.setup().is_language(task);
  const std::string random = "the method on a random base";
  const std::string& subject = subject_of(view, task);
  std::vector<Need> all;
  for (const std::string& arm : {kFullTuning, subject}) {
    if (language) {
      for (const std::string& floor :
           {std::string("unigram"), std::string("nothing trained"), random})
        all.push_back({arm, floor, 0});
    } else {
      all.push_back({arm, "bag of words", margin_over_words(task)});
      all.push_back({arm, base_floor(view.setup()), 5});
      all.push_back({arm, random, task == "supersense" ? 10. : 0.});
    }
  }
  if (!language && near_full) all.push_back({subject, kFullTuning, -4});
  return all;
}

// A loss is lower where it is better.
std::vector<Weighed> pieces_of(const View& view, const std::string& task, const Need& need) {
  if (view.setup().is_language(task)) return {{task, need.less, 1}, {task, need.arm, -1}};
  return difference(task, need.arm, need.less);
}

// Such a statement tests what the regime would ask: where the subject is far below full fine-tuning
// it is refuted, not without meaning.
bool sets_against_full(const View& view, const Statement& s) {
  return std::ranges::any_of(s.parts, [&](const std::vector<Weighed>& part) {
    const auto has = [&](const std::string& task, const std::string& arm) {
      return std::ranges::any_of(part,
                                 [&](const Weighed& w) { return w.task == task && w.arm == arm; });
    };
    return std::ranges::any_of(part, [&](const Weighed& w) {
      return has(w.task, kFullTuning) && has(w.task, subject_of(view, w.task));
    });
  });
}

std::string of_seeds(std::size_t some, std::size_t all) {
  return fmt::format("{} of {} seeds", some, all);
}

// The arms of these pieces that diverged, each with its seeds; "": none.
std::string diverged_among(const View& view, const std::vector<Weighed>& pieces) {
  std::set<std::pair<std::string, std::string>> seen;
  std::vector<std::string> told;
  for (const Weighed& w : pieces) {
    if (!seen.insert({w.task, w.arm}).second) continue;
    if (const auto seeds = view.diverged(w.task, w.arm); !seeds.empty())
      told.push_back(fmt::format("{}, {} ({})", w.arm, w.task,
                                 of_seeds(seeds.size(), view.setup().scale.seeds.size())));
  }
  return fmt::format("{}", fmt::join(told, "; "));
}

// Why these pieces carry no verdict of a full run: arms that diverged, or seeds still to run.
// Empty: every planned seed of every piece has scores.
std::string unfinished(const View& view, const std::vector<Weighed>& pieces) {
  if (const std::string arms = diverged_among(view, pieces); !arms.empty())
    return fmt::format("no verdict: training diverged in {}", arms);
  const std::vector<std::uint64_t>& seeds = view.setup().scale.seeds;
  std::set<std::string> open;
  std::size_t whole = 0;
  for (const std::uint64_t seed : seeds) {
    bool all = true;
    for (const Weighed& w : pieces) {
      const auto runs = view.runs(w.task, w.arm);
      const auto at = runs.find(seed);
      if (at != runs.end() && at->second->scores.contains(w.set)) continue;
      all = false;
      open.insert(fmt::format("{}, {}", w.arm, w.task));
    }
    whole += all;
  }
  if (whole == seeds.size()) return "";
  return fmt::format("no verdict yet ({}); not finished: {}", of_seeds(whole, seeds.size()),
                     open.size() > 3
                         ? fmt::format("{} and {} other arms", *open.begin(), open.size() - 1)
                         : fmt::format("{}", fmt::join(open, "; ")));
}

// Why the search for rates on these tasks allows no verdict: arms were not searched alike, or not
// yet. Empty: it does.
std::string uneven_tuning(const View& view, const std::set<std::string>& tasks) {
  std::vector<Tuning> tunings = view.tunings();
  std::erase_if(tunings, [&](const Tuning& t) { return !tasks.contains(t.task); });
  if (tunings.empty()) return "";
  try {
    check_fair(tunings);
    return "";
  } catch (const Error& error) {
    return fmt::format("no verdict yet: {}", error.what());
  }
}

// Everything that a verdict on the statement rests on.
std::vector<Weighed> rests_on(const View& view, const Statement& s, bool near_full) {
  std::vector<Weighed> all;
  for (const auto& part : s.parts) all.insert(all.end(), part.begin(), part.end());
  for (const std::string& task : s.tasks)
    for (const Need& need : needs_of(view, task, near_full))
      for (Weighed& w : pieces_of(view, task, need)) all.push_back(std::move(w));
  return all;
}

}  // namespace

Regime regime_of(const View& view, const std::string& task, bool near_full) {
  Regime regime{true, true, ""};
  const bool language = view.setup().is_language(task);
  for (const Need& need : needs_of(view, task, near_full)) {
    const std::vector<Weighed> pieces = pieces_of(view, task, need);
    const auto e = view.effect(pieces, 2000);
    if (!e || (view.kind() == RunKind::full && !unfinished(view, pieces).empty())) {
      const std::string arms = diverged_among(view, pieces);
      return {false, false,
              arms.empty() ? "not all runs that would tell are recorded"
                           : "training diverged in " + arms};
    }
    const bool enough = (need.points < 0 || e->interval.low > 0) && e->value >= need.points;
    regime.holds &= enough;
    if (enough) continue;
    regime.note +=
        fmt::format("{}{} over {} by {} (needed: {})", regime.note.empty() ? "" : "; ", need.arm,
                    need.less, with_interval(e->value, e->interval, language ? 3 : 1),
                    need.points == 0 ? "more than 0" : fmt::format("{:g}", need.points));
  }
  return regime;
}

Judged cases_of(const View& view) {
  Judged out;
  const bool quick = view.kind() == RunKind::quick;
  std::map<std::pair<std::string, bool>, Regime> regimes;
  for (const Statement& s : view.experiment().claims(view.setup())) {
    const bool near_full = !sets_against_full(view, s);
    Evidence evidence;
    Claim claim = s.claim;
    claim.parts.clear();
    std::set<std::string> tasks;
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      for (const Weighed& w : s.parts[i]) tasks.insert(w.task);
      if (auto effect = view.effect(s.parts[i])) {
        claim.parts.push_back(s.claim.parts[i]);
        evidence.parts.push_back(std::move(*effect));
      } else if (const std::string arms = diverged_among(view, s.parts[i]);
                 !arms.empty() && !quick) {
        evidence.unready = arms;
      }
    }
    // A quick run shows the effects that it has; a verdict needs all of a claim's.
    const std::size_t enough = quick ? 1 : s.parts.size();
    if (evidence.parts.size() < enough) {
      if (evidence.unready.empty())
        out.missing.push_back(s.claim.id);
      else
        out.diverged.push_back(fmt::format("{} ({})", s.claim.id, evidence.unready));
      continue;
    }
    if (!quick) evidence.unready = unfinished(view, rests_on(view, s, near_full));
    if (!quick && evidence.unready.empty() && !is_counted(s.claim))
      evidence.unready = uneven_tuning(view, tasks);
    for (const std::string& task : s.tasks) {
      const auto [at, is_new] = regimes.try_emplace({task, near_full});
      if (is_new) at->second = regime_of(view, task, near_full);
      const Regime& regime = at->second;
      // One that is not known yet takes its share of what is judged together.
      evidence.in_regime &= regime.holds || (!quick && !regime.known);
      if (!regime.holds)
        evidence.regime_note +=
            (evidence.regime_note.empty() ? "" : ". ") + task + ": " + regime.note;
    }
    out.cases.push_back({claim, std::move(evidence)});
  }
  return out;
}

std::vector<std::string> diverged_arms(const View& view) {
  std::vector<std::string> all;
  for (const std::string& task : view.setup().tasks)
    for (const PlannedArm& arm : view.arms(task))
      if (const std::string told = diverged_among(view, {{task, arm.label}}); !told.empty())
        all.push_back(told);
  return all;
}

}  // namespace graft
