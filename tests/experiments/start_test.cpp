// Runs that start from a saved adapter, and the log of a run's steps.
#include "experiments/runs/start.h"

#include <doctest/doctest.h>

#include <fstream>

#include "experiments/runs/step_log.h"
#include "nn/files/atomic.h"
#include "peft/files.h"
#include "peft/peft_folder.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr const char* kSpec = "lora:r=2,alpha=4,on=q+v";

struct Bench {
  Arch arch = [] {
    Arch a = arch_of(Stack::encoder);
    a.dropout = 0;
    return a;
  }();
  SmallModel base{arch};
  EncodedTask task = encode_task(data(), tokenizer(), arch, {});
  RunSpec spec{.method = kSpec, .head = "linear", .lr = 0.01, .epochs = 2, .batch = 4, .seed = 3};

  // Trains, and saves the adapter as `graft train` does.
  RunResult train(const fs::path& folder, const RunPlaces& places = {}) {
    return finetune(
        base, task, spec, all_methods(),
        [&](Model& model, Adaptation& adaptation, const EncodedTask&) {
          Parameters all = adaptation.parameters();
          const Parameters head = train_head(model);
          all.insert(all.end(), head.begin(), head.end());
          save_adapter(folder, spec.method, all,
                       {{"labels", task.labels}, {"head", spec.head}, {"pool", spec.pool}});
        },
        places);
  }
  RunPlaces from(const Start& start, bool with_head = true) const {
    RunPlaces places;
    places.start = [&start, with_head](const Parameters& p) { begin_at(start, p, with_head); };
    places.started_from = start.hash;
    return places;
  }
};

std::vector<nlohmann::json> lines_of(const fs::path& file) {
  std::ifstream in(file);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

struct Interrupted {};

}  // namespace

TEST_CASE("a run that starts from a saved adapter begins where it ended, its head too") {
  const Threads one(1);
  Bench bench;
  const Folder folder;
  const RunResult before = bench.train(folder / "first");
  const Start start = read_start(folder / "first", bench.arch);
  CHECK(start.spec == kSpec);
  std::vector<std::string> notes;
  CHECK(keeps_head(start, bench.spec, bench.task, notes));
  CHECK(notes.empty());
  bench.spec.lr = 1e-12, bench.spec.epochs = 1, bench.spec.seed = 9;
  const RunResult after = bench.train(folder / "second", bench.from(start));
  CHECK(after.dev_best == before.dev_best);
  CHECK(after.test_predictions == before.test_predictions);
  const AdapterValues a = read_adapter_values(folder / "first");
  const AdapterValues b = read_adapter_values(folder / "second");
  REQUIRE(a.size() == b.size());
  for (const auto& [name, value] : a) CHECK(difference(b.at(name), value) < 1e-6);

  const RunResult fresh = bench.train(folder / "third");
  CHECK(difference(read_adapter_values(folder / "third").at("encoder 0 q lora_A"),
                   a.at("encoder 0 q lora_A")) > 0.1);
  CHECK(fresh.weights_hash != after.weights_hash);
}

TEST_CASE("a saved head is kept for a task with its labels, and announced as new for another") {
  Bench bench;
  const Folder folder;
  bench.train(folder / "a");
  Start start = read_start(folder / "a", bench.arch);
  EncodedTask other = bench.task;
  other.labels = {"noun.animal", "noun.food"};
  std::vector<std::string> notes;
  CHECK_FALSE(keeps_head(start, bench.spec, other, notes));
  REQUIRE(notes.size() == 1);
  CHECK(notes[0] == "the head is new: the adapter's is for noun.food, noun.animal");
  bench.spec.lr = 1e-12, bench.spec.epochs = 1, bench.spec.seed = 9;
  bench.train(folder / "b", bench.from(start, false));
  const AdapterValues b = read_adapter_values(folder / "b");
  CHECK(difference(b.at("encoder 0 q lora_A"), start.values.at("encoder 0 q lora_A")) < 1e-6);
  CHECK(difference(b.at("encoder head weight"), start.values.at("encoder head weight")) > 0.1);

  start.names_labels = false, start.pool = "", start.rows = 2;  // as PEFT's folders are
  notes.clear();
  CHECK(keeps_head(start, bench.spec, bench.task, notes));
  REQUIRE(notes.size() == 2);
  contains(notes[0], "the rows of its head are taken for noun.food, noun.animal");
  contains(notes[1], "does not say how its head pools: pool=mean is taken");
  start.head = "family", notes.clear();
  CHECK(keeps_head(start, bench.spec, bench.task, notes));
  CHECK(notes.size() == 1);  // a family's head has its own way of pooling
  start.rows = 3, notes.clear();
  CHECK_FALSE(keeps_head(start, bench.spec, bench.task, notes));
  contains(notes.at(0), "the adapter's is for 3 classes");
  start.head = "", notes.clear();
  CHECK_FALSE(keeps_head(start, bench.spec, bench.task, notes));
  contains(notes.at(0), "the adapter has none");
}

