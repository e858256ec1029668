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

  Arm trial() const {
    Arm arm{config, 101};
    arm.config["lr"] = kRate;
    return arm;
  }
  CampaignOptions options() const {
    CampaignOptions o;
    o.out = out, o.shard = parse_shard("0/2");
    return o;
  }
  // How many records of our own there are: what the job with shard 0/2 wrote.
  std::size_t written() const {
    std::ifstream file(out / "runs.0of2.jsonl");
    return static_cast<std::size_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
  }
  // Waits until the campaign has run all the trials but the one that is claimed here.
  void wait() const {
    while (written() < 4) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
};

}  // namespace

TEST_CASE("an arm is claimed by one job at a time, until that job lets it go or ends") {
  graft::testing::Folder folder;
  const Claims one(folder.path);
  const std::string a(32, '1'), b(32, '2');
  std::optional<Claims::Claim> held = one.take(a);
  CHECK(held.has_value());
  {
    const Claims two(folder.path);
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
  Claims others(shared.out);
  std::optional<Claims::Claim> claim = others.take(shared.trial().key());
  Campaign campaign(shared.lab, "test", shared.options());
  std::thread other([&] {
    shared.wait();
    Run run;
    run.experiment = kName, run.arm = shared.trial();
    run.metrics = {{"dev", 2}, {"best epoch", 1}};  // better than any true one: it is chosen
    Records(shared.out, "1of2").append(run);
    claim.reset();
  });
  const json tuned = campaign.tuned({{shared.config, 1e-3}}).at(0);
  other.join();
  CHECK(tuned.at("lr") == kRate);
  CHECK(campaign.trained_now() == 4);
  CHECK(shared.written() == 4);
}

TEST_CASE("a trial that another job was killed at is run by those who are left") {
  Shared shared;
  Claims others(shared.out);
  std::optional<Claims::Claim> claim = others.take(shared.trial().key());
  Campaign campaign(shared.lab, "test", shared.options());
  std::thread other([&] {
    shared.wait();
    claim.reset();
  });
  (void)campaign.tuned({{shared.config, 1e-3}});
  other.join();
  CHECK(campaign.trained_now() >= 5);  // more where the best lies on an edge
  CHECK(campaign.now().has(kName, RunKind::full, shared.trial()));
}
