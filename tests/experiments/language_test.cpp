// Language tasks: what is encoded, what the loss is of, training, floors, and the half of the rank
// sweep that stands on them.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>

#include "experiments/ablations/lora_rank_language.h"
#include "experiments/ablations/lora_rank_sweep.h"
#include "experiments/ablations/lora_weight_choice.h"
#include "experiments/ablations/report.h"
#include "experiments/ablations/runner.h"
#include "experiments/ablations/sweep.h"
#include "experiments/data/baselines.h"
#include "experiments/data/metrics.h"
#include "experiments/data/task_files.h"
#include "experiments/runs/features.h"
#include "experiments/runs/unigram.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// "wolf" -> a sentence about it.
TaskData stories() {
  TaskData t;
  t.name = "stories", t.kind = TaskData::Kind::language, t.pair = true, t.metric = "loss";
  std::uint32_t id = 0;
  for (auto* split : {&t.train, &t.dev, &t.test})
    for (int i = 0; i < (split == &t.train ? 24 : 7); ++i, ++id) {
      const std::string text = sentence(id);
      split->push_back({text.substr(4, text.find(' ', 4) - 4), text, -1, 0, id});
    }
  return t;
}

EncodedTask encoded(const EncodeSpec& spec = {}) {
  return encode_task(stories(), tokenizer(), arch_of(Stack::decoder), spec);
}

RunSpec lora(int epochs = 3) {
  return {
      .method = "lora:r=2,on=q+v,dropout=0.1", .lr = 0.02, .epochs = epochs, .batch = 5, .seed = 3};
}

// -log softmax(scores)[label], in f64.
double surprise(const std::vector<double>& scores, std::int32_t label) {
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double s : scores) sum += std::exp(s - top);
  return top + std::log(sum) - scores[static_cast<std::size_t>(label)];
}

// A folder with a tiny encoder, a tiny decoder and a language task; gone after the test.
struct Shelf {
  Folder folder;
  Shelf() {
    for (const char* name : {"encoder", "decoder"}) {
      Arch arch = arch_named(std::string("graft-") + name);
      arch.layers = 2, arch.width = 64, arch.heads = arch.kv_heads = 2, arch.hidden = 64;
      arch.positions = 40, arch.vocab = tokenizer().size();
      Model model(arch, Build{.seed = 5});
      save_model(model, folder / name, FileDtype::f32, &tokenizer());
    }
    write_tsv_task(stories(), folder / "stories");
  }
  BaseFolder bases() const {
    return [this](const std::string& name) { return folder.path / name; };
  }
  std::string task() const { return (folder / "stories").string(); }
};

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

TEST_CASE("a language example is prompt [SEP] continuation [SEP], told from the prompt's end on") {
  const TaskData data = stories();
  const EncodedTask task = encoded();
  CHECK(task.goal == Goal::language);
  CHECK(task.metric == "loss");
  const auto a = tokenizer().encode(data.train[2].a), b = tokenizer().encode(data.train[2].b);
  std::vector<std::int32_t> by_hand(a.begin(), a.end());
  by_hand.push_back(3);
  by_hand.insert(by_hand.end(), b.begin(), b.end());
  by_hand.push_back(3);
  CHECK(task.train[2].token == by_hand);
  CHECK(task.train[2].prompt == static_cast<int>(a.size()) + 1);
  const Batch batch = make_batch(task, task.train, {2}, 0, 1);
  for (std::size_t i = 0; i < by_hand.size(); ++i)  // the last [SEP] is told, the first is not
    CHECK(batch.token_label[i] == (i >= a.size() && i + 1 < by_hand.size() ? by_hand[i + 1] : -1));
}

TEST_CASE("a continuation that was cut has no end to be told") {
  const EncodedTask task = encoded({.max_tokens = 8});
  CHECK(task.shortened > 0);
  int cut = 0;
  const TaskData data = stories();
  for (std::size_t i = 0; i < task.train.size(); ++i) {
    const std::size_t whole =
        tokenizer().encode(data.train[i].a).size() + tokenizer().encode(data.train[i].b).size() + 2;
    CHECK(task.train[i].token.size() <= 8);
    CHECK((task.train[i].token.back() == 3) == (whole <= 8));
    cut += whole > 8;
  }
  CHECK(cut == [&] {
    int n = 0;
    for (const EncodedExample& e : task.train) n += e.token.back() != 3;
    return n;
  }());
}

TEST_CASE(
    "a language task's loss is what a softmax by hand gives, in whatever company it is read") {
  SmallModel model(arch_of(Stack::decoder));
  const EncodedTask task = encoded();
  const Score score = evaluate(model, task, task.test);
  REQUIRE(score.rows.size() == 7);
  double sum = 0;
  for (std::size_t i = 0; i < task.test.size(); ++i) {
    const EncodedExample& e = task.test[i];
    NoRecord off;
    Ctx ctx;
    const Batch batch = make_batch(task, task.test, {static_cast<std::int32_t>(i)}, 0, 1);
    const Sequence s = model.forward(batch, ctx);
    std::vector<std::int32_t> rows;
    for (std::size_t t = static_cast<std::size_t>(e.prompt) - 1; t + 1 < e.token.size(); ++t)
      rows.push_back(static_cast<std::int32_t>(t));
    const std::vector<double> logits = model.lm_logits(s, rows, ctx).value().to_vector();
    const std::size_t vocab = logits.size() / rows.size();
    double loss = 0;
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const auto at = logits.begin() + static_cast<std::ptrdiff_t>(k * vocab);
      loss += surprise({at, at + static_cast<std::ptrdiff_t>(vocab)},
                       e.token[static_cast<std::size_t>(rows[k]) + 1]);
    }
    loss /= static_cast<double>(rows.size());
    sum += loss;
    CHECK(score.rows[i] == doctest::Approx(loss).epsilon(1e-5));
    CHECK(score.rows[i] == static_cast<float>(model.lm_loss(s, batch, ctx).item()));  // alone: same
  }
  CHECK(score.metric == doctest::Approx(-sum / 7).epsilon(1e-5));  // a score: higher is better
  CHECK(turned("loss", score.metric) > 0);
  CHECK(turned("accuracy", 0.5) == 0.5);
}

