// A pretraining run that is made longer ends as if it had been so long from the start, or is
// refused.
#include <doctest/doctest.h>

#include "tests/experiments/small_pretraining.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr const char* kCopy = "state-before-cooldown.safetensors";

PretrainSpec falling_run(const std::string& kind, const Folder& folder, const char* out) {
  PretrainSpec spec = small_run(kind, folder);
  spec.out = folder / out;
  spec.steps = 20, spec.cooldown = 5;  // the 17th step is the first at a lower rate
  return spec;
}

PretrainResult longer(PretrainSpec spec, std::int64_t steps, std::int64_t stop_after = 0) {
  spec.steps = steps, spec.stop_after = stop_after;
  return pretrain(spec);
}

}  // namespace

TEST_CASE("a run whose rate fell to 0 is made longer and ends with the bits of one long run") {
  for (const char* kind : {"encoder", "decoder", "t5"}) {
    CAPTURE(std::string(kind));
    const Folder folder;
    const Quiet quiet;
    const PretrainSpec once = falling_run(kind, folder, "once");
    const PretrainResult whole = longer(once, 40);
    CHECK(whole.step == 40);

    const PretrainSpec twice = falling_run(kind, folder, "twice");
    const PretrainResult cooled = pretrain(twice);
    CHECK(cooled.step == 20);
    CHECK(fs::exists(twice.out / kCopy));
    CHECK(pretrain(twice).weights_hash == cooled.weights_hash);  // nothing left to do
    const PretrainResult made = longer(twice, 40);
    CHECK(made.step == 40);
    CHECK(made.weights_hash == whole.weights_hash);
    CHECK(made.heldout_loss == whole.heldout_loss);
    for (const char* file : {"log.jsonl", "model/model.safetensors"})
      CHECK(read_file(twice.out / file) == read_file(once.out / file));

    // Cut short, once before the steps that were done already are done again.
    const PretrainSpec parts = falling_run(kind, folder, "parts");
    pretrain(parts);
    CHECK(longer(parts, 40, 18).step == 18);
    longer(parts, 40, 37);
    CHECK(longer(parts, 40).weights_hash == whole.weights_hash);
    // And longer again.
    CHECK(longer(parts, 55).weights_hash ==
          longer(falling_run(kind, folder, "three"), 55).weights_hash);
  }
}

TEST_CASE("a run whose rate had not begun to fall goes on from its last step when made longer") {
  const Folder folder;
  const Quiet quiet;
  const PretrainResult whole = longer(falling_run("encoder", folder, "once"), 40);
  const PretrainSpec cut = falling_run("encoder", folder, "cut");
  longer(cut, 20, 12);
  CHECK_FALSE(fs::exists(cut.out / kCopy));
  CHECK(longer(cut, 40).weights_hash == whole.weights_hash);

  PretrainSpec even = falling_run("encoder", folder, "even");
  even.schedule = Schedule::Kind::constant;
  pretrain(even);
  CHECK_FALSE(fs::exists(even.out / kCopy));
  const PretrainResult made = longer(even, 30);
  even.out = folder / "even once";
  CHECK(longer(even, 30).weights_hash == made.weights_hash);
}

TEST_CASE("a run is not resumed under steps or a cooldown that give steps it did other rates") {
  const Folder folder;
  const Quiet quiet;
  const PretrainSpec spec = falling_run("encoder", folder, "run");
  const std::uint64_t hash = pretrain(spec).weights_hash;
  const auto refused = [](PretrainSpec other, std::int64_t steps, int cooldown, const char* first) {
    other.cooldown = cooldown;
    const std::string said = error_of([&] { longer(other, steps); });
    contains(said, fmt::format("20 steps of a run with --steps 20 --cooldown 5; with --steps {} "
                               "--cooldown {} its {} would have had another rate",
                               steps, cooldown, first));
  };
  refused(spec, 40, 30, "step 12");  // longer, but falling from before where the copy stands
  refused(spec, 20, 2, "step 17");
  refused(spec, 18, 5, "step 15");
  refused(spec, 20, 0, "step 17");
  CHECK(pretrain(spec).weights_hash == hash);  // none of them has cost anything
  fs::remove(spec.out / kCopy);
  refused(spec, 40, 5, "step 17");

  PretrainSpec line = falling_run("encoder", folder, "line");
  line.schedule = Schedule::Kind::linear;
  pretrain(line);
  refused(line, 40, 5, "step 4");  // of two at the start and the next at the full rate
  CHECK(pretrain(line).step == 20);
}
