// What the `graft` program refuses to mix up: records that were changed, bases and tasks that are
// others by now; and that a killed command goes on where it was.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "nn/files/atomic.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

struct Bench : Bases {
  explicit Bench(const std::vector<std::string>& families = {"bert"}) : Bases(families) {}
  fs::path at(const std::string& name) const { return folder.path / name; }

  json record(const std::string& run) const { return json::parse(read_file(at(run) / "run.json")); }
  void fails(const std::string& arguments, const std::string& why) const {
    const Said s = says(arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == 1);
    contains(s.text, why);
  }
  // Another base of the same shape in the place of one.
  void exchange_base(const std::string& family) const {
    fs::remove_all(at(family));
    Build build{.seed = 77};
    Model model(small(family), build);
    save_model(model, at(family), FileDtype::f32, &tokenizer());
  }
  // `replay` of a record in which one thing was changed.
  void replay_fails(const std::string& run, const std::string& key, const json& value,
                    const std::string& why) const {
    json changed = record(run);
    changed[key] = value;
    write_file_atomically(at("changed.json"), changed.dump());
    fails("replay " + out("changed.json"), why);
  }
};

std::string weights_of(const std::string& text) {
  const std::size_t from = text.find("weights ");
  REQUIRE(from != std::string::npos);
  return text.substr(from, 24);
}

}  // namespace

TEST_CASE("replay fails where a record says other bits than come out") {
  const Bench b;
  const std::string train = "train --model bert --task " + b.task("beasts") + kShort;
  b.hears(train + "--method lora:r=2 --out " + b.out("run"));
  contains(b.hears("replay " + b.out("run/run.json")), "the same bits");
  b.replay_fails("run", "weights_hash", "0123456789abcdef", "the record says 0123456789abcdef");
  b.replay_fails("run", "base_hash", "0123456789abcdef", "base_hash is ");
  b.replay_fails("run", "core", "none", "was made by kernels for none");

  b.hears(train + "--init " + b.out("run/adapter") + " --out " + b.out("second"));
  contains(b.hears("replay " + b.out("second/run.json")), "the same bits");
  b.replay_fails("second", "init_hash", "0123456789abcdef", "is another one by now");

  write_tsv_task(data(), b.at("more"));
  b.hears("multitask --model bert --tasks '" + b.at("beasts").string() + "," +
          b.at("more").string() + "' --method lora:r=2" + kShort + "--out " + b.out("both"));
  contains(b.hears("replay " + b.out("both/run.json")), "the same bits");
  b.replay_fails("both", "weights_hash", "0123456789abcdef", "the record says 0123456789abcdef");
  b.replay_fails("both", "base_hash", "0123456789abcdef", "base_hash is ");
}

TEST_CASE("an adapter is not opened on another base, nor scored on other labels") {
  const Bench b({"gpt2"});
  const std::string train = "train --model gpt2" + kShort + "--method lora:r=2,on=q+v --task ";
  b.hears(train + b.task("beasts") + " --out " + b.out("a"));
  b.hears(train + b.task("stories") + " --out " + b.out("t"));
  TaskData others = data();
  others.labels = {"bread", "wolf"};
  write_tsv_task(others, b.at("others"));
  b.fails("eval " + b.out("a/adapter") + " --task " + b.task("others"), "has other labels");
  b.fails("eval " + b.out("a/adapter") + " --task " + b.task("stories"), "labels");
  b.fails("eval " + b.out("t/adapter") + " --task " + b.task("beasts"), "labels");

  const std::string a = b.out("a/adapter"), t = b.out("t/adapter");
  b.exchange_base("gpt2");
  write_file_atomically(b.at("rows.txt"), "the wolf\n");
  b.fails("eval " + a, "with other weights");
  b.fails("predict " + a + " --rows " + b.out("rows.txt"), "with other weights");
  b.fails("eval --adapter 'x=" + b.at("a/adapter").string() + "'", "with other weights");
  b.fails("merge " + a + " --out " + b.out("m"), "with other weights");
  b.fails("export " + a + " --out " + b.out("e"), "with other weights");
  b.fails("generate --adapter " + t + " --prompt wolf", "base");
  b.fails("generate --adapter 'x=" + b.at("t/adapter").string() + "' --prompt x", "another base");
  b.fails("train --init " + t + " --model gpt2 --task " + b.task("stories") + kShort + "--out " +
              b.out("n"),
          "with other weights");
  b.hears(train + b.task("stories") + " --out " + b.out("new"));
  b.fails("combine --adapter " + t + " --adapter " + b.out("new/adapter") +
              " --weights 1,1 --out " + b.out("c"),
          "another base");
  for (const char* none : {"m", "e", "c"}) CHECK(!fs::exists(b.at(none)));
}

