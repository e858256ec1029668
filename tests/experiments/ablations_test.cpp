// The ablations' machinery on a tiny random model: partial forwards, campaigns, claims, sweeps.
#include <doctest/doctest.h>

#include <fstream>
#include <set>

#include "experiments/ablations/adapter_layer_pruning.h"
#include "experiments/ablations/campaign.h"
#include "experiments/ablations/lora_rank_sweep.h"
#include "experiments/ablations/lora_weight_choice.h"
#include "experiments/ablations/report.h"
#include "experiments/ablations/sweep.h"
#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "nn/text/bpe_trainer.h"
#include "tests/nn/folder.h"

using namespace graft;
using graft::testing::error_of;
using graft::testing::Folder;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// Rows "colour thing": the label (or the score) follows from the colour.
void write_task(const fs::path& folder, bool regression) {
  fs::create_directories(folder);
  const std::vector<std::string> colours{"red", "green", "blue"},
      things{"cat", "dog", "hen", "cow"};
  for (const auto& [split, rows] : {std::pair{"train", 48}, {"dev", 21}, {"test", 30}}) {
    std::ofstream file(folder / (std::string(split) + ".tsv"));
    file << (regression ? "score\ta\n" : "label\ta\n");
    for (int i = 0; i < rows; ++i) {
      const std::string text =
          colours[i % 3] + " " + things[(i / 3) % 4] + " " + split + std::to_string(i);
      file << (regression ? std::to_string(i % 3) : colours[i % 3]) << "\t" << text << "\n";
    }
  }
}

// A folder with a base of three blocks, two tasks, and results; gone after the test.
struct Bench {
  Folder folder;
  const fs::path& path = folder.path;
  Bench() {
    write_task(path / "colours", false);
    write_task(path / "shades", true);
    const std::string text = read_file(path / "colours" / "train.tsv");
    const Tokenizer tokenizer =
        train_bpe(std::vector<std::string_view>{text},
                  {300, {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, false});
    Arch arch = arch_named("graft-encoder");
    arch.layers = 3, arch.width = 16, arch.heads = arch.kv_heads = 2, arch.hidden = 32;
    arch.positions = 40, arch.vocab = tokenizer.size();
    Model model(arch, Build{.seed = 5});
    save_model(model, path / "tiny", FileDtype::f32, &tokenizer);
  }
  BaseFolder bases() const {
    return [this](const std::string& name) { return path / name; };
  }
  std::string task(const char* name = "colours") const { return (path / name).string(); }
  json arm(const std::string& method, double lr = 1e-3) const {
    return {{"base", "tiny"}, {"task", task()}, {"method", method},
            {"epochs", 1},    {"batch", 8},     {"lr", lr}};
  }
  CampaignOptions options(const char* out) const {
    CampaignOptions o;
    o.out = path / out;
    o.seeds = {1, 2};
    return o;
  }
};

// What a campaign's table is made of.
std::set<std::string> results(const fs::path& folder) {
  std::set<std::string> all;
  const Records records(folder);
  for (const Run& run : records.runs())
    all.insert(fmt::format("{} {} {} {}", run.arm.key(), run.weights_hash, run.metrics.at("test"),
                           json(run.scores).dump()));
  return all;
}

Setup setup_of(const Experiment& e) {
  Setup s;
  s.tasks = e.tasks, s.few = false, s.layers = 12, s.width = 192;
  s.scale = {100, 50, 400, 1, 16, {1, 2, 3, 4, 5}, {101}};
  return s;
}

// Records in which every arm is right on so many percent of 400 examples, a little different by
// seed.
void make_up(const Experiment& e, const Setup& s, const fs::path& out,
             const std::function<double(const std::string& arm)>& percent) {
  Records records(out, "0of1");
  for (const std::string& task : s.tasks)
    for (const PlannedArm& arm : e.arms(s, task))
      for (const std::uint64_t seed : s.scale.seeds) {
        Run run;
        run.experiment = e.name;
        run.arm = {arm.config, seed};
        run.metrics = {{"test", percent(arm.label) / 100}, {"trainable", 1}, {"base", 100}};
        for (int i = 0; i < 400; ++i)
          run.scores["test"].push_back(
              (i * 37) % 400 < 4 * percent(arm.label) + int(seed % 3) ? 1.f : 0.f);
        records.append(run);
      }
}

// Percent for each arm of lora_weight_choice, as its claims have it.
const std::map<std::string, double>& as_claimed() {
  static const std::map<std::string, double> percent{
      {"majority", 33},       {"bag of words", 50},     {"features", 52},
      {"head only", 55},      {"full fine-tuning", 68}, {"the method on a random base", 45},
      {"LoRA on q", 60},      {"LoRA on k", 60},        {"LoRA on v", 66},
      {"LoRA on o", 66},      {"LoRA on q+k", 61},      {"LoRA on q+v", 67},
      {"LoRA on q+k+v+o", 72}};
  return percent;
}

std::map<std::string, Verdict> verdicts(const Experiment& e, const Setup& s, const fs::path& out) {
  const Records records(out);
  const View view(e, records, RunKind::full, s);
  Page page("made up");
  std::map<std::string, Verdict> found;
  for (const Finding& f : write_section(page, view, nullptr, {}, out / "figures" / e.name))
    if (f.verdict) found[f.claim.id] = *f.verdict;
  return found;
}

}  // namespace

