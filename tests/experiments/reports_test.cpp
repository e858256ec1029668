// What pages say where runs are missing, diverged, measured in another metric or told elsewhere.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>

#include "experiments/ablations/adapter_layer_pruning.h"
#include "experiments/ablations/judging.h"
#include "experiments/ablations/lora_rank_sweep.h"
#include "experiments/ablations/lora_weight_choice.h"
#include "experiments/ablations/method_comparison.h"
#include "experiments/ablations/report.h"
#include "experiments/ablations/sweep.h"
#include "nn/files/atomic.h"
#include "nn/optim/diverged.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

Setup setup_of(const Experiment& e) {
  Setup s;
  s.tasks = e.tasks, s.few = false, s.layers = 12, s.width = 192;
  s.scale = {100, 50, 400, 1, 16, {1, 2, 3, 4, 5}, {101}};
  return s;
}

// A run that is right on so many percent of 400 examples, a little different by seed.
Run made_up(const Experiment& e, const PlannedArm& arm, std::uint64_t seed, double percent) {
  Run run;
  run.experiment = e.name;
  run.arm = {arm.config, seed};
  run.metrics = {{"test", percent / 100}, {"trainable", 1}, {"base", 100}};
  for (int i = 0; i < 400; ++i)
    run.scores["test"].push_back((i * 37) % 400 < 4 * percent + int(seed % 3) ? 1.f : 0.f);
  return run;
}

void lose(Run& run) {
  run.scores.clear();
  run.metrics = {{"dev", std::nan("")}, {"best epoch", 0}, {"diverged", 1}};
}

// Records of every arm; `change` may alter a run, or say false to leave it out.
using Change = std::function<bool(const std::string& arm, Run&)>;
void make_up(const Experiment& e, const Setup& s, const fs::path& out,
             const std::function<double(const std::string& arm)>& percent, const Change& change) {
  Records records(out, "0of1");
  for (const std::string& task : s.tasks)
    for (const PlannedArm& arm : e.arms(s, task))
      for (const std::uint64_t seed : s.scale.seeds) {
        Run run = made_up(e, arm, seed, percent(arm.label));
        if (change(arm.label, run)) records.append(run);
      }
}

// As the claims of lora_weight_choice have it.
double as_claimed(const std::string& arm) {
  static const std::map<std::string, double> percent{
      {"full fine-tuning", 68}, {"LoRA on q", 60},   {"LoRA on k", 60},   {"LoRA on v", 66},
      {"LoRA on o", 66},        {"LoRA on q+k", 61}, {"LoRA on q+v", 67}, {"LoRA on q+k+v+o", 72}};
  const auto at = percent.find(arm);
  return at == percent.end() ? 45 : at->second;
}

struct Told {
  std::map<std::string, Finding> claims;
  std::string html;
};
Told told(const Experiment& e, const Setup& s, const fs::path& out) {
  const Records records(out);
  const View view(e, records, RunKind::full, s);
  Page page("made up");
  Told t;
  for (const Finding& f : write_section(page, view, nullptr, {}, out / "figures" / e.name))
    t.claims[f.claim.id] = f;
  t.html = page.html();
  return t;
}

void tuned(const Experiment& e, const Setup& s, const std::string& task, const fs::path& out,
           const std::vector<double>& rates, double best) {
  Records records(out, "tuning-" + task);
  for (const PlannedArm& arm : e.arms(s, task)) {
    if (arm.group.empty()) continue;
    for (const double rate : rates) {
      Run run;
      run.experiment = e.name + "/tuning";
      run.arm = {tuning_config(arm.config), 101};
      run.arm.config["lr"] = rate;
      run.metrics = {{"dev", rate == best ? 0.7 : 0.6}, {"best epoch", 1}};
      records.append(run);
    }
  }
}

const auto kEvery = [](const std::string&, Run&) { return true; };
const std::vector<double> kFive{1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2};

}  // namespace

TEST_CASE("a full run of fewer seeds than planned has effects and no verdict") {
  const Folder folder;
  const Experiment e = lora_weight_choice();
  const Setup s = setup_of(e);
  make_up(e, s, folder / "whole", as_claimed, kEvery);
  for (const auto& [id, finding] : told(e, s, folder / "whole").claims)
    CHECK(finding.verdict == Verdict::held);
  make_up(e, s, folder / "two", as_claimed,
          [](const std::string&, const Run& run) { return run.arm.seed <= 2; });
  const Told two = told(e, s, folder / "two");
  CHECK(two.claims.size() == 4);
  for (const auto& [id, finding] : two.claims) {
    CHECK_FALSE(finding.verdict);
    CHECK(has(finding.reason, "no verdict yet (2 of 5 seeds)"));
    CHECK_FALSE(finding.readings.empty());
  }
  CHECK(has(two.html, "supersense: whether it carries claims is not known yet"));
  // What a claim does not rest on, it need not wait for.
  make_up(e, s, folder / "one", as_claimed, [](const std::string& arm, const Run& run) {
    return arm != "LoRA on o" || run.arm.seed <= 2;
  });
  const Told one = told(e, s, folder / "one");
  CHECK_FALSE(one.claims.at("T-L2a").verdict);
  CHECK(has(one.claims.at("T-L2a").reason, "(2 of 5 seeds); not finished: LoRA on o, supersense"));
  CHECK(one.claims.at("T-L2d").verdict == Verdict::held);
}

