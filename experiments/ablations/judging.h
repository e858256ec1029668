// What an experiment's records say of its claims.
#pragma once

#include "experiments/ablations/view.h"

namespace graft {

// Whether a task carries claims: full fine-tuning and the experiment's subject must beat what needs
// no base or no adapting, by set margins. For claims that do not set the subject against full
// fine-tuning themselves, it must also come within 4 points of that.
struct Regime {
  bool known = false;  // all runs that would tell are recorded, with scores
  bool holds = false;
  std::string note;  // the numbers
};
Regime regime_of(const View&, const std::string& task, bool near_full = true);

struct Judged {
  std::vector<Case> cases;
  std::vector<std::string> missing;   // ids of claims without their runs
  std::vector<std::string> diverged;  // the same where those diverged, every one: ids and why
};
// Of a full run a claim needs every seed of the set-up, of its own arms and of those that its
// regime is told from, and a search for rates that was alike on its own tasks: else its case is
// unready.
Judged cases_of(const View&);

// "LoRA on k, supersense (1 of 5 seeds)": the arms of the set-up with runs that diverged.
std::vector<std::string> diverged_arms(const View&);

}  // namespace graft
