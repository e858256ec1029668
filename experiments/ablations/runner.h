// Running an experiment: checks first, then tuning, then the arms; and what it will take.
#pragma once

#include "experiments/ablations/campaign.h"
#include "experiments/ablations/costs.h"
#include "experiments/ablations/view.h"

namespace graft {

using BaseFolder = std::function<std::filesystem::path(const std::string&)>;

// The set-up of one run of an experiment. Reads the base's shape; throws where there is none.
// Where the experiment has language tasks they are on if `decoder`, or else a base of that name, is
// there.
Setup setup_for(const Experiment&, const BaseFolder&, const std::string& base,
                const std::vector<std::string>& tasks, const Scale&, bool few,
                const std::string& decoder = "");

// Everything that can be wrong, before anything is trained: the base's files, the tasks, and every
// method's options, attached to a model without storage. Throws the first thing found.
void check_setup(const Methods&, const BaseFolder&, const Experiment&, const Setup&);
void check_config(const Methods&, const BaseFolder&, const nlohmann::json& config);

struct RunOptions {
  RunKind kind = RunKind::quick;
  CampaignOptions campaign;  // its kind, seeds and tuning seeds are filled in
  bool tune = true;          // where the committed run has no rate; otherwise the grid's middle
  bool fit = false;          // only the first arms of which a seed fits into the minutes
};

struct Outcome {
  int trained = 0;        // runs, now
  int planned = 0;        // all there are, also those that did not fit
  bool left_out = false;  // some, for want of minutes
  std::string diverged;   // the runs that did and why; to be told when the page is written
  std::vector<std::string> notes;
};

// Tunes and runs what is not recorded; ends early when the minutes are over. Runs that diverge end
// nothing else.
Outcome run_arms(Lab&, const Experiment&, const Setup&, RunOptions, const View* committed);

}  // namespace graft