TEST_CASE("an arm that diverged is named and counted, and no claim that rests on it is held") {
  const Folder folder;
  const Experiment e = lora_weight_choice();
  const Setup s = setup_of(e);
  const auto lost = [&](const char* name, const std::string& lost_arm, std::uint64_t most) {
    make_up(e, s, folder / name, as_claimed, [&](const std::string& arm, Run& run) {
      if (arm == lost_arm && run.arm.seed <= most) lose(run);
      return true;
    });
    return told(e, s, folder / name);
  };
  const Told one = lost("one", "LoRA on k", 1);
  CHECK(one.claims.at("T-L2d").verdict == Verdict::held);
  for (const char* id : {"T-L2a", "T-L2b", "T-L2c"}) {
    CHECK_FALSE(one.claims.at(id).verdict);
    CHECK(
        has(one.claims.at(id).reason, "training diverged in LoRA on k, supersense (1 of 5 seeds)"));
  }
  CHECK(has(one.html, ">4, 1 diverged<"));
  CHECK(has(one.html, "Training diverged in LoRA on k, supersense (1 of 5 seeds)."));
  CHECK_FALSE(has(one.html, "are not recorded"));  // a run that diverged is not missing
  const Told all = lost("all", "LoRA on k", 5);
  CHECK(has(all.html, ">5 diverged<"));
  CHECK(has(all.html,
            "No verdict, because training diverged in what they rest on: T-L2a (LoRA on "
            "k, supersense (5 of 5 seeds))"));
  CHECK(all.claims.at("T-L2d").verdict == Verdict::held);
  // The regime rests on its floors.
  const Told floor = lost("floor", "the method on a random base", 1);
  for (const auto& [id, finding] : floor.claims) CHECK_FALSE(finding.verdict);
}

TEST_CASE("a sweep shows runs that diverged, and the others") {
  const Bases bases({"esm"});
  const BaseFolder base_folder = [&](const std::string& name) { return bases.folder.path / name; };
  Lab lab(all_methods(), base_folder);
  const json spec{{"name", "rates"},
                  {"base", "esm"},
                  {"task", (bases.folder / "beasts").string()},
                  {"method", "full"},
                  {"grid", {{"lr", {1e30, 1e-3}}}},
                  {"baselines", json::array()},
                  {"epochs", 1},
                  {"batch", 8},
                  {"seeds", {1, 2}}};
  const auto run = [&] { return run_sweep(lab, base_folder, spec, bases.folder / "out", {}, 0); };
  CHECK_THROWS_AS(run(), Diverged);
  const std::string page = read_file(run());  // they are not run again
  CHECK(has(page, ">diverged<"));
  CHECK(has(page, ">2 diverged<"));
  CHECK(has(page, "Runs in which training diverged have no scores"));
}

TEST_CASE("a subject far below full fine-tuning refutes the claim that it is near it") {
  const Folder folder;
  const Experiment e = lora_rank_sweep();
  const Setup s = setup_of(e);
  make_up(
      e, s, folder / "far",
      [](const std::string& arm) {
        return arm == "full fine-tuning" ? 74. : arm.starts_with("LoRA") ? 67. : 45.;
      },
      kEvery);
  const Told far = told(e, s, folder / "far");
  CHECK(far.claims.at("T-L0").verdict == Verdict::not_held);
  CHECK(far.claims.at("T-L3-fixed").verdict == Verdict::outside_regime);
  CHECK(has(far.html, "no claim here but those that compare the method with full fine-tuning"));
  const Experiment h = adapter_layer_pruning();
  Setup one = setup_of(h);
  one.tasks = {"supersense"};
  make_up(
      h, one, folder / "adapters",
      [](const std::string& arm) {
        return arm == "full fine-tuning" ? 74. : arm.starts_with("adapters") ? 67. : 45.;
      },
      kEvery);
  CHECK(told(h, one, folder / "adapters").claims.at("T-H0").verdict == Verdict::not_held);
}

