// Language tasks in experiments: floors as arms, and the half of the rank sweep that stands on
// them.
#include <doctest/doctest.h>

#include <algorithm>

#include "experiments/ablations/lora_rank_language.h"
#include "experiments/ablations/lora_rank_sweep.h"
#include "experiments/ablations/lora_weight_choice.h"
#include "experiments/ablations/report.h"
#include "experiments/ablations/sweep.h"
#include "experiments/runs/unigram.h"
#include "nn/files/atomic.h"
#include "tests/experiments/small_language.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

Setup language_setup() {
  Setup s;
  s.tasks = {"defgen"}, s.few = false, s.layers = 12, s.width = 192;
  s.decoder = "decoder", s.decoder_width = 192;
  s.scale = {100, 50, 200, 1, 16, {1, 2, 3, 4, 5}, {101}};
  return s;
}

// Verdicts where every arm has so high a loss on 200 examples, a little different by seed.
std::map<std::string, Verdict> verdicts(const fs::path& out,
                                        const std::function<double(const std::string&)>& loss) {
  const Experiment e = lora_rank_sweep();
  const Setup s = language_setup();
  {
    Records records(out, "0of1");
    for (const PlannedArm& arm : e.arms(s, "defgen"))
      for (const std::uint64_t seed : s.scale.seeds) {
        Run run;
        run.experiment = e.name;
        run.arm = {arm.config, seed};
        run.metrics = {{"test", -loss(arm.label)}};
        for (int i = 0; i < 200; ++i)
          run.scores["test"].push_back(
              static_cast<float>(loss(arm.label) + 0.01 * (i % 7) + 0.001 * double(seed)));
        records.append(run);
      }
  }
  const Records records(out);
  const View view(e, records, RunKind::full, s);
  Page page("made up");
  std::map<std::string, Verdict> found;
  for (const Finding& f : write_section(page, view, nullptr, {}, out / "figures" / e.name))
    found[f.claim.id] = f.verdict.value();
  CHECK(has(page.html(), "loss, nats per token"));
  CHECK(has(page.html(), "paper: GPT-2 medium, E2E, table 18"));
  return found;
}

// Losses as the paper's claims have them.
double as_claimed(const std::string& arm) {
  static const std::map<std::string, double> special{{"full fine-tuning", 3.1},
                                                     {"unigram", 6.5},
                                                     {"nothing trained", 5},
                                                     {"the method on a random base", 4.4}};
  if (const auto at = special.find(arm); at != special.end()) return at->second;
  const auto at = arm.find("r=") + 2;
  const int r = std::stoi(arm.substr(at));
  const bool alone = has(arm, "on q,");
  return 3.2 + (alone ? (r < 4 ? 0.3 : 0.1) : r < 4 ? 0.1 : r < 16 ? 0.05 : 0);
}

}  // namespace

TEST_CASE("a lab scores the floors of a language task, and refuses them to others") {
  const Shelf shelf;
  Lab lab(all_methods(), shelf.bases());
  const json config{{"base", "decoder"}, {"task", shelf.task()}, {"method", "frozen"}};
  const Run frozen = lab.run("test", RunKind::quick, {config, 1});
  const EncodedTask& task = lab.task(config);
  CHECK(frozen.scores.at("test") == evaluate(lab.base("decoder"), task, task.test).rows);
  json other = config;
  other["method"] = "unigram";
  CHECK(lab.run("test", RunKind::quick, {other, 1}).metrics.at("test") ==
        unigram_score(task, task.test, tokenizer().size()).metric);
  CHECK(!trains(config));
  CHECK(!trains(other));
  other["method"] = "majority";
  CHECK(trains({{"method", "lora:r=2"}}));
  contains(error_of([&] { lab.run("test", RunKind::quick, {other, 1}); }), "has no labels");
  write_tsv_task(data(), shelf.folder / "beasts");
  json classes = config;
  classes["task"] = (shelf.folder / "beasts").string();
  contains(error_of([&] {
             lab.run("test", RunKind::quick, {classes, 1});
           }),
           "is for language tasks");
}

TEST_CASE("the language half is on where there is a causal base, and says so where there is none") {
  const Shelf shelf;
  const Experiment e = lora_rank_sweep();
  Setup s = setup_for(e, shelf.bases(), "encoder", {}, quick_scale(), true);
  CHECK(s.decoder == "decoder");
  CHECK(s.decoder_width == 64);
  CHECK(s.tasks == std::vector<std::string>{"supersense", "defgen"});
  CHECK(Setup::from(s.json()).json() == s.json());
  CHECK(s.about.empty());
  contains(
      error_of([&] { setup_for(e, shelf.bases(), "encoder", {}, quick_scale(), true, "encoder"); }),
      "decoder 'encoder': a masked model");
  contains(error_of([&] {
             setup_for(lora_weight_choice(), shelf.bases(), "encoder", {}, quick_scale(), true,
                       "decoder");
           }),
           "has no language tasks");
  s.tasks = {"defgen"};
  check_setup(all_methods(), shelf.bases(), e, s);
  contains(error_of([&] { check_setup(all_methods(), shelf.bases(), lora_weight_choice(), s); }),
           "task defgen is a language task");
  fs::remove_all(shelf.folder / "decoder");
  Setup off = setup_for(e, shelf.bases(), "encoder", {}, quick_scale(), true);
  CHECK(off.decoder.empty());
  CHECK(off.tasks == std::vector<std::string>{"supersense"});
  contains(language_is_off(off), "none called 'decoder'");
  off.tasks = {"defgen"};
  contains(error_of([&] { check_setup(all_methods(), shelf.bases(), e, off); }),
           "needs a causal base");
}

