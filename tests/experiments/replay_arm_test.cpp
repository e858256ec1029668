// A recorded arm of an experiment, run again by its key.
#include <doctest/doctest.h>

#include "experiments/ablations/lora_rank_sweep.h"
#include "experiments/ablations/replay.h"
#include "experiments/ablations/report.h"
#include "nn/files/atomic.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("graft replay runs an arm of a results folder again and compares its bits") {
  const Bases b({"esm"});
  const fs::path results = b.folder / "results";
  const nlohmann::json spec{{"name", "ranks"},
                            {"base", (b.folder / "esm").string()},
                            {"task", (b.folder / "beasts").string()},
                            {"method", "lora:r={r}"},
                            {"grid", {{"r", {1, 2}}}},
                            {"lr", 1e-2},
                            {"baselines", nlohmann::json::array()},
                            {"epochs", 1},
                            {"seeds", {1}}};
  write_file_atomically(b.folder / "spec.json", spec.dump());
  b.hears("sweep " + b.out("spec.json") + " --out " + b.out("results"));
  const auto replay = [&](const std::string& key) {
    return "replay " + b.out("results") + (key.empty() ? "" : " --key " + key);
  };
  const auto refused = [&](const std::string& key, const std::string& why) {
    const Said s = b.says(replay(key));
    CHECK(s.status == 1);
    contains(s.text, why);
  };
  Run changed;
  {
    const Records records(results);
    REQUIRE(records.runs().size() == 2);
    for (const Run& run : records.runs()) {
      const std::string said = b.hears(replay(run.arm.key().substr(0, 12)));
      contains(said, "the same bits: " + run.arm.config.at("method").get<std::string>());
      contains(said, "weights " + run.weights_hash);
    }
    changed = records.runs()[0];
  }
  refused("", "holds 2 runs; --key says which");
  refused("none", "has a key that begins with 'none'");
  changed.weights_hash = "0", changed.arm.seed = 7;
  Records(results, "1of2").append(changed);
  refused(changed.arm.key(), "the weights' hash is ");
  changed.core = "none", changed.arm.seed = 8;
  Records(results, "1of2").append(changed);
  refused(changed.arm.key(), "made by kernels for none");
  contains(b.says("replay " + b.out("beasts")).text, "is no results folder");
  const Said s = b.says("replay " + b.out("spec.json") + " --key 1");
  contains(s.text, "--key goes with a results folder");
}

TEST_CASE("a replay measures what the experiment does, and compares every score and metric") {
  const Bases b({"esm"});
  const BaseFolder bases = [&](const std::string& name) { return b.folder.path / name; };
  const Experiment e = lora_rank_sweep();
  Scale scale = quick_scale();
  scale.train = 8, scale.dev = 4, scale.test = 5;
  const Setup s = setup_for(e, bases, "esm", {(b.folder / "beasts").string()}, scale, true);
  const auto arms = e.arms(s, s.tasks[0]);
  const PlannedArm& measured = *std::ranges::find_if(
      arms, [](const PlannedArm& arm) { return arm.config.contains("measure"); });
  Arm arm{measured.config, 1};
  arm.config["lr"] = 1e-2;
  Lab lab(all_methods(), bases);
  const Run run = lab.run(e.name, RunKind::quick, arm, e.measurement(all_methods()));
  REQUIRE(run.scores.contains("changed by B = 0"));
  int folders = 0;
  const auto replayed = [&](const std::function<void(Run&)>& change) {
    Run recorded = run;
    change(recorded);
    const fs::path folder = b.folder.path / fmt::format("results{}", ++folders);
    keep_setup(folder, e.name, RunKind::quick, s);
    Records(folder, "0of1").append(recorded);
    return replay_arm(all_methods(), bases, folder, arm.key());
  };
  contains(replayed([](Run&) {}), "weights " + run.weights_hash);
  const auto refused = [&](const std::function<void(Run&)>& change, const std::string& why) {
    contains(error_of([&] { replayed(change); }), why);
  };
  refused([](Run& r) { r.scores.at("changed by B = 0")[2] = 1; },
          "the scores 'changed by B = 0' of test examples are others");
  refused([](Run& r) { r.metrics.at("dev") += 0.01; }, "the metric 'dev' is ");
  refused([](Run& r) { r.metrics["of another version"] = 1; }, "the metric 'of another version'");
  refused(
      [](Run& r) {
        r.scores.clear(), r.metrics = {{"diverged", 1}};
      },
      "diverged, but now it does not");
  // A trial is of its experiment, too, and measures nothing beyond dev.
  arm.config = tuning_config(measured.config), arm.config["lr"] = 1e-2;
  const Run trial = lab.run(e.name + "/tuning", RunKind::quick, arm);
  contains(replayed([&](Run& r) { r = trial; }), "weights " + trial.weights_hash);
}