TEST_CASE("removing adapters is told in accuracy, whatever the task's own metric") {
  const Folder folder;
  const Experiment e = adapter_layer_pruning();
  Setup s = setup_of(e);
  s.tasks = {"supersense"}, s.layers = 3;
  const auto page = [&](const char* name, bool with_accuracy) {
    make_up(
        e, s, folder / name, [](const std::string& arm) { return arm == "adapters" ? 60. : 30.; },
        [&](const std::string& arm, Run& run) {
          run.metrics["test"] = 0.125;                // as Matthews' correlation may be
          for (float& right : run.scores.at("test"))  // the same for all seeds
            right = &right - run.scores.at("test").data() < (arm == "adapters" ? 240 : 120);
          if (arm != "adapters") return true;
          for (int first = 0; first < 3; ++first)
            for (int last = first; last < 3; ++last) {
              const std::string span = graft::name(Span{first, last});
              run.metrics[span] = -0.125;
              if (with_accuracy) run.metrics[span + " accuracy"] = last - first == 2 ? 0.45 : 0.54;
            }
          return true;
        });
    return told(e, s, folder / name).html;
  };
  const std::string html = page("new", true);
  CHECK(has(html, ">60.0<"));
  CHECK(has(html, ">45.0<"));
  CHECK_FALSE(has(html, ">12.5<"));
  CHECK_FALSE(has(html, ">-12.5<"));
  const auto map = [&](const char* name) {
    return read_file(folder.path / name / "figures" / (e.name + "-spans-supersense.dat"));
  };
  CHECK(has(map("new"), "25"));          // (60 - 45) / 60
  CHECK_FALSE(has(map("new"), " 200"));  // (0.125 + 0.125) / 0.125
  // An older record has it in the other metric alone: nothing is told.
  CHECK_FALSE(has(page("old", false), "-12.5"));
  CHECK(!fs::exists(folder.path / "old" / "figures" / (e.name + "-spans-supersense.dat")));
}

TEST_CASE("a span's accuracy is recorded beside a metric that is another") {
  const Bases bases({"esm"});
  const auto model = load_model(bases.folder / "esm");
  EncodedTask task = encode_task(data(), tokenizer(), model->arch(), {});
  model->set_head(make_head(task, {}, *model));
  Adaptation adaptation(all_methods(), "houlsby:m=3,std=0.7", *model);
  const auto measured = [&](const std::string& metric) {
    task.metric = metric;
    Run run;
    run.arm.config = {{"measure", "spans"}};
    adapter_layer_pruning().measurement(all_methods())(*model, adaptation, task, run);
    return run;
  };
  CHECK(!measured("accuracy").metrics.contains("span 0-0 accuracy"));
  const Run run = measured("matthews");
  double right = 0;
  for (const float r : run.scores.at("span 0-0")) right += r;
  CHECK(run.metrics.at("span 0-0 accuracy") ==
        right / static_cast<double>(run.scores.at("span 0-0").size()));
}

TEST_CASE("a claim waits for the search on its own tasks alone") {
  const Folder folder;
  const Experiment e = lora_weight_choice();
  Setup s = setup_of(e);
  s.tasks = {"supersense", "topic"};  // the claims are about the first
  make_up(e, s, folder / "out", as_claimed, kEvery);
  tuned(e, s, "supersense", folder / "out", kFive, 1e-3);
  tuned(e, s, "topic", folder / "out", {3.16e-4, 1e-3, 3.16e-3}, 1e-3);  // it is under way
  for (const auto& [id, finding] : told(e, s, folder / "out").claims)
    CHECK(finding.verdict == Verdict::held);
  make_up(e, s, folder / "edge", as_claimed, kEvery);
  tuned(e, s, "supersense", folder / "edge", kFive, 1e-2);
  for (const auto& [id, finding] : told(e, s, folder / "edge").claims) {
    CHECK_FALSE(finding.verdict);
    CHECK(has(finding.reason, "no verdict yet: tuning of "));
  }
}

TEST_CASE("an experiment's task that is not here is a language task where its runs say so") {
  const Folder folder;
  const Experiment e = lora_rank_sweep();
  Setup s = setup_of(e);
  s.tasks = {"/gone/stories"}, s.decoder = "decoder", s.decoder_width = 192;
  contains(error_of([&] { e.arms(s, s.tasks[0]); }), "is task '/gone/stories' a language task?");
  Run run;
  run.experiment = e.name;
  run.arm = {{{"task", "/gone/stories"}, {"method", "full"}}, 1};
  run.versions = {{"metric", "loss"}};
  Records(folder.path, "0of1").append(run);
  const Records records(folder.path);
  const View view(e, records, RunKind::full, s);
  CHECK(view.arms("/gone/stories")[1].label == "unigram");
}

TEST_CASE("what merging changes at most is the most of all runs") {
  const Folder folder;
  const Experiment e = lora_rank_sweep();
  const Setup s = setup_of(e);
  make_up(
      e, s, folder / "out", [](const std::string&) { return 50.; },
      [](const std::string&, Run& run) {
        run.metrics["merged differs by"] = run.arm.seed == 4 ? 2.5e-6 : 1e-7;
        return true;
      });
  CHECK(has(told(e, s, folder / "out").html, "at most 2.5e-06 of the largest"));
}

TEST_CASE("pages say that a random base is one draw") {
  const Folder folder;
  const Experiment e = method_comparison();
  Setup s = setup_of(e);
  s.tasks = {"supersense"};
  make_up(
      e, s, folder / "out", [](const std::string&) { return 50.; }, kEvery);
  const std::string html = told(e, s, folder / "out").html;
  CHECK(has(html, "one draw for all seeds"));
  CHECK(has(html, "full fine-tuning on a random base (one draw)"));
}
