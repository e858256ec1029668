// Jobs that write one results folder: they divide a search among them, and wait for each other.
#include <doctest/doctest.h>

#include <fstream>
#include <thread>

#include "experiments/ablations/campaign.h"
#include "experiments/ablations/view.h"
#include "peft/methods.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using graft::testing::Bases;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const std::string kName = "test/tuning";
const double kRate = 3.16e-3;  // of the trial that another job is at

struct Shared {
  Bases bases{{"esm"}};
  fs::path out = bases.folder.path / "out";
  Lab lab{all_methods(), [this](const std::string& name) { return bases.folder.path / name; }};
  json config = tuning_config({{"base", "esm"},
                               {"task", (bases.folder.path / "beasts").string()},
                               {"method", "head"},
                               {"epochs", 1},
                               {"batch", 8}});
  std::optional<Campaign> campaign;

  Arm trial() const {
    Arm arm{config, 101};
    arm.config["lr"] = kRate;
    return arm;
  }
  // How many records of our own there are: what the job with shard 0/2 wrote.
  std::size_t written() const {
    std::ifstream file(out / "runs.0of2.jsonl");
    return static_cast<std::size_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
  }
  // Tunes with the shard 0/2 while another job is at trial(); that one lets go of it at the end of
  // `other`, which begins when the rest of the trials is done.
  json tune(const std::function<void()>& other) {
    const ArmLocks locks(out);
    std::optional<ArmLocks::Held> held = locks.take(trial().key());
    CampaignOptions options;
    options.out = out, options.shard = parse_shard("0/2");
    campaign.emplace(lab, "test", options);
    std::thread job([&] {
      while (written() < 4) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      other();
      held.reset();
    });
    const json tuned = campaign->tuned({{config, 1e-3}}).at(0);
    job.join();
    return tuned;
  }
};

}  // namespace

TEST_CASE("an arm is held by one job at a time, until that job lets it go or ends") {
  graft::testing::Folder folder;
  const ArmLocks one(folder.path);
  const std::string a(32, '1'), b(32, '2');
  std::optional<ArmLocks::Held> held = one.take(a);
  CHECK(held.has_value());
  {
    const ArmLocks two(folder.path);
    CHECK_FALSE(two.take(a).has_value());
    CHECK(two.take(b).has_value());
    held.reset();
    held = two.take(a);
    CHECK(held.has_value());
    CHECK_FALSE(one.take(a).has_value());
    held.reset();
    const auto left = two.take(b);
    CHECK_FALSE(one.take(b).has_value());
  }
  CHECK(one.take(a).has_value());
  CHECK(one.take(b).has_value());
}

TEST_CASE("a trial that another job is at is waited for, and its result is taken") {
  Shared shared;
  const json tuned = shared.tune([&] {
    Run run;
    run.experiment = kName, run.arm = shared.trial();
    run.metrics = {{"dev", 2}, {"best epoch", 1}};  // better than any true one: it is chosen
    Records(shared.out, "1of2").append(run);
  });
  CHECK(tuned.at("lr") == kRate);
  CHECK(shared.campaign->trained_now() == 4);
  CHECK(shared.written() == 4);
}

TEST_CASE("a trial that another job was killed at is run by those who are left") {
  Shared shared;
  (void)shared.tune([] {});
  CHECK(shared.campaign->trained_now() >= 5);  // more where the best lies on an edge
  CHECK(shared.campaign->now().has(kName, RunKind::full, shared.trial()));
}
