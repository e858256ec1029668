// Claims: what a paper says an ablation shows, stated before the run, and how measurements judge
// it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "experiments/harness/stats.h"

namespace graft {

enum class Verdict { held, not_held, undecided, outside_regime };
std::string name(Verdict verdict);  // "held", "not held", "undecided", "outside the regime"

// What a part of a claim says of its measurement.
struct Test {
  enum class Kind {
    above,       // the effect is greater than `margin`
    below,       // the effect is smaller than `margin`
    equivalent,  // |effect| < margin, by two one-sided tests
    rising,      // values rise over ordered levels (Page's trend test)
    falling,
    peak,  // some inner level beats both ends
    none,  // the effect, never negative, is 0 in every example and seed: counted, not tested
  };
  Kind kind = Kind::above;
  double margin = 0;
};
std::string describe(const Test& test, const std::string& unit);  // "within ±1 points"

// One checkable statement; a claim holds when all its parts do.
struct ClaimPart {
  std::string label;
  Test test;
};

// Committed before the run that it is judged by.
struct Claim {
  std::string id;     // "T-H1"
  std::string text;   // what is claimed
  std::string paper;  // the paper's own figures, or empty; nothing else is ever printed as theirs
  std::vector<ClaimPart> parts;
  std::string unit = "points";
  std::string regime;  // when the claim means anything, e.g. "full fine-tuning beats majority by 5"
};

// What was measured for one part: an effect; an ordered table [seed][level]; or inner levels.
using Measured = std::variant<Effect, std::vector<std::vector<double>>, Peak>;

bool is_counted(const Claim& claim);  // not tested: all its parts are Test::Kind::none

struct Evidence {
  std::vector<Measured> parts;  // one for each part of the claim
  bool in_regime = true;
  std::string regime_note;   // the numbers that say so
  std::string unready = {};  // why there can be no verdict, or not yet; empty: there can be one
};

// One part, measured: what a reader needs to check the verdict.
struct Reading {
  std::string label, test;
  std::optional<double> effect;  // with its interval; none for a trend
  std::optional<Interval> interval;
  std::string numbers;                 // one line, e.g. "-0.3 [-0.9, 0.4] points"
  double p_held = 1;                   // small: the part holds
  double p_not = 1;                    // small: its contrary holds
  std::optional<int> seeds_to_decide;  // none: no number of seeds would
  bool one_seed = false;
};

struct Finding {
  Claim claim;
  std::vector<Reading> readings;
  double p_held = 1,
         p_not = 1;  // of the whole claim, Holm-adjusted over the claims judged together
  std::optional<Verdict> verdict;  // none for a quick run, nor where evidence is unready
  std::string reason;              // one sentence
};

struct Case {
  Claim claim;
  Evidence evidence;
};

struct Judging {
  bool quick = false;  // effects and intervals, never a verdict
  double alpha = 0.05;
};

// Judges the claims of one experiment together. A claim holds when its p <= alpha; it does not hold
// when the contrary's p <= alpha; otherwise it is undecided and the reason names the seeds that
// would decide. All parts must hold (intersection-union: the largest p); one part's contrary is
// enough to refute (Bonferroni over the parts). A claim outside its regime is not tested and takes
// no share of Holm's adjustment. One without a verdict yet is not decided either, but takes its
// share: when its runs are there, the others' verdicts stay. Fewer than two seeds never decide
// anything that is tested. A claim whose parts are all Kind::none is counted: one exception refutes
// it, no test is made, and it takes no share either.
//
// Throws when a claim has no part, no id, evidence of another number or kind than its parts, or
// parts of which only some are counted.
std::vector<Finding> judge(std::span<const Case> cases, const Judging& judging = {});

// "84.31 [83.90, 84.72]", digits after the point.
std::string with_interval(double value, const Interval& interval, int digits = 2);

}  // namespace graft
