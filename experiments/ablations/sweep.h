// A user's own grid over their own data or the tasks made here: `graft sweep SPEC.json`.
//
//   {"name": "ranks", "base": "encoder", "task": "topic", "method": "lora:r={r},on={on}",
//    "grid": {"r": [1, 4, 16], "on": ["q", "q+v"], "lr": [1e-3, 3e-3]},
//    "rows": {"train": 2000}, "epochs": 3, "seeds": [1, 2, 3], "metric": "test"}
//
// Beside the grid stand "baselines", for each task, base and rows of it: methods that train nothing
// (majority, bag of words, features:layer=12,pool=mean,model=linear; of a language task unigram,
// frozen) or any other (head, full, ...), with the grid's other keys and, without a rate of its
// own, a tuned one; as a text, or as an object whose keys replace the grid's: {"method":
// "lora:r=8", "base": "encoder@random"}. By standard majority and bag of words, unigram and frozen;
// [] for none.
//
// An axis of the grid is a key of a run (lr, epochs, batch, head, ...), "base", "task", "method",
// or a word that stands in braces in the method. Without lr the rate of every arm is tuned (around
// "middle", with "tuning_seeds"). metric: test or dev; "device": cpu or cuda; "compute": f32, or on
// a device bf16 or f16. Keys that are not known are errors.
#pragma once

#include "experiments/ablations/runner.h"

namespace graft {

struct SweepSpec {
  std::string name, metric = "test";
  Computing where;
  std::vector<nlohmann::json> configs;  // one for each point of the grid
  std::vector<nlohmann::json> baselines;
  std::vector<std::uint64_t> seeds{1, 2, 3}, tuning_seeds{101};
  double middle = 1e-3;

  // Throws naming an unknown key, a missing one, or a word in braces without an axis. `metrics`: of
  // tasks whose folders may have gone, as records have them.
  static SweepSpec from(const nlohmann::json&, const TaskMetrics& metrics = {});
  std::vector<nlohmann::json> all() const;  // the baselines first
};

bool is_tuned(const nlohmann::json& config);  // its rate is searched

// Checks every configuration, then runs what is not recorded in `out`, then writes its page. The
// lab is for the sweep's device and type.
std::filesystem::path run_sweep(Lab&, const BaseFolder&, const nlohmann::json& spec,
                                const std::filesystem::path& out, const Shard&, double minutes);

// A folder that run_sweep wrote, and its page from the records alone.
bool is_sweep_folder(const std::filesystem::path&);
std::filesystem::path sweep_report(const std::filesystem::path& folder);

}  // namespace graft
