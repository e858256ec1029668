// What goes along where an adapter leaves its place: how it was asked, its labels; and merging and
// resuming where its task's folder is another by now.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "nn/files/atomic.h"
#include "peft/files.h"
#include "peft/training_state.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;

namespace {

nlohmann::json json_of(const fs::path& file) { return nlohmann::json::parse(read_file(file)); }

std::string adapted(const Bases& b, const std::string& base, const std::string& task,
                    const std::string& more) {
  return b.hears("train --model " + base + " --max-tokens 40 --task " + b.task(task) + kShort +
                 more);
}

void is_refused(const Bases& b, const std::string& arguments, const std::string& why) {
  const Said s = b.says(arguments);
  CAPTURE(arguments);
  CAPTURE(s.text);
  CHECK(s.status == 1);
  contains(s.text, why);
  CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
}

std::string weights_in(const std::string& text) {
  const std::size_t at = text.find("weights ");
  REQUIRE(at != std::string::npos);
  return text.substr(at, 24);
}

const std::string kAsk =
    "each prompt was followed by '[SEP]' in training; put it at the end of prompts elsewhere";

}  // namespace

TEST_CASE("a language adapter is asked as in training after export and import, and it is told") {
  const Bases b({"gpt2"});
  adapted(b, "gpt2", "stories", "--method lora:r=2,on=o --out " + b.out("a"));
  const std::string was = b.out("a/adapter"), is = b.out("back");
  contains(b.hears("export " + was + " --out " + b.out("peft")), kAsk);
  const nlohmann::json told = json_of(b.folder / "peft/graft.json");
  CHECK(told.at("joined") == false);
  CHECK(told.at("max_tokens") == 40);
  CHECK(told.at("note") == kAsk);
  CHECK_FALSE(told.contains("task_folder"));  // it is this machine's
  b.hears("import " + b.out("peft") + " --model gpt2 --out " + is);
  CHECK(read_adapter_config(b.folder / "back").more.at("joined") == false);
  const std::string tail = " --prompt wolf --prompt hare --max-tokens 6";
  CHECK(b.hears("generate --adapter " + is + tail) == b.hears("generate --adapter " + was + tail));
  CHECK(b.hears("eval " + is + " --task " + b.task("stories")) == b.hears("eval " + was));
  is_refused(b, "eval " + is,
             "does not say where the rows of its task \"stories\" are; give --task");

  const std::string merged = b.hears("merge " + was + " --out " + b.out("merged"));
  contains(merged, "largest difference");
  contains(merged, kAsk);
  const std::string alone = b.hears("merge " + is + " --out " + b.out("alone"));
  contains(alone, "merged without a comparison");
  contains(alone, kAsk);
  CHECK(read_file(b.folder / "alone/model.safetensors") ==
        read_file(b.folder / "merged/model.safetensors"));

  fs::remove(b.folder / "peft/graft.json");  // as another program's folder: nobody knows
  b.hears("import " + b.out("peft") + " --model gpt2 --out " + b.out("other"));
  CHECK(read_adapter_config(b.folder / "other").more.at("joined") == true);
}

TEST_CASE("a joined task's adapter needs no note, and a task.json may ask for it") {
  const Bases b({"gpt2"});
  const fs::path folder = b.folder / "own";
  fs::create_directory(folder);
  std::string rows = "prompt,continuation\n";
  for (std::uint32_t i = 0; i < 12; ++i) rows += "the wolf," + sentence(i) + "\n";
  write_file_atomically(folder / "all.csv", rows);
  const std::string files =
      R"("format": "csv", "train": "all.csv", "dev": "all.csv", "test": "all.csv")";
  write_file_atomically(folder / "task.json",
                        "{" + files + R"(, "kind": "language", "joined": true})");
  adapted(b, "gpt2", "own", "--method lora:r=1,on=o --out " + b.out("a"));
  CHECK(read_adapter_config(b.folder / "a/adapter").more.at("joined") == true);
  const std::string said = b.hears("export " + b.out("a/adapter") + " --out " + b.out("peft"));
  CHECK(said.find("followed by") == std::string::npos);
  CHECK(json_of(b.folder / "peft/graft.json").at("joined") == true);
  write_file_atomically(folder / "task.json", "{" + files + R"(, "joined": true})");
  is_refused(b, "eval " + b.out("a/adapter"), "nothing asks for 'joined' in a task like this");
  write_file_atomically(folder / "task.json",
                        "{" + files + R"(, "kind": "language", "joined": 1})");
  is_refused(b, "eval " + b.out("a/adapter"), "joined is 1; need true or false");
}

