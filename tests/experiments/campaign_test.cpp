// What can go wrong around a campaign's runs: rates at which training runs away, data and bases
// that change under its records, a search that grew.
#include "experiments/ablations/campaign.h"

#include <doctest/doctest.h>

#include <cmath>

#include "experiments/ablations/lora_weight_choice.h"
#include "experiments/ablations/runner.h"
#include "nn/optim/diverged.h"
#include "peft/methods.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

struct Place {
  Bases bases{{"esm"}};
  BaseFolder base_folder = [this](const std::string& name) { return bases.folder.path / name; };
  std::string task = (bases.folder.path / "beasts").string();

  json config(const std::string& method, double lr) const {
    return {{"base", "esm"}, {"task", task}, {"method", method},
            {"epochs", 1},   {"batch", 8},   {"lr", lr}};
  }
  CampaignOptions options() const {
    CampaignOptions o;
    o.out = bases.folder.path / "out", o.seeds = {1};
    return o;
  }
  // In a new process, as it were.
  void run(const std::vector<json>& configs) const {
    Lab lab(all_methods(), base_folder);
    Campaign(lab, "test", options()).run(configs);
  }
};

}  // namespace

TEST_CASE("a rate at which training runs away loses the search, and does not end it") {
  const Place place;
  Lab lab(all_methods(), place.base_folder);
  Campaign campaign(lab, "test", place.options());
  json config = place.config("full", 0);
  config.erase("lr");
  const json tuned = campaign.tuned({{config, 1e30}}).at(0);
  REQUIRE(campaign.now().runs().size() >= 5);
  const Records again(place.options().out);  // as the file has them
  for (const Run& run : again.runs()) CHECK(std::isnan(run.metrics.at("dev")));
  CHECK(tuned.at("lr").get<double>() > 0);
  for (const Trial& trial : campaign.tunings().at(0).trials) CHECK(trial.score < -1e300);
}

TEST_CASE("a run that runs away is named in the end, recorded without scores and not run again") {
  const Place place;
  const std::vector<json> configs{place.config("full", 1e30), place.config("head", 1e-3)};
  const auto lines = [&] { return read_file(place.options().out / "runs.0of1.jsonl"); };
  try {
    place.run(configs);
    FAIL("nothing diverged");
  } catch (const Diverged& error) {
    contains(error.what(), "test: 1 run(s) diverged and are recorded without scores: full, ");
  }
  const std::string before = lines();
  place.run(configs);  // throws nothing, and adds nothing
  CHECK(lines() == before);
  const Records records(place.options().out);
  REQUIRE(records.runs().size() == 2);
  for (const Run& run : records.runs()) {
    CHECK(diverged(run) == (run.arm.config.at("method") == "full"));
    CHECK(run.scores.empty() == diverged(run));
  }
  // Nor is it run for another experiment that has the same arm.
  CampaignOptions other = place.options();
  other.out = place.bases.folder.path / "other", other.siblings = {place.options().out};
  Lab lab(all_methods(), place.base_folder);
  Campaign campaign(lab, "other", other);
  campaign.run(configs);
  CHECK(campaign.trained_now() == 0);
  CHECK(campaign.now().runs().size() == 2);
}

TEST_CASE("runs say their task's metric and what a search of their own tried") {
  const Place place;
  Lab lab(all_methods(), place.base_folder);
  const auto run_of = [&](const std::string& method) {
    return lab.run("test", RunKind::quick,
                   {{{"base", "esm"}, {"task", place.task}, {"method", method}}, 1});
  };
  const Run five = run_of("features:layer=1"), more = run_of("features:layer=1,rates=grow");
  CHECK(five.versions.at("metric") == "accuracy");
  CHECK(five.versions.at("search").size() == 5);
  CHECK(five.metrics.at("rate") > 0);
  const json& tried = more.versions.at("search");
  CHECK(tried.size() >= 5);
  CHECK(tried.size() <= 13);
  CHECK(more.metrics.at("dev") >= five.metrics.at("dev"));
  // It stops inside its grid or at the furthest rate.
  const double rate = more.metrics.at("rate");
  CHECK((rate > tried.front().at(0) || rate == 1e-6));
  CHECK((rate < tried.back().at(0) || rate == 1));
}