TEST_CASE("partial forwards give the bits of evaluate with the same layers' adapters off") {
  const Bench bench;
  const auto model = load_model(bench.path / "tiny");
  const EncodedTask task =
      encode_task(task_named(bench.task("shades")),
                  Tokenizer::load(bench.path / "tiny" / "tokenizer.json"), model->arch(), {});
  model->set_head(make_head(task, {}, *model));
  Adaptation adaptation(all_methods(), "houlsby:m=3,std=0.7", *model);
  const auto shared = predictions_without(*model, adaptation, task, task.test);
  CHECK(shared.size() == 6);
  std::set<std::vector<float>> different;
  for (const auto& [span, predictions] : shared) {
    adaptation.enable(span.first, span.last, false);
    CHECK(evaluate(*model, task, task.test).predictions == predictions);
    adaptation.enable(span.first, span.last, true);
    different.insert(predictions);
  }
  different.insert(evaluate(*model, task, task.test).predictions);
  CHECK(different.size() == 7);  // every span does something
}

TEST_CASE("runs of a task that is not done yet may lie beside a page's own and change none of it") {
  const Experiment e = experiment_named(all_experiments(), "method_comparison");
  Setup both = setup_of(e), one = both;
  one.tasks = {"supersense"};
  const Folder folder;
  const auto page_of = [&](const char* name, const Setup& recorded) {
    const fs::path out = folder.path / name;
    make_up(e, recorded, out, [](const std::string& arm) { return arm == "LoRA" ? 70. : 50.; });
    const Records records(out);
    const View view(e, records, RunKind::full, one);
    CHECK(view.recorded() == e.arms(one, "supersense").size() * one.scale.seeds.size());
    Page page("made up");
    write_section(page, view, nullptr, {}, folder.path / "figures" / e.name);
    return page.html();
  };
  CHECK(page_of("both", both) == page_of("one", one));
}

TEST_CASE("the spans that claims rest on are there for twelve layers") {
  const std::vector<Span> spans = claimed_spans(12);
  for (const Span& s : {Span{0, 4}, Span{8, 11}, Span{0, 3}, Span{0, 11}, Span{7, 7}})
    CHECK(std::find(spans.begin(), spans.end(), s) != spans.end());
}

TEST_CASE("a campaign skips what is recorded, and one that was killed ends with the same results") {
  const Bench bench;
  Lab lab(all_methods(), bench.bases());
  const std::vector<json> arms{bench.arm("head"), bench.arm("lora:r=2"), bench.arm("houlsby:m=2")};
  {
    Campaign campaign(lab, "test", bench.options("whole"));
    campaign.run(arms);
    CHECK(campaign.trained_now() == 6);
    campaign.run(arms);
    CHECK(campaign.trained_now() == 6);
  }
  const std::string whole = read_file(bench.path / "whole" / "runs.0of1.jsonl");
  // Killed while it wrote its fourth line.
  std::size_t cut = 0;
  for (int line = 0; line < 3; ++line) cut = whole.find('\n', cut) + 1;
  fs::create_directories(bench.path / "killed");
  std::ofstream(bench.path / "killed" / "runs.0of1.jsonl") << whole.substr(0, cut + 40);
  {
    Campaign campaign(lab, "test", bench.options("killed"));
    campaign.run(arms);
    CHECK(campaign.trained_now() == 3);
  }
  CHECK(results(bench.path / "killed") == results(bench.path / "whole"));
}

