// What a sweep's file may say, and what its page says of made-up records.
#include <doctest/doctest.h>

#include <algorithm>

#include "experiments/ablations/sweep.h"
#include "nn/files/atomic.h"
#include "tests/nn/folder.h"

using namespace graft;
using graft::testing::contains;
using graft::testing::error_of;
using graft::testing::Folder;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// A sweep's folder with these runs.
fs::path made_sweep(const fs::path& folder, json spec, const std::vector<Run>& runs) {
  spec["name"] = "made";
  fs::create_directories(folder);
  write_file_atomically(folder / "sweep.json", spec.dump());
  Records records(folder, "0of1");
  for (Run run : runs) {
    run.experiment = "made";
    records.append(run);
  }
  return folder;
}

}  // namespace

TEST_CASE("a sweep expands its grid and refuses what it does not know") {
  const json good = {{"name", "ranks"},
                     {"base", "tiny"},
                     {"task", "t"},
                     {"method", "lora:r={r},on={on}"},
                     {"grid", {{"r", {1, 2}}, {"on", {"q", "q+v"}}, {"lr", {1e-3, 1e-2}}}}};
  const SweepSpec spec = SweepSpec::from(good);
  CHECK(spec.configs.size() == 8);
  CHECK(spec.configs[0].at("method") == "lora:r=1,on=q");
  // By standard, for the one task and base of the grid.
  const json word_counts = {{"base", "tiny"}, {"task", "t"}, {"method", kTunedWords}};
  CHECK(spec.baselines.size() == 2);
  CHECK(spec.baselines[1] == word_counts);
  CHECK(spec.all().size() == 10);
  const auto error_with = [&](const char* key, const json& value) {
    json bad = good;
    bad[key] = value;
    return error_of([&] { SweepSpec::from(bad); });
  };
  contains(error_with("sedes", json{1}), "unknown key 'sedes'");
  contains(error_with("metric", "speed"), "metric 'speed'");
  contains(error_with("grid", {{"r", {1}}, {"on", {"q"}}, {"rank", {1}}}), "axis 'rank'");
  contains(error_with("grid", {{"r", {1}}}), "word in braces");
  contains(error_with("grid", {{"r", 1}, {"on", {"q"}}}), "axis 'r' needs a list");
  contains(error_with("seeds", "three"), "wrong type");
  contains(error_with("rows", {{"trian", 2000}}),
           "rows {\"trian\":2000}: there is no split 'trian'");
  contains(error_with("rows", {{"train", -1}}), "train is -1, no number of rows");
  contains(error_with("rows", {{"dev", 0.5}}), "dev is 0.5, no number of rows");
  contains(error_with("rows", "many"), "rows \"many\": not an object; need an object");
  contains(error_of([] {
             SweepSpec::from({{"name", "x"}, {"method", "head"}});
           }),
           "needs \"task\"");
}

TEST_CASE("what records say of a task's metric comes before what is not here to tell") {
  const json spec = {{"name", "x"}, {"method", "head"}, {"lr", 1}, {"task", "/gone/stories"}};
  CHECK(SweepSpec::from(spec).baselines.at(0).at("method") == "majority");
  CHECK(SweepSpec::from(spec, {{"/gone/stories", "loss"}}).baselines.at(0).at("method") ==
        "unigram");
}

TEST_CASE("a sweep's baselines stand once beside what they are compared with") {
  json given = {{"name", "x"},
                {"method", "lora:r={r}"},
                {"rows", {{"train", 40}}},
                {"epochs", 2},
                {"grid", {{"r", {1, 2}}, {"task", {"t", "defgen"}}, {"lr", {1e-3}}}}};
  const auto baselines = [&](const json& list) {
    given["baselines"] = list;
    return SweepSpec::from(given).baselines;
  };
  CHECK(baselines(json::array()).empty());
  // Of a language task others are the standard.
  std::vector<std::string> standard;
  for (const json& config : baselines(nullptr))
    standard.push_back(config.at("task").get<std::string>() + " " +
                       config.at("method").get<std::string>());
  std::ranges::sort(standard);
  CHECK(standard == std::vector<std::string>{"defgen frozen", "defgen unigram",
                                             std::string("t ") + kTunedWords, "t majority"});
  given["grid"]["task"] = {"t"};
  // What trains takes the grid's keys but not its rate; an object's keys come before the grid's;
  // what the grid has already is not added.
  const auto all = baselines({"head",
                              {{"method", "lora:r=1"}, {"base", "encoder@random"}},
                              {{"method", "lora:r=1"}, {"lr", 1e-3}}});
  REQUIRE(all.size() == 2);
  CHECK(all[0] == json{{"base", "encoder"},
                       {"task", "t"},
                       {"rows", {{"train", 40}}},
                       {"epochs", 2},
                       {"method", "head"}});
  CHECK(all[1].at("base") == "encoder@random");
  contains(error_of([&] { baselines("head"); }), "is a list of methods");
  contains(error_of([&] { baselines({3}); }), "neither a method nor an object");
  contains(error_of([&] {
             baselines({{{"method", "head"}, {"epoch", 3}}});
           }),
           "unknown key 'epoch'");
}