TEST_CASE("a head's labels, pooling and columns come back without its task") {
  const Bases b({"bert"});
  adapted(b, "bert", "beasts",
          "--method lora:r=2,on=q+v --head dense --pool cls --out " + b.out("a"));
  b.hears("export " + b.out("a/adapter") + " --out " + b.out("peft"));
  const std::string import = "import " + b.out("peft") + " --model bert --out ";
  const std::string said = b.hears(import + b.out("back"));
  CHECK(said.find("does not say how its head pools") == std::string::npos);
  CHECK(read_adapter_config(b.folder / "back").more.at("pool") == "cls");
  CHECK(b.hears("eval " + b.out("back") + " --task " + b.task("beasts")) ==
        b.hears("eval " + b.out("a/adapter")));
  write_file_atomically(b.folder / "rows.txt", "the wolf\nthe soup again\n");
  const std::string rows = " --rows " + b.out("rows.txt");
  CHECK(b.hears("predict " + b.out("back") + rows) ==
        b.hears("predict " + b.out("a/adapter") + rows));

  TaskData other = data();
  other.labels[0] = "noun.drink";
  write_tsv_task(other, b.folder / "drinks");
  is_refused(b, import + b.out("x") + " --task " + b.task("drinks"),
             "the adapter was trained for [\"noun.animal\",\"noun.food\"]");
  write_file_atomically(b.folder / "peft/graft.json", "{}");
  is_refused(b, import + b.out("x"), "is no graft.json of this program");
  write_file_atomically(
      b.folder / "peft/graft.json",
      R"({"format": "graft-handed-on-1", "task": "t", "labels": [1], "head": "dense"})");
  is_refused(b, import + b.out("x"), "labels is [1]; need a list of texts");
  CHECK_FALSE(fs::exists(b.folder / "x"));
}

TEST_CASE("an encoder-decoder's adapter for labels says how its texts were put") {
  const Bases b({});
  SmallModel model(text_arch());
  save_model(model, b.folder.path / "t5", FileDtype::f32, &tokenizer());
  adapted(b, "t5", "beasts", "--method lora:r=1,on=q --out " + b.out("a"));
  contains(b.hears("export " + b.out("a/adapter") + " --out " + b.out("peft")),
           "texts were put as 'beasts text: ...' in training; put them so elsewhere");
  b.hears("import " + b.out("peft") + " --model t5 --out " + b.out("back"));
  write_file_atomically(b.folder / "rows.txt", "the wolf\nthe soup again\n");
  const std::string rows = " --rows " + b.out("rows.txt");
  CHECK(b.hears("predict " + b.out("back") + rows) ==
        b.hears("predict " + b.out("a/adapter") + rows));
  fs::remove_all(b.folder / "beasts");
  contains(b.hears("merge " + b.out("a/adapter") + " --out " + b.out("merged")),
           "texts were put as 'beasts text: ...'");
}

TEST_CASE("an export names its base as it is told, and leaves the training's state behind") {
  const Bases b({"gpt2"});
  adapted(b, "gpt2", "stories", "--method lora:r=1,on=o --out " + b.out("a"));
  const std::string command = "export " + b.out("a/adapter") + " --out ";
  b.hears(command + b.out("here"));
  b.hears(command + b.out("hub") + " --base-name someone/small-gpt2 --without-state");
  const char* key = "base_model_name_or_path";
  CHECK(json_of(b.folder / "hub/adapter_config.json").at(key) == "someone/small-gpt2");
  CHECK(json_of(b.folder / "here/adapter_config.json").at(key) == (b.folder / "gpt2").string());
  CHECK(has_training_state(b.folder / "here"));
  CHECK_FALSE(has_training_state(b.folder / "hub"));
  for (const auto& entry : fs::directory_iterator(b.folder / "hub"))
    CHECK(read_file(entry.path()).find(b.folder.path.string()) == std::string::npos);
}