TEST_CASE("a run that is given up leaves no record, and the next one is not given up") {
  const Bench bench;
  Lab lab(all_methods(), bench.bases());
  {
    CampaignOptions options = bench.options("out");
    options.last_minutes = 1e-9;
    Campaign campaign(lab, "test", options);
    CHECK(has(error_of([&] { campaign.run({bench.arm("head")}); }), "out of time"));
    CHECK(campaign.now().runs().empty());
  }
  Campaign campaign(lab, "test", bench.options("out"));
  campaign.run({bench.arm("head")});
  CHECK(campaign.trained_now() == 2);
}

TEST_CASE("arms that were not searched alike get no verdict") {
  const Bench bench;
  const Experiment e = lora_weight_choice();
  const Setup s = setup_of(e);
  make_up(e, s, bench.path / "out", [](const std::string& arm) { return as_claimed().at(arm); });
  CHECK(verdicts(e, s, bench.path / "out").at("T-L2b") == Verdict::held);
  {
    Records records(bench.path / "out", "tuning");
    for (const PlannedArm& arm : e.arms(s, s.tasks[0])) {
      if (arm.group.empty()) continue;
      for (const double rate : {1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2}) {
        Run run;
        run.experiment = e.name + "/tuning";
        run.arm = {tuning_config(arm.config), 101};
        run.arm.config["lr"] = rate;
        const bool best = rate == (arm.label == "LoRA on k" ? 1e-2 : 1e-3);  // one at the edge
        run.metrics = {{"dev", best ? 0.7 : 0.6}, {"best epoch", 1}};
        records.append(run);
      }
    }
  }
  CHECK(verdicts(e, s, bench.path / "out").empty());
}

TEST_CASE("an arm that a sibling experiment ran is copied from its record") {
  const Bench bench;
  Lab lab(all_methods(), bench.bases());
  const std::vector<json> arms{bench.arm("head"), bench.arm("bitfit")};
  Campaign(lab, "one", bench.options("one")).run({arms[0]});
  CampaignOptions options = bench.options("two");
  options.siblings = {bench.path / "one"};
  Campaign two(lab, "two", options);
  two.run(arms);
  CHECK(two.trained_now() == 2);  // bitfit's two seeds
  CHECK(two.scores(two.now(), arms[0]) == two.scores(Records(bench.path / "two"), arms[0]));
  CHECK(two.scores(two.now(), arms[0]).has_value());
}

TEST_CASE(
    "tuning goes on for all arms where one arm's best is at an edge, and reads its trials from the "
    "record") {
  const Bench bench;
  Lab lab(all_methods(), bench.bases());
  json config = bench.arm("head");
  config.erase("lr");
  double rate = 0;
  json other = config;
  other["batch"] = 4;
  const std::vector<Search> searches{{tuning_config(config), 1e-6}, {tuning_config(other), 1e-2}};
  {
    Campaign campaign(lab, "test", bench.options("out"));
    rate = campaign.tuned(searches).at(0).at("lr");
    const std::size_t trials = campaign.tunings().at(0).trials.size();
    CHECK(trials > 5);
    CHECK(campaign.tunings().at(1).trials.size() == trials);  // its best may lie inside
    CHECK(campaign.trained_now() == int(2 * trials));
  }
  Campaign again(lab, "test", bench.options("out"));
  CHECK(again.tuned(searches).at(0).at("lr") == rate);
  CHECK(again.trained_now() == 0);
  for (const Run& run : again.now().runs()) CHECK(run.scores.at("test").size() == 1);
}

TEST_CASE("claims are judged by the scores: held, not held, outside the regime") {
  const Bench bench;
  const Experiment e = lora_weight_choice();
  const Setup s = setup_of(e);
  make_up(e, s, bench.path / "as", [](const std::string& arm) { return as_claimed().at(arm); });
  for (const auto& claim : verdicts(e, s, bench.path / "as")) {
    CAPTURE(claim.first);
    CHECK(claim.second == Verdict::held);
  }
  auto contrary = as_claimed();
  contrary["LoRA on q+k"] = 75;
  make_up(e, s, bench.path / "contrary", [&](const std::string& arm) { return contrary.at(arm); });
  CHECK(verdicts(e, s, bench.path / "contrary").at("T-L2d") == Verdict::not_held);
  auto weak = as_claimed();
  weak["bag of words"] = 69;
  make_up(e, s, bench.path / "weak", [&](const std::string& arm) { return weak.at(arm); });
  for (const auto& [id, verdict] : verdicts(e, s, bench.path / "weak"))
    CHECK(verdict == Verdict::outside_regime);
  auto far = as_claimed();  // more than 4 points from the subject, and no claim is about that
  far["full fine-tuning"] = 72;
  make_up(e, s, bench.path / "far", [&](const std::string& arm) { return far.at(arm); });
  for (const auto& [id, verdict] : verdicts(e, s, bench.path / "far"))
    CHECK(verdict == Verdict::outside_regime);
}

