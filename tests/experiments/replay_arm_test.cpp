// A recorded arm of an experiment, run again by its key.
#include <doctest/doctest.h>

#include "experiments/harness/record.h"
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
