// graft export and import: a head of the family's goes to PEFT's folders and comes back the same.
#include <doctest/doctest.h>

#include "nn/models/heads.h"
#include "peft/files.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

std::string at_rate(const std::string& lr) { return " --epochs 1 --batch 4 --lr " + lr + " "; }

json config_of(const fs::path& folder) {
  return json::parse(read_file(folder / "adapter_config.json"));
}

// Exports `from`/adapter, imports that, and compares how both score.
void there_and_back(const Bases& b, const std::string& from, const std::string& model) {
  const std::string task = " --task " + b.task("beasts");
  b.hears("export " + b.out(from + "/adapter") + " --out " + b.out(from + "-peft"));
  CHECK(config_of(b.folder.path / (from + "-peft"))["task_type"] == "SEQ_CLS");
  b.hears("import " + b.out(from + "-peft") + " --model " + model + task + " --max-tokens 40" +
          " --out " + b.out(from + "-back"));
  const fs::path back = b.folder.path / (from + "-back");
  CHECK(read_adapter_config(back).more.at("head") == "family");
  const AdapterValues was = read_adapter_values(b.folder.path / from / "adapter"),
                      is = read_adapter_values(back);
  for (const auto& [name, value] : was)
    if (is_heads(name)) CHECK(difference(is.at(name), value) == 0);
  CHECK(b.hears("eval " + b.out(from + "-back")) == b.hears("eval " + b.out(from + "/adapter")));
}

}  // namespace

TEST_CASE("a family's head goes to PEFT's folder and back, and runs start from it as one") {
  for (const std::string family : {"bert", "roberta", "gpt2", "llama"}) {
    CAPTURE(family);
    const Bases b({family});
    const std::string train =
        "train --model " + family + " --task " + b.task("beasts") + " --max-tokens 40";
    b.hears(train + at_rate("3e-3") + "--head family --method lora:r=2,on=o --out " + b.out("a"));
    there_and_back(b, "a", family);
    const std::string said =
        b.hears(train + at_rate("1e-12") + "--init " + b.out("a-peft") + " --out " + b.out("next"));
    contains(said, "the rows of its head are taken for noun.animal, noun.food");
    CHECK(said.find("pool=") == std::string::npos);
    CHECK(json::parse(read_file(b.folder.path / "next/run.json"))["run"]["head"] == "family");
    CHECK(b.hears("eval " + b.out("next/adapter")) == b.hears("eval " + b.out("a/adapter")));
    const Said pool = b.says("import " + b.out("a-peft") + " --model " + family + " --pool cls" +
                             " --task " + b.task("beasts") + " --out " + b.out("x"));
    CHECK(pool.status != 0);
    contains(pool.text, "has its own way of pooling; leave it out");
    const Said other =
        b.says(train + " --pool cls --init " + b.out("a-peft") + " --out " + b.out("x"));
    CHECK(other.status != 0);
    contains(other.text, "leave pool=cls out");
  }
}

TEST_CASE("a head that begins with its base's matrix for pooling needs that base") {
  const Bases b({"bert"});
  const std::string task = " --task " + b.task("beasts") + " --max-tokens 40 ";
  b.hears("train --model bert --head family --method full" + task + at_rate("3e-3") + "--out " +
          b.out("full"));
  const std::string base = b.out("full/model");
  // A rate so small that the matrix stays what it was, bit for bit.
  b.hears("train --model " + base + " --method lora:r=2,on=q" + task + at_rate("1e-30") + "--out " +
          b.out("kept"));
  there_and_back(b, "kept", base);
  CHECK(config_of(b.folder.path / "kept-peft")["modules_to_save"] == json({"classifier", "score"}));
  const std::string said = b.hears("train --model " + base + task + at_rate("1e-30") + "--init " +
                                   b.out("kept-peft") + " --out " + b.out("next"));
  contains(said, "PEFT leaves the base's matrix for pooling as it is");
  CHECK(b.hears("eval " + b.out("next/adapter")) == b.hears("eval " + b.out("kept/adapter")));
  for (const std::string& command :
       {"import " + b.out("kept-peft") + " --out " + b.out("x"),
        "train --init " + b.out("kept-peft") + " --out " + b.out("x")}) {
    const Said refused = b.says(command + " --model bert" + task);
    CAPTURE(refused.text);
    CHECK(refused.status != 0);
    contains(refused.text, "begins with its base's matrix for pooling, which");
  }
}