TEST_CASE("a killed graft train goes on from its state to the weights of one that was not") {
  const Bench b;
  const auto program = fs::read_symlink("/proc/self/exe").parent_path() / "graft";
  const std::string train = "train --model bert --task " + b.task("beasts") +
                            " --method lora:r=2,dropout=0.1 --epochs 300 --batch 4 --lr 1e-3 ";
  const std::string whole = weights_of(b.hears(train + "--out " + b.out("whole")));
  const std::string log = b.out("log"), run = train + "--state-seconds 0 --out " + b.out("run");
  const Said killed = shell_says(
      "GRAFT_BASES='" + b.folder.path.string() + "' '" + program.string() + "' " + run + " --log " +
      log + " > /dev/null & pid=$!; until [ $(cat " + log +
      " 2> /dev/null | wc -l) -ge 9 ]; do sleep 0.01; done; kill -9 $pid; wait $pid; exit 0");
  CAPTURE(killed.text);
  REQUIRE(fs::exists(b.at("run/state.safetensors")));
  REQUIRE(!fs::exists(b.at("run/run.json")));
  Said s = b.says(run + " --decay 0.3");
  CHECK(s.status == 1);
  contains(s.text, "decay");
  s = b.says(run + " --log " + log);
  CAPTURE(s.text);
  CHECK(s.status == 0);
  CHECK(weights_of(s.text) == whole);
  const std::string lines = read_file(b.at("log"));  // each step once
  CHECK(std::ranges::count(lines, '\n') == 1200);
  CHECK(!fs::exists(b.at("run/state.safetensors")));
}

TEST_CASE("what train is told stands in its record, and is what the run does") {
  const Bench b;
  b.hears("train --model bert --task " + b.task("beasts") +
          " --method lora:r=3 --optimizer adafactor --schedule cosine --lr 0.0123 --clip 0.7 "
          "--warmup 0.25 --epochs 2 --batch 6 --micro 3 --seed 9 --checkpoint blocks "
          "--max-tokens 17 --train-rows 11 --dev-rows 5 --test-rows 4 --head dense --pool cls "
          "--frozen-mb 0 --out " +
          b.out("run"));
  const json record = b.record("run"), run = record.at("run");
  const json told{{"method", "lora:r=3"}, {"optimizer", "adafactor"},
                  {"schedule", "cosine"}, {"lr", 0.0123},
                  {"clip", 0.7},          {"warmup", 0.25},
                  {"epochs", 2},          {"batch", 6},
                  {"micro", 3},           {"seed", 9},
                  {"head", "dense"},      {"pool", "cls"}};
  for (const auto& item : told.items()) {
    const std::string key = item.key();
    CAPTURE(key);
    REQUIRE(run.contains(key));
    CHECK(run.at(key) == item.value());
  }
  for (const auto& [key, value] :
       {std::pair{"max_tokens", 17}, {"train_rows", 11}, {"dev_rows", 5}, {"test_rows", 4}})
    CHECK(record.at(key) == value);
  // Each of these changes what is trained.
  const auto weights = [&](const std::string& option) {
    static int n = 0;
    return weights_of(b.hears("train --model bert --task " + b.task("beasts") + kShort +
                              "--method lora:r=2 " + option + " --out " +
                              b.out("w" + std::to_string(n++))));
  };
  std::set<std::string> all{weights("")};
  for (const char* option :
       {"--decay 0.5", "--clip 0.001", "--warmup 0.9", "--schedule constant", "--schedule cosine",
        "--optimizer adafactor --decay 0", "--seed 2", "--train-rows 9", "--max-tokens 6"}) {
    CAPTURE(option);
    CHECK(all.insert(weights(option)).second);
  }
  CHECK(all.contains(weights("--frozen-mb 0")));
  CHECK(all.contains(weights("--checkpoint inner")));
  CHECK(all.contains(weights("--micro 2")));
}

TEST_CASE("generate's options reach the generator") {
  const Bench b({"gpt2"});
  const auto text = [&](const std::string& options) {
    return b.hears("generate --model gpt2 --prompt 'the wolf and the' --max-tokens 12 " + options);
  };
  const std::string greedy = text("");
  CHECK(text("--sample --top-k 1") == greedy);
  CHECK(text("--sample --top-p 1e-9") == greedy);
  CHECK(text("--sample --seed 1") != text("--sample --seed 2"));
  CHECK(text("--repetition-penalty 5") != greedy);
  CHECK(text("--no-repeat-ngram 1") != greedy);
  const Said s = b.says("generate --model gpt2 --prompt x --until tomorrow");
  CHECK(s.status != 0);
  contains(s.text, "no_better");
}
