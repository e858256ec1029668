// Campaign: runs the arms of one experiment - tuning first, then seeds - and records each as it
// ends. Killed at any moment it loses only the run in progress; started again it skips what is
// recorded.
#pragma once

#include <filesystem>

#include "experiments/ablations/lab.h"
#include "experiments/harness/arm_locks.h"
#include "experiments/harness/progress.h"
#include "experiments/harness/tables.h"

namespace graft {

struct CampaignOptions {
  std::filesystem::path out;        // results folder of this run
  std::filesystem::path committed;  // results that came with the source, or empty
  // Results of other experiments on the same base: an arm that ran there is copied, not run again.
  std::vector<std::filesystem::path> siblings;
  Shard shard;
  bool quick = false;
  std::vector<std::uint64_t> seeds{1, 2, 3, 4, 5};
  std::vector<std::uint64_t> tuning_seeds{101};  // never among the seeds above
  double minutes = 0;                            // stop starting arms after so long; 0: no limit
  double last_minutes = 0;                       // and give up the one in progress; 0: never
};

// One arm's search for a learning rate.
struct Search {
  nlohmann::json config;
  double middle = 1e-3;
};

class Campaign {
 public:
  Campaign(Lab&, std::string experiment, const CampaignOptions&);
  ~Campaign();

  // The configurations with the learning rates that tuning chose: for each, five rates on a
  // half-decade grid around its `middle`. While any one's best lies on an edge, the grids of all
  // grow there, so that every arm has the same number of trials; after four such steps the page
  // says so (check_fair) and gives no verdict. Trials come from the committed record where it has
  // them, else they are run now; jobs with other shards of the same folder each run a part. A
  // trial that diverged is recorded, without a score.
  std::vector<nlohmann::json> tuned(const std::vector<Search>&);
  // Runs what is not recorded yet, all of the first seed first. A run that diverges is recorded so,
  // without scores, and is never run again. Throws for a recorded run of another base or other rows
  // (Lab::check_same), and in the end, naming them, where runs diverged now.
  void run(const std::vector<nlohmann::json>& configs, const Measurement& = {});

  // This run's records, and the committed ones. A configuration without a run of every seed: none.
  const Records& now() const { return *now_; }
  const Records& committed() const { return *committed_; }
  std::optional<Scores> scores(const Records&, const nlohmann::json& config,
                               const std::string& set = "test") const;
  const std::vector<Tuning>& tunings() const { return tunings_; }
  int trained_now() const { return trained_now_; }
  bool out_of_time() const;
  const CampaignOptions& options() const { return options_; }
  const std::string& experiment() const { return experiment_; }
  RunKind kind() const { return options_.quick ? RunKind::quick : RunKind::full; }

 private:
  const Run* recorded_trial(const Arm&) const;
  const Run& trial(const Arm&);
  void run_trials(std::vector<Arm>);  // none of these is missing afterwards
  Run without_scores(const std::string& experiment, const Arm&, double begun);  // it diverged
  const Run* sibling(const Arm&, bool tuning) const;
  void copy(Run, const std::string& experiment);
  Trial trial_of(nlohmann::json config, double rate);

  Lab& lab_;
  std::string experiment_;
  CampaignOptions options_;
  std::unique_ptr<Records> now_, committed_;
  ArmLocks locks_;
  std::vector<std::unique_ptr<Records>> siblings_;
  std::vector<Tuning> tunings_;
  int trained_now_ = 0;
  double begun_ = 0;
};

// "lora:r=8,on=q+v on hyper3": how progress and tables name a configuration.
std::string label_of(const nlohmann::json& config);

}  // namespace graft
