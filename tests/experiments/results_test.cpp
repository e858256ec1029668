// What experiments/results holds, which pages set beside every run and verdicts rest on.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "experiments/ablations/report.h"
#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "tests/experiments/program.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

fs::path results() { return fs::path(__FILE__).parent_path() / "../../experiments/results"; }

// How many rows of test a run of a task has: all, as far as `most`; or, where the task's sources
// are not here to count them, at least what the smallest of the tasks has about.
std::pair<std::size_t, std::size_t> scored_rows(const std::string& task, std::size_t most) {
  try {
    const std::size_t all = std::min(task_named(task).test.size(), most);
    return {all, all};
  } catch (const Error&) {
    return {500, most};
  }
}

}  // namespace

TEST_CASE("the committed runs are whole, of five seeds, and tuned alike") {
  for (const Experiment& e : all_experiments()) {
    CAPTURE(e.name);
    const ResultsFolder kept = open_results(results() / e.name);
    CHECK(kept.experiment == e.name);
    CHECK(kept.kind == RunKind::full);
    CHECK(kept.records->notes().empty());  // nothing in the files is torn
    const View view(e, *kept.records, kept.kind, kept.setup);
    CHECK(view.missing() == std::vector<std::string>{});
    const Scale& scale = kept.setup.scale;
    CHECK(scale.seeds.size() >= 5);
    for (const std::uint64_t seed : scale.tuning_seeds)
      CHECK(std::ranges::count(scale.seeds, seed) == 0);
    const std::vector<Tuning> tunings = view.tunings();
    CHECK(!tunings.empty());
    CHECK_NOTHROW(check_fair(tunings));
    std::map<std::string, std::size_t> rows;  // of test, by task: the same for every arm
    std::map<std::string, std::pair<std::size_t, std::size_t>> expected;
    for (const std::string& task : kept.setup.tasks)
      expected[task] = scored_rows(task, std::size_t(scale.test));
    for (const Run& run : kept.records->runs()) {
      CAPTURE(to_line(run).substr(0, 300));
      const bool tuning = run.experiment == e.name + "/tuning";
      CHECK(std::ranges::count(tuning ? scale.tuning_seeds : scale.seeds, run.arm.seed) == 1);
      const std::size_t scored = run.scores.at("test").size();
      const std::string task = run.arm.config.at("task");
      if (tuning) CHECK(scored == 1);
      if (!tuning && expected.contains(task)) {  // others are runs so far of a task to come
        CHECK(scored >= expected[task].first);
        CHECK(scored <= expected[task].second);
      }
      if (!tuning) CHECK(rows.insert({task, scored}).first->second == scored);
      if (run.arm.config.at("base") == kept.setup.base && run.versions.contains("base"))
        CHECK(run.versions.at("base") == kept.setup.weights);
    }
  }
}

TEST_CASE("a page of a copy of the committed runs tells them once") {
  const Folder folder;
  const fs::path copy = folder / "copy";
  fs::copy(results() / "lora_weight_choice", copy);
  const auto page = [&] { return read_file(remake_report(copy, results(), {})); };
  const std::string whole = page();
  CHECK(whole.find("The committed full run is part of this one.") != std::string::npos);
  CHECK(whole.find("Tuning, committed full run") == std::string::npos);
  // Without the last run it is another one, and both are told.
  const fs::path file = copy / "runs.0of2.jsonl";
  std::string lines = read_file(file);
  lines.erase(lines.rfind('\n', lines.size() - 2) + 1);
  std::ofstream(file, std::ios::trunc) << lines;
  CHECK(page().find("Tuning, committed full run") != std::string::npos);
}