TEST_CASE("bottleneck adapters go to AdapterHub's folder and back, and runs start from it") {
  const Bases b({"gpt2"});
  const std::string train =
      "train --model gpt2 --task " + b.task("beasts") + " --max-tokens 40" + at_rate("3e-3");
  b.hears(train + "--method parallel:m=3,place=residual --out " + b.out("a"));
  const std::string said = b.hears("export " + b.out("a/adapter") + " --out " + b.out("hub"));
  contains(said, "the head is not written: AdapterHub keeps heads in files of its own");
  contains(said, "AdapterHub folder in");
  CHECK(config_of(b.folder.path / "hub")["config"]["is_parallel"] == true);
  b.hears("import " + b.out("hub") + " --model gpt2 --out " + b.out("back"));
  const AdapterValues was = read_adapter_values(b.folder.path / "a/adapter"),
                      is = read_adapter_values(b.folder.path / "back");
  CHECK(is.size() == 8);
  for (const auto& [name, value] : is) CHECK(same_bits(was.at(name), value));
  const std::string next = b.hears(train + "--init " + b.out("hub") + " --out " + b.out("next"));
  contains(next, "the head is new: the adapter has none");
  const json run = json::parse(read_file(b.folder.path / "next/run.json"))["run"];
  CHECK(run["method"] == "parallel:m=3,on=mlp,place=residual,f=relu");
}

TEST_CASE("an adapter without a head is imported onto a base that has one") {
  const Bases b({"gpt2"});
  const std::string train =
      "train --model gpt2 --task " + b.task("beasts") + " --max-tokens 40" + at_rate("3e-3");
  b.hears(train + "--head family --method full --out " + b.out("full"));
  b.hears(train + "--method parallel:m=3,place=residual --out " + b.out("a"));
  b.hears("export " + b.out("a/adapter") + " --out " + b.out("hub"));
  b.hears("import " + b.out("hub") + " --model " + b.out("full/model") + " --out " + b.out("back"));
  for (const auto& [name, value] : read_adapter_values(b.folder.path / "back"))
    CHECK_FALSE(is_heads(name));
}

TEST_CASE("the state of a training that is not the adapter's is left behind, which is said") {
  const Bases b({"gpt2"});
  const std::string train =
      "train --model gpt2 --task " + b.task("stories") + " --max-tokens 40" + at_rate("3e-3");
  b.hears(train + "--method lora:r=1,on=o --out " + b.out("a"));
  b.hears(train + "--method lora:r=1,on=o --seed 5 --out " + b.out("other"));
  b.hears("export " + b.out("a/adapter") + " --out " + b.out("peft"));
  const char* state = "training_state.safetensors";
  // As if PEFT had trained the folder's adapter further.
  fs::copy_file(b.folder.path / "other/adapter" / state, b.folder.path / "peft" / state,
                fs::copy_options::overwrite_existing);
  const std::string said =
      b.hears("import " + b.out("peft") + " --model gpt2 --out " + b.out("back"));
  contains(said, "is left behind: the adapter there has other values by now");
  CHECK_FALSE(fs::exists(b.folder.path / "back" / state));
}

TEST_CASE("an encoder-decoder's adapter goes to PEFT and back also for a task of labels") {
  const Bases b({});
  SmallModel model(text_arch());
  save_model(model, b.folder.path / "t5", FileDtype::f32, &tokenizer());
  for (const std::string method : {"prompt:length=2", "lora:r=1,on=q"}) {
    CAPTURE(method);
    const std::string name = method.substr(0, method.find(':')), task = b.task("beasts");
    b.hears("train --model t5 --max-tokens 40 --task " + task + at_rate("3e-3") + "--method " +
            method + " --out " + b.out(name));
    b.hears("export " + b.out(name + "/adapter") + " --out " + b.out(name + "-peft"));
    CHECK(config_of(b.folder.path / (name + "-peft"))["task_type"] == "SEQ_2_SEQ_LM");
    const std::string import = "import " + b.out(name + "-peft") + " --model t5 --max-tokens 40 ";
    b.hears(import + "--task " + task + " --out " + b.out(name + "-back"));
    CHECK(b.hears("eval " + b.out(name + "-back")) == b.hears("eval " + b.out(name + "/adapter")));
    b.hears(import + "--out " + b.out(name + "-alone"));
    b.hears("generate --adapter " + b.out(name + "-alone") + " --prompt 'a wolf' --max-tokens 3");
  }
}