TEST_CASE("what a base's about.txt says stands in the set-up, and divides no results") {
  const Shelf shelf;
  const Experiment e = lora_weight_choice();
  const auto setup = [&] {
    return setup_for(e, shelf.bases(), "encoder", {}, quick_scale(), true);
  };
  const Setup before = setup();
  keep_setup(shelf.folder / "out", e.name, RunKind::quick, before);
  write_file_atomically(shelf.folder / "encoder" / "about.txt", "it has seen pairs\nand more\n");
  const Setup after = setup();
  CHECK(after.about == "it has seen pairs");
  CHECK(Setup::from(after.json()).about == after.about);
  CHECK(keep_setup(shelf.folder / "out", e.name, RunKind::quick, after).about == after.about);
}

TEST_CASE("a full rank sweep has 25 arms of LoRA on classes and 18 on language") {
  const Experiment e = lora_rank_sweep();
  const auto count = [&](const std::string& task) {
    const auto arms = e.arms(language_setup(), task);
    return std::count_if(arms.begin(), arms.end(), [](const PlannedArm& arm) {
      return arm.config.at("method").get<std::string>().starts_with("lora") && !arm.table.empty();
    });
  };
  CHECK(count("hyper3") == 25);
  CHECK(count("defgen") == 18);
}

TEST_CASE("the claims on loss against rank are held, not held, or outside the regime") {
  const Folder folder;
  auto found = verdicts(folder / "as", as_claimed);
  CHECK(found.size() == 2);
  CHECK(found.at("T-L9") == Verdict::held);
  CHECK(found.at("T-L3-q") == Verdict::held);
  found = verdicts(folder / "rising", [](const std::string& arm) {
    return as_claimed(arm) + (has(arm, "r=64") ? 0.2 : 0);
  });
  CHECK(found.at("T-L9") == Verdict::not_held);
  CHECK(found.at("T-L3-q") == Verdict::not_held);
  found = verdicts(folder / "weak", [](const std::string& arm) {
    return arm == "nothing trained" ? 3.15 : as_claimed(arm);
  });
  CHECK(found.at("T-L9") == Verdict::outside_regime);
}

TEST_CASE("a rank sweep on language runs, records losses, and its page shows them") {
  const Shelf shelf;
  const Experiment e = lora_rank_sweep();
  Scale scale = quick_scale();
  scale.train = 20, scale.dev = 6, scale.test = 7, scale.seeds = {1};
  const Setup s = setup_for(e, shelf.bases(), "encoder", {shelf.task()}, scale, true);
  Lab lab(all_methods(), shelf.bases());
  RunOptions run;
  run.tune = false;
  run.campaign.out = shelf.folder / "out";
  keep_setup(run.campaign.out, e.name, RunKind::quick, s);
  const std::size_t few = [&] {
    const auto arms = e.arms(s, shelf.task());
    return static_cast<std::size_t>(
        std::count_if(arms.begin(), arms.end(), [](const PlannedArm& a) { return a.few; }));
  }();
  const Outcome outcome = run_arms(lab, e, s, run, nullptr);
  CHECK(static_cast<std::size_t>(outcome.trained) == few);
  const Records records(run.campaign.out);
  for (const Run& one : records.runs()) {
    CHECK(one.metrics.at("test") < 0);
    CHECK(one.scores.at("test").at(0) > 0);
  }
  const std::string page =
      read_file(remake_report(run.campaign.out, shelf.folder / "nothing committed"));
  CHECK(has(page, "nats per token"));
  CHECK(has(page, "the base, nothing trained"));
  CHECK(!has(page, "is off"));
}

TEST_CASE("a sweep shows a language task's loss as a loss, and refuses it an encoder first") {
  const Shelf shelf;
  Lab lab(all_methods(), shelf.bases());
  json spec = {{"name", "words"},
               {"base", "decoder"},
               {"task", shelf.task()},
               {"method", "lora:r={r}"},
               {"grid", {{"r", {1, 2}}}},
               {"lr", 1e-2},
               {"epochs", 1},
               {"seeds", {1}}};
  const auto run = [&] {
    return run_sweep(lab, shelf.bases(), spec, shelf.folder / "sweep", {}, 0);
  };
  spec["base"] = "encoder";
  contains(error_of(run), "needs a causal model");
  CHECK(!fs::exists(shelf.folder / "sweep"));
  spec["base"] = "decoder";
  const std::string page = read_file(run());
  const double test = Records(shelf.folder / "sweep").runs().at(0).metrics.at("test");
  CHECK(test < 0);
  CHECK(has(page, fmt::format("{:.4f}", -test)));
  // The page of a folder that was carried elsewhere, without its task, is the same.
  fs::rename(shelf.folder / "stories", shelf.folder / "gone");
  CHECK(read_file(sweep_report(shelf.folder / "sweep")) == page);
}
