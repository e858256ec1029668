// What a sweep's file may say.
#include <doctest/doctest.h>

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
