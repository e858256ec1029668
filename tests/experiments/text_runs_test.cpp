// Encoder-decoders in runs, experiments and commands.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "experiments/ablations/adapter_layer_pruning.h"
#include "experiments/ablations/lora_rank_sweep.h"
#include "experiments/ablations/lora_weight_choice.h"
#include "experiments/ablations/method_comparison.h"
#include "experiments/ablations/report.h"
#include "experiments/ablations/sweep.h"
#include "experiments/data/metrics.h"
#include "experiments/runs/features.h"
#include "experiments/runs/unigram.h"
#include "nn/choice.h"
#include "nn/files/atomic.h"
#include "tests/experiments/program.h"
#include "tests/experiments/small_language.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

// Animals and foods, as in small_task.h, and enough of them to learn from.
TaskData many() {
  TaskData t = data();
  t.pair = false, t.metric = "macro_f1";
  t.train.clear();
  for (std::uint32_t id = 100; id < 160; ++id)
    t.train.push_back({sentence(id), "", static_cast<int>(id % 2), 0, id});
  return t;
}

}  // namespace

TEST_CASE("an encoder-decoder learns to write the right label, and is scored by likelihood") {
  Arch arch = text_arch();
  arch.width = 32, arch.head_size = 16, arch.hidden = 48, arch.dropout = 0;
  SmallModel base(arch, Dtype::f32, 0);
  const EncodedTask task = encode_task(many(), tokenizer(), base.arch(), {});
  const RunSpec spec{.method = "full", .lr = 0.01, .epochs = 15, .batch = 10};
  const Score before = evaluate(base, task, task.test);
  const RunResult r =
      finetune(base, task, spec, all_methods(), [](Model& m, Adaptation&, const EncodedTask& t) {
        const Score now = evaluate(m, t, t.test);
        std::vector<std::int32_t> order(t.test.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
        const Batch batch = make_batch(t, t.test, order, 0, order.size());
        const auto scores = output_rows(m, t, batch);
        CHECK(scores == log_likelihoods(m, *batch.source, t.label_words));
        for (std::size_t i = 0; i < scores.size(); ++i)
          CHECK(now.predictions[i] == (scores[i][1] > scores[i][0] ? 1 : 0));
      });
  CHECK(r.head == 0);
  CHECK(r.train_loss.back() < 0.3 * r.train_loss.front());
  CHECK(r.test > 0.8);  // of 6: one wrong gives less
  CHECK(r.test > before.metric);
}

TEST_CASE("a language task's loss on an encoder-decoder is of the continuation and its end") {
  SmallModel base(text_arch());
  const EncodedTask task = encode_task(stories(), tokenizer(), base.arch(), {});
  const Score score = evaluate(base, task, task.test);
  for (std::size_t i = 0; i < task.test.size(); ++i) {
    const auto& e = task.test[i];
    Batch source;
    source.token = e.source, source.length = {static_cast<int>(e.source.size())};
    source.example = {e.id};
    const double total = log_likelihoods(base, source, {e.token})[0][0];
    CHECK(score.rows[i] ==
          doctest::Approx(-total / static_cast<double>(e.token.size())).epsilon(1e-5));
  }
  CHECK(turned("loss", unigram_score(task, task.test, base.arch().vocab).metric) > 0);
}

TEST_CASE("features of an encoder-decoder are its encoder's, whatever it would answer") {
  SmallModel base(text_arch());
  EncodedTask task = encode_task(data(), tokenizer(), base.arch(), {});
  const auto run = [&](const char* spec) {
    Options options = parse_spec(spec).at(0);
    return feature_transfer(base, task, options, 3).test.rows;
  };
  const auto rows = run("features:layer=2,pool=mean");
  for (auto* split : {&task.train, &task.dev, &task.test})
    for (EncodedExample& e : *split) e.token = {7, 3};
  CHECK(run("features:layer=2,pool=mean") == rows);
  contains(error_of([&] { run("features:layer=3"); }), "the model has 2 layers");
}

TEST_CASE("a lab scores an encoder-decoder with nothing trained, on classes and on language") {
  const Shelf shelf;
  write_tsv_task(many(), shelf.folder / "beasts");
  Lab lab(all_methods(), shelf.bases());
  for (const std::string task : {"beasts", "stories"}) {
    const json config{
        {"base", "t5"}, {"task", (shelf.folder.path / task).string()}, {"method", "frozen"}};
    const Run run = lab.run("test", RunKind::quick, {config, 1});
    CHECK(run.scores.at("test") ==
          evaluate(lab.base("t5"), lab.task(config), lab.task(config).test).rows);
  }
  const json unigram{
      {"base", "t5"}, {"task", (shelf.folder / "beasts").string()}, {"method", "unigram"}};
  contains(error_of([&] {
             lab.run("test", RunKind::quick, {unigram, 1});
           }),
           "is for language tasks");
}

TEST_CASE("a sweep runs on an encoder-decoder, and refuses what does not go with it first") {
  const Shelf shelf;
  write_tsv_task(many(), shelf.folder / "beasts");
  Lab lab(all_methods(), shelf.bases());
  json spec = {{"name", "words"},
               {"base", "t5"},
               {"task", (shelf.folder / "beasts").string()},
               {"method", "lora:r={r},on=q+xv"},
               {"grid", {{"r", {1, 2}}}},
               {"lr", 1e-2},
               {"epochs", 1},
               {"seeds", {1}}};
  const auto run = [&] {
    return run_sweep(lab, shelf.bases(), spec, shelf.folder / "sweep", {}, 0);
  };
  json wrong = spec;
  for (const auto& [key, value, why] :
       {std::tuple{"head", "cloze", "head=cloze: an encoder-decoder"},
        {"pool", "last", "pool=last: an encoder-decoder"},
        {"method", "head", "it trains nothing of base 't5'"}}) {
    wrong = spec;
    wrong[key] = value;
    if (key == std::string("method")) wrong.erase("grid");
    contains(error_of([&] { run_sweep(lab, shelf.bases(), wrong, shelf.folder / "no", {}, 0); }),
             why);
    CHECK(!fs::exists(shelf.folder / "no"));
  }
  CHECK(fs::exists(run()));
  CHECK(Records(shelf.folder / "sweep").runs().size() == 4);  // with the two standard baselines
}

TEST_CASE(
    "the ablations take an encoder-decoder, with what it scores untrained in a head's place") {
  const Shelf shelf;
  write_tsv_task(many(), shelf.folder / "beasts");
  const std::string task = (shelf.folder / "beasts").string();
  contains(error_of([&] {
             setup_for(adapter_layer_pruning(), shelf.bases(), "t5", {}, quick_scale(), true);
           }),
           "base 't5' (t5) is an encoder-decoder, which adapter_layer_pruning does not take");
  for (const Experiment& e : {lora_rank_sweep(), lora_weight_choice(), method_comparison()}) {
    CAPTURE(e.name);
    const Setup s = setup_for(e, shelf.bases(), "t5", {task}, quick_scale(), true);
    CHECK(s.text);
    CHECK(s.layers == 2);
    CHECK(Setup::from(s.json()).text);
    check_setup(all_methods(), shelf.bases(), e, s);
    int untrained = 0;
    for (const PlannedArm& arm : e.arms(s, task)) {
      CHECK(arm.label != "head only");
      untrained += arm.config.at("method") == "frozen";
    }
    CHECK(untrained == 1);
  }
  const Setup both =
      setup_for(lora_rank_sweep(), shelf.bases(), "encoder", {}, quick_scale(), true, "t5");
  CHECK(both.decoder == "t5");  // it takes language tasks as a decoder does
}

TEST_CASE("a rank sweep on an encoder-decoder runs every short arm and merges without a change") {
  const Shelf shelf;
  write_tsv_task(many(), shelf.folder / "beasts");
  const std::string task = (shelf.folder / "beasts").string();
  const Experiment e = lora_rank_sweep();
  Scale scale = quick_scale();
  scale.train = 20, scale.dev = 6, scale.test = 6, scale.seeds = {1};
  Setup s = setup_for(e, shelf.bases(), "t5", {task}, scale, true);
  Lab lab(all_methods(), shelf.bases());
  RunOptions run;
  run.tune = false;
  run.campaign.out = shelf.folder / "out";
  keep_setup(run.campaign.out, e.name, RunKind::quick, s);
  const Outcome outcome = run_arms(lab, e, s, run, nullptr);
  CHECK(outcome.trained > 6);
  bool merged = false;
  const Records records(run.campaign.out);
  for (const Run& one : records.runs()) {
    if (!one.scores.contains("changed by unmerge")) continue;
    merged = true;
    for (const char* set : {"changed by B = 0", "changed by unmerge"})
      for (const float changed : one.scores.at(set)) CHECK(changed == 0);
    CHECK(one.metrics.at("merged differs by") < 1e-5);
  }
  CHECK(merged);
  const std::string page =
      read_file(remake_report(run.campaign.out, shelf.folder / "nothing committed"));
  CHECK(page.find("the base, nothing trained, by its answers") != std::string::npos);
}

TEST_CASE("graft trains, scores, replays, merges and generates with an encoder-decoder") {
  const Shelf shelf;
  write_tsv_task(many(), shelf.folder / "beasts");
  const std::string out = (shelf.folder / "run").string(), adapter = out + "/adapter",
                    merged = (shelf.folder / "merged").string();
  const auto says = [&](const std::string& arguments, const std::string& what) {
    const Said s = graft_says(shelf.folder.path, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == 0);
    contains(s.text, what);
    return s.text;
  };
  const std::string train =
      "train --model t5 --task '" + (shelf.folder / "beasts").string() + "' --epochs 2 --lr 1e-2 ";
  const std::string trained =
      says(train + "--method lora:r=2,on=q+v+xq+xv --out '" + out + "'", "adapter in " + adapter);
  CHECK(json::parse(read_file(out + "/run.json")).at("run").at("head") == "text");
  const std::string score = says("eval '" + adapter + "'", "test accuracy ");
  const std::string metric = score.substr(score.find("accuracy ") + 9, 6);
  contains(trained, "test " + metric);
  says("replay '" + out + "/run.json'", "the same bits");
  const std::string text = says("merge '" + adapter + "' --out '" + merged + "'", "merged model");
  CHECK(text.find("head") == std::string::npos);
  says("generate --adapter '" + adapter + "' --prompt 'beasts text: the wolf' --max-tokens 4", "");
  says("generate --model '" + merged + "' --prompt 'beasts text: the wolf' --max-tokens 4", "");
  const Said refused = graft_says(shelf.folder.path, train + "--head linear --out '" + out + "2'");
  CHECK(refused.status == 1);
  contains(refused.text, "head=linear: an encoder-decoder (t5) answers in text");
}