TEST_CASE("method, head and pool of a run are the saved adapter's, and nothing else") {
  Start start;
  start.folder = "saved", start.spec = kSpec, start.head = "dense", start.pool = "cls";
  RunSpec run;
  settle(start, run, {});
  CHECK(run.method == kSpec);
  CHECK(run.head == "dense");
  CHECK(run.pool == "cls");
  settle(start, run, {true, true, true});  // asked for, and the same
  run.method = "lora:r=4";
  contains(error_of([&] { settle(start, run, {.method = true}); }),
           "--method lora:r=4, but the adapter in 'saved' has lora:r=2,alpha=4,on=q+v");
  run.pool = "mean";
  contains(error_of([&] { settle(start, run, {.pool = true}); }), "--pool mean, but");
  start.pool = "";
  settle(start, run, {.pool = true});
  CHECK(run.pool == "mean");
}

TEST_CASE("a run does not resume what started from another adapter, nor take one that differs") {
  const Threads one(1);
  Bench bench;
  const Folder folder;
  bench.train(folder / "a");
  Start start = read_start(folder / "a", bench.arch);
  RunPlaces places = bench.from(start);
  places.state = folder / "state", places.state_seconds = 0;
  places.progress = [](int step, int, double) {
    if (step == 3) throw Interrupted();
  };
  CHECK_THROWS_AS(bench.train(folder / "b", places), Interrupted);
  places.progress = {}, places.started_from = "elsewhere";
  contains(error_of([&] { bench.train(folder / "b", places); }), "started from elsewhere");
  places.start = {}, places.started_from = "";
  contains(error_of([&] { bench.train(folder / "b", places); }), "belongs to a run on");

  start.values["encoder 0 k lora_A"] = Array::zeros({2, 12});
  contains(error_of([&] { bench.train(folder / "c", bench.from(start)); }),
           "unexpected: encoder 0 k lora_A");
  start.values.erase("encoder 0 k lora_A");
  start.values.erase("encoder 0 q lora_A");
  contains(error_of([&] { bench.train(folder / "c", bench.from(start)); }),
           "missing: encoder 0 q lora_A");
}

TEST_CASE("the log has every step once, with its batch, also where a run was cut off") {
  const Threads one(1);
  Bench bench;
  const Folder folder;
  RunPlaces places;
  places.log = StepLog(folder / "whole");
  bench.train(folder / "a", places);
  const auto whole = lines_of(folder / "whole");
  REQUIRE(whole.size() == 8);  // 13 rows in batches of 4, twice
  std::multiset<std::uint32_t> seen;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    CHECK(whole[i]["step"] == i);
    CHECK(whole[i]["epoch"] == i / 4);
    CHECK(whole[i]["examples"].size() == (i % 4 == 3 ? 1 : 4));
    CHECK(whole[i]["norm"].get<double>() > 0);
    for (const auto& id : whole[i]["examples"]) seen.insert(id.get<std::uint32_t>());
  }
  for (const EncodedExample& e : bench.task.train) CHECK(seen.count(e.id) == 2);

  for (const int stop : {1, 3, 4, 6}) {
    RunPlaces cut;
    cut.state = folder / "state", cut.state_seconds = 0;
    cut.log = StepLog(folder / "cut");
    cut.progress = [&](int step, int, double) {
      if (step == stop) throw Interrupted();
    };
    CHECK_THROWS_AS(bench.train(folder / "b", cut), Interrupted);
    std::ofstream(folder / "cut", std::ios::app) << "{\"half a li";  // a kill in the middle
    cut.log = StepLog(folder / "cut"), cut.progress = {};
    bench.train(folder / "b", cut);
    CHECK(read_file(folder / "cut") == read_file(folder / "whole"));
  }
  StepLog other(folder / "whole");
  contains(error_of([&] { other({9, 0, 1, 1, 1, {}}); }), "has 8 of the 9 steps before");
}
