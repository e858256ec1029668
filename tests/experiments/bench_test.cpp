// What the benchmarks are made of; what they measure is no test.
#include "experiments/bench/workloads.h"

#include <doctest/doctest.h>

#include "experiments/bench/trainer.h"
#include "experiments/bench/yardstick.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

TEST_SUITE("benchmarks") {
  TEST_CASE("quartiles are interpolated between the sorted values") {
    const Spread s = spread({4, 1, 3, 2});
    CHECK(s.low == doctest::Approx(1.75));
    CHECK(s.median == doctest::Approx(2.5));
    CHECK(s.high == doctest::Approx(3.25));
    CHECK(spread({7}).high == 7);
    CHECK(error_of([] { spread({}); }).find("no values") != std::string::npos);
  }

  TEST_CASE("every workload takes every method, or says why not") {
    int refused = 0;
    for (const Workload& w : workloads())
      for (const std::string& method : method_names()) {
        CAPTURE(w.name);
        CAPTURE(method);
        const Cell cell = cell_named(w.name, method);
        if (!cell.why_not.empty()) {
          ++refused;
          continue;
        }
        Model shapes(arch_of(w), {.storage = false});
        const Adaptation adaptation(all_methods(), cell.spec, shapes);
        CHECK(adaptation.count() == adaptation.formula());
        CHECK(adaptation.count() > 0);
      }
    CHECK(refused == 10);
    CHECK(error_of([] { cell_named("gpt3", "full"); }).find("encoder-32") != std::string::npos);
    CHECK(error_of([] { cell_named("gpt2", "lora"); }).find("lora-qv") != std::string::npos);
    CHECK(error_of([] {
            prepare(cell_named("llama", "bitfit"), "/nowhere", 1, {});
          }).find("no biases") != std::string::npos);
  }

  TEST_CASE("a prepared cell's tokens tell the next one, and a trainer steps through them") {
    const Folder folder;
    SmallModel base(small_arch(Stack::decoder));
    save_model(base, folder / "model");
    write_file_atomically(folder / "cell.json",
                          R"({"model": ")" + (folder / "model").string() +
                              R"(", "spec": "lora:r=2,on=q+v", "rate": 0.01, "language": true})");
    write_file_atomically(folder / "batches.json",
                          R"([{"token": [[3, 1, 2], [4, 5]], "label": [0, 1]}])");
    const PreparedCell cell = read_cell(folder.path);
    REQUIRE(cell.batches.size() == 1);
    const Batch& batch = cell.batches[0];
    CHECK(batch.token == std::vector<std::int32_t>{3, 1, 2, 4, 5});
    CHECK(batch.length == std::vector<int>{3, 2});
    CHECK(batch.token_label == std::vector<std::int32_t>{1, 2, -1, 5, -1});
    Trainer trainer(load_model(cell.model), cell.spec);
    const double first = trainer.step(batch, cell.rate).loss;
    for (int i = 0; i < 5; ++i) CHECK(trainer.step(batch, cell.rate).norm > 0);
    CHECK(trainer.step(batch, cell.rate).loss < first);
    CHECK(trainer.trainable() == trainer.adaptation().count());
  }
}