TEST_CASE("graft merge needs no rows, and compares where it is told where they are") {
  const Bases b({"bert"});
  adapted(b, "bert", "beasts", "--method lora:r=2,on=q+v --head family --out " + b.out("a"));
  contains(b.hears("merge " + b.out("a/adapter") + " --out " + b.out("with")), "dev accuracy ");
  fs::rename(b.folder / "beasts", b.folder / "moved");
  const std::string said = b.hears("merge " + b.out("a/adapter") + " --out " + b.out("without"));
  contains(said, "merged without a comparison, for which --task gives rows: task '");
  const std::string merged = read_file(b.folder / "with/model.safetensors");
  CHECK(read_file(b.folder / "without/model.safetensors") == merged);
  CHECK(json_of(b.folder / "without/config.json") == json_of(b.folder / "with/config.json"));
  contains(b.hears("merge " + b.out("a/adapter") + " --task " + b.task("moved") + " --out " +
                   b.out("again")),
           "dev accuracy ");
  is_refused(b, "merge " + b.out("a/adapter") + " --task nowhere --out " + b.out("x"),
             "task 'nowhere'");
  // An earlier version's adapter says less of its task.
  const fs::path file = b.folder / "a/adapter/adapter_config.json";
  nlohmann::json config = json_of(file);
  for (const char* key : {"columns", "values"}) config.at("more").erase(key);
  write_file_atomically(file, config.dump());
  b.hears("merge " + b.out("a/adapter") + " --out " + b.out("old"));
  CHECK(read_file(b.folder / "old/model.safetensors") == merged);
  // A folder that cannot be made is found before the work.
  is_refused(b, "merge " + b.out("a/adapter") + " --out " + b.out("moved/dev.tsv/m"),
             "cannot make folder");
}

TEST_CASE("a run knows its task from any working folder, and under another name") {
  const Bases b({"esm"});
  const auto in = [&](const fs::path& folder, const std::string& arguments) {
    const Said s =
        program_says("cd '" + folder.string() + "' && GRAFT_BASES='" + b.folder.path.string() + "'",
                     "graft", arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    REQUIRE(s.status == 0);
    return s.text;
  };
  const std::string train =
      "train --model ./esm --task beasts --method lora:r=1,on=q --lr 3e-3"
      " --batch 4 --epochs 2 --out ";
  const std::string whole = weights_in(in(b.folder.path, train + "whole"));
  in(b.folder.path, train + "half --stop-after 1");
  CHECK(json_of(b.folder / "half/run.json").at("task") == (b.folder / "beasts").string());
  const fs::path elsewhere = b.folder / "half";
  CHECK(in(elsewhere, "eval ../whole/adapter") == in(b.folder.path, "eval whole/adapter"));
  contains(in(elsewhere, "replay ../whole/run.json"), "the same bits");
  CHECK(weights_in(in(elsewhere, "train --resume adapter --out ../rest")) == whole);

  // The same rows in a folder of another name; and a state of a version that wrote the name down.
  fs::rename(b.folder / "beasts", b.folder / "creatures, and (more)");
  const std::string to = " --task '../creatures, and (more)' --out ../";
  CHECK(weights_in(in(elsewhere, "train --resume adapter" + to + "renamed")) == whole);
  const fs::path adapter = b.folder / "half/adapter";
  TrainingState state = kept_training_state(adapter);
  std::string& on = state.about.at("on");
  const std::size_t at = on.find(", task (");
  REQUIRE(at != std::string::npos);
  on.insert(at + 7, "some, name (1) ");
  keep_training_state(adapter, state);
  CHECK(weights_in(in(elsewhere, "train --resume adapter" + to + "old")) == whole);

  // An earlier version's record has the folder as it was given.
  nlohmann::json record = json_of(b.folder / "whole/run.json");
  record["task"] = "creatures, and (more)", record["model"] = "esm";
  write_file_atomically(b.folder / "old.json", record.dump());
  contains(in(b.folder.path, "replay old.json"), "the same bits");
}
