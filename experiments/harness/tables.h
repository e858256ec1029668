// Tables as values: for the terminal as text, for the page as HTML; results and tuning in them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "experiments/harness/stats.h"
#include "experiments/harness/verdict.h"

namespace graft {

struct Column {
  std::string name;
  std::string group;    // neighbours of one group stand under one heading; empty: none
  bool number = false;  // to the right
};

struct Table {
  std::string caption;
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;

  std::string text() const;  // for a terminal; throws where a row's length is not the columns'
};

// A mean with its interval, over so many seeds. None where nothing is known of its error.
struct Measure {
  double mean = 0;
  std::optional<Interval> interval;
  int seeds = 0;
};
Measure measure(const Effect& effect);
std::string with_interval(const Measure& measure, int digits = 2);  // "0.18 [–]": none

// "0.31 %", "99 %", "100 %": two digits, and no powers of ten for the whole.
std::string share_in_words(double part, double whole);

// "5", "4, 1 diverged", "5 diverged": the seeds of a mean, and those without a score.
std::string seeds_in_words(const std::optional<Measure>&, int diverged);

// One arm beside what was committed and what the paper reports; an empty text is shown as a dash.
struct Result {
  std::string arm;
  std::string trained;  // share of the parameters that trains, e.g. "0.31 %"
  std::optional<Measure> now, committed;
  std::string paper, paper_trained, paper_model;
  int diverged_now = 0, diverged_committed = 0;  // seeds beside those of the measures
};
// Three groups of columns that no reader can take for one another: this run, the committed full
// run, the paper.
Table result_table(const std::string& caption, const std::string& metric,
                   std::span<const Result> results, int digits = 2);

// One learning rate that was tried for an arm: the best epoch's score on dev, mean over seeds.
struct Trial {
  double rate = 0;
  double score = 0, sd = 0;
  int epoch = 0;
};
struct Tuning {
  std::string arm;
  std::string task;
  std::vector<Trial> trials;  // by rising rate
  int seeds = 0;
  bool loss = false;  // the scores are losses, negated
};
const Trial& chosen(const Tuning& tuning);  // the highest score; the smaller rate where equal

// Throws unless every arm had the same number of trials and seeds as the others of its task, at
// least five rates on a half-decade grid, and its best rate inside its grid.
void check_fair(std::span<const Tuning> tunings);
// A trial that diverged has the score -infinity.
Table tuning_table(std::span<const Tuning> tunings, int digits = 2);

// Claims for the terminal: verdict, numbers and reason of each.
std::string text(std::span<const Finding> findings);

}  // namespace graft