TEST_CASE("a sweep prints no interval where nothing tells the error") {
  const Folder folder;
  const auto run = [](const char* method, std::uint64_t seed, double metric) {
    Run r;
    r.arm = {{{"base", "encoder"}, {"task", "topic"}, {"method", method}}, seed};
    r.metrics = {{"test", metric}, {"dev", 0.25}, {"trainable", 6957632}, {"base", 6957632}};
    r.versions = {{"metric", "macro_f1"}};
    r.scores["test"] = {1, 0, 0, 1};
    return r;
  };
  json spec{{"task", "topic"},
            {"lr", 1},
            {"baselines", json::array()},
            {"grid", {{"method", {"one", "two", "same"}}}},
            {"seeds", {1, 2}}};
  Run other = run("two", 2, 0.4);
  other.scores["test"] = {1, 1, 0, 0};
  const std::vector<Run> runs{run("one", 1, 0.1812), run("two", 1, 0.3), other, run("same", 1, 0.5),
                              run("same", 2, 0.5)};
  std::string page = read_file(sweep_report(made_sweep(folder / "test", spec, runs)));
  CHECK(has(page, ">0.1812 [–]<"));
  CHECK(has(page, "[–]: there is no interval."));
  CHECK(has(page, ">0.3500 [-"));          // two seeds that differ
  CHECK_FALSE(has(page, ">0.5000 [–]<"));  // the same rows, and their mean: over examples
  CHECK(has(page, ">100 %<"));
  CHECK_FALSE(has(page, "e+02"));
  spec["metric"] = "dev";
  page = read_file(sweep_report(made_sweep(folder / "dev", spec, runs)));
  CHECK(has(page, ">0.2500 [–]<"));
  CHECK_FALSE(has(page, "[0.2500"));
}

TEST_CASE("records tell a loss where the task's folder is not here, or the page is refused") {
  const Folder folder;
  const auto run = [](const json& versions, double metric) {
    Run r;
    r.arm = {{{"base", "decoder"}, {"task", "/gone/stories"}, {"method", "head"}, {"lr", 1}}, 1};
    r.metrics = {{"test", metric}, {"dev", metric}};
    r.versions = versions;
    r.scores["test"] = {3, 3.5};
    return r;
  };
  const json spec{{"task", "/gone/stories"}, {"base", "decoder"}, {"method", "head"}, {"lr", 1}};
  const auto page = [&](const char* name, const json& versions, double metric) {
    return read_file(sweep_report(made_sweep(folder / name, spec, {run(versions, metric)})));
  };
  const std::string loss = page("loss", {{"metric", "loss"}}, -3.25);
  CHECK(has(loss, ">3.2500 ["));
  CHECK_FALSE(has(loss, "-3.25"));
  CHECK(has(page("matthews", {{"metric", "matthews"}}, -0.25), ">-0.2500 [–]<"));
  CHECK(has(page("positive", json::object(), 0.75), ">0.7500 [–]<"));  // no loss is
  contains(error_of([&] { page("old", json::object(), -3.25); }),
           "is task '/gone/stories' scored by a loss?");
}

TEST_CASE("a sweep's page says that a random base is one draw") {
  const Folder folder;
  Run run;
  run.arm = {{{"base", "encoder@random"}, {"task", "topic"}, {"method", "head"}, {"lr", 1}}, 1};
  run.metrics = {{"test", 0.5}, {"dev", 0.5}};
  run.scores["test"] = {1, 0};
  const json spec{{"task", "topic"}, {"base", "encoder@random"}, {"method", "head"}, {"lr", 1}};
  CHECK(has(read_file(sweep_report(made_sweep(folder / "sweep", spec, {run}))),
            "It is one draw for all seeds"));
}