TEST_CASE("LoRA lowers the loss below the untrained base's; vocabulary head and base stay") {
  SmallModel base(arch_of(Stack::decoder));
  const std::uint64_t before = base.hash();
  const EncodedTask task = encoded();
  const double untrained = evaluate(base, task, task.test).metric;
  const RunResult r = finetune(base, task, lora(6), all_methods());
  CHECK(base.hash() == before);
  CHECK(r.head == 0);
  CHECK(r.trainable == 2 * 2 * 2 * 12 * 2);  // blocks x (q, v) x (A, B) x width x rank
  CHECK(r.test > untrained + 0.05);
  CHECK(r.train_loss.back() < r.train_loss.front());
  CHECK(r.dev_best == *std::max_element(r.dev.begin(), r.dev.end()));
  double mean = 0;
  for (const float row : r.test_rows) mean += row / 7;
  CHECK(-r.test == doctest::Approx(mean).epsilon(1e-5));
}

TEST_CASE("a language run stopped at any step and resumed has the bits of the whole run") {
  const Threads one(1);
  const EncodedTask task = encoded();
  const auto run = [&](const RunPlaces& places) {
    SmallModel base(arch_of(Stack::decoder));
    return finetune(base, task, lora(2), all_methods(), {}, places);
  };
  const RunResult whole = run({});
  for (int stop = 1; stop <= 10; stop += 3) {
    const Folder folder;
    int steps = 0;
    const RunPlaces places{folder / "state", 0, [&](int, int, double) {
                             if (++steps == stop) throw 0;
                           }};
    CHECK_THROWS(run(places));
    const RunResult resumed = run(places);
    CHECK(resumed.weights_hash == whole.weights_hash);
    CHECK(resumed.dev == whole.dev);
    CHECK(resumed.test_rows == whole.test_rows);
  }
}

TEST_CASE("the unigram floor is what counting by hand gives") {
  EncodedTask task;
  task.name = "counted", task.goal = Goal::language, task.metric = "loss";
  task.train.resize(2), task.test.resize(1);
  task.train[0].token = {9, 3, 5, 5, 3}, task.train[0].prompt = 2;  // 5 5 3
  task.train[1].token = {9, 3, 6, 3}, task.train[1].prompt = 2;     // 6 3
  task.test[0].token = {9, 3, 5, 7, 3}, task.test[0].prompt = 2;    // 5 7 3
  // Five tokens of three kinds, ten in the vocabulary: (count + 0.3) / 8.
  const double loss = -(std::log(2.3 / 8) + std::log(0.3 / 8) + std::log(2.3 / 8)) / 3;
  const Score score = unigram_score(task, task.test, 10);
  CHECK(score.rows.at(0) == doctest::Approx(loss));
  CHECK(score.metric == doctest::Approx(-loss));
}

TEST_CASE("what does not go with a language task is refused in words that say why") {
  const EncodedTask task = encoded();
  const Arch encoder = arch_of(Stack::encoder);
  contains(error_of([&] { encode_task(stories(), tokenizer(), encoder, {}); }),
           "task stories: a language task is told token by token and needs a causal model");
  contains(error_of([&] { encoded({.cloze = true}); }), "no labels for head=cloze");
  contains(error_of([&] { encoded({.max_tokens = 2}); }), "2 tokens leave no room");
  SmallModel base(arch_of(Stack::decoder));
  const auto train = [&](RunSpec spec) {
    return error_of([&] { finetune(base, task, spec, all_methods()); });
  };
  RunSpec spec = lora();
  spec.method = "head";
  contains(train(spec), "method head leaves nothing to train on task stories");
  spec = lora(), spec.head = "dense";
  contains(train(spec), "a language task has no head of its own, so head=dense");
  contains(error_of([] { majority_baseline(stories()); }), "is a language task and has no labels");
  contains(error_of([] { linear_baseline(stories()); }), "is a language task and has no labels");
  Options options = parse_spec("features:layer=1").at(0);
  contains(error_of([&] { feature_transfer(base, task, options, 1); }), "no labels to learn");
  const EncodedTask classes = encode_task(data(), tokenizer(), arch_of(Stack::decoder), {});
  contains(error_of([&] { unigram_score(classes, classes.test, 300); }), "task beasts has labels");
}

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
  CHECK(s.tasks == std::vector<std::string>{"hyper3", "defgen"});
  CHECK(Setup::from(s.json()).json() == s.json());
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
  CHECK(off.tasks == std::vector<std::string>{"hyper3"});
  contains(language_is_off(off), "none called 'decoder'");
  off.tasks = {"defgen"};
  contains(error_of([&] { check_setup(all_methods(), shelf.bases(), e, off); }),
           "needs a causal base");
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
}
