// What a sweep's file may say.
#include <doctest/doctest.h>

#include <algorithm>

#include "experiments/ablations/sweep.h"
#include "tests/nn/folder.h"

using namespace graft;
using graft::testing::contains;
using graft::testing::error_of;
using nlohmann::json;

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
  const json word_counts = {{"base", "tiny"}, {"task", "t"}, {"method", "bag of words"}};
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
  contains(error_of([] {
             SweepSpec::from({{"name", "x"}, {"method", "head"}});
           }),
           "needs \"task\"");
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
  CHECK(standard == std::vector<std::string>{"defgen frozen", "defgen unigram", "t bag of words",
                                             "t majority"});
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
