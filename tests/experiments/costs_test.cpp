// What runs will take, from recorded ones.
#include <doctest/doctest.h>

#include "experiments/ablations/costs.h"
#include "tests/nn/folder.h"

using namespace graft;
using nlohmann::json;

namespace {

json config_of(const std::string& method, int rows) {
  return {{"base", "tiny"},   {"task", "colours"},
          {"method", method}, {"epochs", 1},
          {"lr", 1e-3},       {"rows", {{"train", rows}, {"dev", 0}, {"test", 9}}}};
}

void record(Records& records, const std::string& method, std::uint64_t seed, double seconds) {
  Run run;
  run.experiment = "test", run.arm = {config_of(method, 100), seed}, run.seconds = seconds;
  records.append(run);
}

}  // namespace

TEST_CASE("runs recorded elsewhere count in the pace of this place") {
  graft::testing::Folder folder;
  Records here(folder.path / "here", "0of1"), elsewhere(folder.path / "elsewhere", "0of1");
  record(elsewhere, "lora:r=8,on=q+v", 1, 8);
  record(elsewhere, "lora:r=8,on=q+v", 2, 12);
  record(elsewhere, "houlsby:m=16", 1, 20);
  record(elsewhere, "bitfit", 1, 6);
  {
    const Costs before(here, elsewhere);
    CHECK(before.seconds(config_of("lora:r=8,on=q+v", 100)) == 10);
    CHECK_FALSE(before.seconds(config_of("layernorm", 100)).has_value());
  }
  record(here, "lora:r=8,on=q+v", 3, 5);
  record(here, "bitfit", 1, 3);
  const Costs costs(here, elsewhere);
  CHECK(costs.seconds(config_of("lora:r=8,on=q+v", 100)) == 5);
  CHECK(costs.seconds(config_of("houlsby:m=16", 100)) == 10);  // 8 s here for 16 there
  // Of another rank, on more rows: by the work (1100 rows for 500), of the runs here.
  CHECK(costs.seconds(config_of("lora:r=2,on=q+v", 300)).value() == doctest::Approx(11));
  // Without a run of the kind here, of those elsewhere.
  CHECK(costs.seconds(config_of("houlsby:m=4", 300)).value() == doctest::Approx(22));
}