TEST_CASE("rows that are no numbers of rows are refused before anything runs") {
  const Place place;
  json config = place.config("head", 1e-3);
  config["rows"] = {{"train", "many"}};
  contains(error_of([&] { check_config(all_methods(), place.base_folder, config); }),
           "train is \"many\", no number of rows");
  contains(error_of([&] { place.run({config}); }), "no number of rows");
}

TEST_CASE("runs of other rows or of another base are not mixed with new ones") {
  const Place place;
  place.run({place.config("head", 1e-3)});
  place.run({place.config("head", 1e-3)});  // nothing to do, nothing wrong
  const auto search = [&] {
    Lab lab(all_methods(), place.base_folder);
    json config = place.config("head", 0);
    config.erase("lr");
    (void)Campaign(lab, "test", place.options()).tuned({{config, 1e-3}});
  };
  search();
  const fs::path rows = fs::path(place.task) / "train.tsv";
  const std::string before = read_file(rows);
  write_file_atomically(rows, before + before.substr(before.rfind('\n', before.size() - 2) + 1));
  contains(error_of([&] { place.run({place.config("head", 1e-3)}); }), "was of other rows than");
  contains(error_of([&] { search(); }), "was of other rows than");
  write_file_atomically(rows, before);
  SmallModel other(small("esm"), Dtype::f32, 0.07);
  save_model(other, place.bases.folder.path / "esm", FileDtype::f32, &tokenizer());
  contains(error_of([&] { place.run({place.config("head", 1e-3)}); }),
           "was of another base than 'esm' is now");
}

TEST_CASE("a task that is given twice is refused") {
  const Place place;
  const Experiment e = lora_weight_choice();
  const Setup s =
      setup_for(e, place.base_folder, "esm", {place.task, place.task}, quick_scale(), true);
  contains(error_of([&] { check_setup(all_methods(), place.base_folder, e, s); }),
           "is given twice");
}

TEST_CASE("of an arm that ran at several rates the runs at the chosen one count") {
  const Place place;
  const Experiment e = lora_weight_choice();
  const Setup s = setup_for(e, place.base_folder, "esm", {place.task}, full_scale(), false);
  const std::vector<PlannedArm> arms = e.arms(s, place.task);
  const PlannedArm& arm =
      *std::ranges::find_if(arms, [](const PlannedArm& a) { return !a.group.empty(); });
  Records records(place.bases.folder.path / "out", "0of1");
  const auto record = [&](const std::string& experiment, json config, double lr, double dev,
                          std::uint64_t seed) {
    Run run;
    config["lr"] = lr;
    run.experiment = experiment, run.arm = {config, seed};
    run.metrics = {{"dev", dev}, {"best epoch", 1}};
    records.append(run);
  };
  const auto rates = [&] {
    const View view(e, records, RunKind::full, s);
    std::map<std::uint64_t, double> all;
    for (const auto& [seed, run] : view.runs(place.task, arm.label))
      all[seed] = run->arm.config.at("lr");
    return all;
  };
  for (const std::uint64_t seed : {1, 2}) record(e.name, arm.config, 3.16e-4, 0, seed);
  record(e.name, arm.config, 1e-3, 0, 1);
  CHECK(rates() == std::map<std::uint64_t, double>{{1, 3.16e-4}, {2, 3.16e-4}});
  for (const auto& [lr, dev] : {std::pair{3.16e-4, 0.5}, {1e-3, 0.7}, {3.16e-3, 0.6}})
    record(e.name + "/tuning", tuning_config(leader(arms, arm.group).config), lr, dev, 101);
  CHECK(rates() == std::map<std::uint64_t, double>{{1, 1e-3}});
}