TEST_CASE("every claim names arms that its experiment has, and labels name one arm each") {
  for (const Experiment& e : all_experiments()) {
    Setup s = setup_of(e);
    s.decoder = "decoder", s.decoder_width = 192;
    s.tasks.insert(s.tasks.end(), e.language_tasks.begin(), e.language_tasks.end());
    std::set<std::string> labels, keys;
    std::size_t arms = 0;
    for (const std::string& task : s.tasks)
      for (const PlannedArm& arm : e.arms(s, task)) {
        labels.insert(task + arm.label);
        keys.insert(canonical(arm.config));
        ++arms;
      }
    CHECK(labels.size() == arms);
    CHECK(keys.size() == arms);
    for (const Statement& statement : e.claims(s)) {
      CHECK(statement.parts.size() == statement.claim.parts.size());
      for (const auto& part : statement.parts)
        for (const Weighed& w : part) CHECK(labels.contains(w.task + w.arm));
    }
  }
}

TEST_CASE("a results folder keeps to one set-up and takes more tasks and seeds") {
  const Bench bench;
  const Experiment e = lora_rank_sweep();
  Setup s = setup_of(e);
  const auto keep = [&](const Setup& setup) {
    return keep_setup(bench.path / "out", e.name, RunKind::full, setup);
  };
  const auto refused = [&](const Setup& setup) {
    CHECK(has(error_of([&] { keep(setup); }), "another set-up"));
  };
  keep(s);
  Setup more = s;
  more.tasks = {"topic"}, more.scale.seeds = {1, 2};
  const Setup joined = keep(more);
  CHECK(joined.tasks == std::vector<std::string>{"supersense", "topic"});
  CHECK(joined.scale.seeds.size() == 5);
  Setup sister = s;
  sister.weights = "another base of the same name";
  refused(sister);
  Setup longer = s;  // a task may have rows and epochs of its own, always the same ones
  longer.tasks = {"hyper3"}, longer.scale.of_task = {{"hyper3", {70, 3}}};
  keep(longer);
  const Setup both = open_results(bench.path / "out").setup;
  for (const std::string task : {"topic", "hyper3"}) {
    const json config = arm_config(both, task, "full");
    CHECK(config.at("rows").at("train") == (task == "topic" ? s.scale.train : 70));
    CHECK(config.at("epochs") == (task == "topic" ? s.scale.epochs : 3));
  }
  more.scale.of_task = {{"hyper3", {9, 9}}};  // means nothing for a run of other tasks
  CHECK(keep(more).scale.span("hyper3") == Scale::Span{70, 3});
  longer.scale.of_task["hyper3"].epochs = 4;
  refused(longer);
  s.scale.epochs = 9;
  refused(s);
}

TEST_CASE("a sweep checks every arm before it runs any, then runs them and writes a page") {
  const Bench bench;
  Lab lab(all_methods(), bench.bases());
  json spec = {{"name", "ranks"},
               {"base", "tiny"},
               {"task", bench.task()},
               {"method", "lora:r={r}"},
               {"grid", {{"r", {1, 99}}}},
               {"lr", 1e-2},
               {"epochs", 1},
               {"seeds", {1}}};
  const auto run = [&] { return run_sweep(lab, bench.bases(), spec, bench.path / "sweep", {}, 0); };
  CHECK(has(error_of(run), "need r <= 16"));
  CHECK(!fs::exists(bench.path / "sweep"));
  spec["grid"] = {{"r", {1, 2}}};
  spec["baselines"] = {"bag of words", "head"};
  const std::string page = read_file(run());
  CHECK(has(page, "lora:r=1"));
  CHECK(has(page, "<svg"));
  CHECK(has(page, "Tuning"));
  // The baselines stand first, the head with the rate that was found for it.
  CHECK(page.find("bag of words") < page.find("lora:r=1"));
  const Records records(bench.path / "sweep");
  int rates = 0;
  for (const Run& run : records.runs()) {
    if (!run.experiment.ends_with("/tuning")) continue;
    CHECK((++rates > 0 && run.arm.config.at("method") == "head"));
  }
  CHECK(rates >= 5);
  CHECK(records.runs().size() == std::size_t(rates) + 4);
}
