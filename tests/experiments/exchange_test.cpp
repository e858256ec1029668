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
