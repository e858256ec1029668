// What users' own files and commands hold that no published ones do.
#include <doctest/doctest.h>

#include <fstream>
#include <set>

#include "experiments/runs/named_task.h"
#include "peft/files.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;

namespace {

void put(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

const std::string kMark = "\xef\xbb\xbf";

// Rows sorted by their labels.
std::string sorted_rows(int n, const std::string& begin = "", const std::string& space = "") {
  std::string text = begin + "label\ta\n";
  for (int i = 0; i < n; ++i)
    text += fmt::format("{}{}\trow {}\n", 2 * i < n ? "no" : "yes", i % 3 ? "" : space, i);
  return text;
}

}  // namespace

TEST_CASE("the first rows of a file that was sorted are a fair sample") {
  const Folder f;
  for (const char* split : {"train", "dev", "test"})
    put(f.path / (std::string(split) + ".tsv"), sorted_rows(40));
  const TaskData task = task_named(f.path.string());
  for (const auto* rows : {&task.train, &task.dev, &task.test}) {
    int yes = 0;
    for (std::size_t i = 0; i < 20; ++i) yes += (*rows)[i].label;
    CHECK(yes > 3);
    CHECK(yes < 17);
  }
  std::set<std::uint32_t> ids;
  for (const Example& e : task.train) {
    CHECK(e.a == fmt::format("row {}", e.id));  // an id is a row's, wherever that stands
    ids.insert(e.id);
  }
  CHECK(ids.size() == 40);
}

TEST_CASE("a byte order mark and spaces around labels change nothing") {
  const Folder f, marked;
  for (const char* split : {"train.tsv", "dev.tsv", "test.tsv"}) {
    put(f / split, sorted_rows(12));
    put(marked / split, sorted_rows(12, kMark, " "));
  }
  const TaskData plain = task_named(f.path.string()), other = task_named(marked.path.string());
  CHECK(other.labels == plain.labels);
  for (std::size_t i = 0; i < 12; ++i) CHECK(other.train[i].label == plain.train[i].label);
  // GLUE's MRPC begins with one.
  std::string mrpc = kMark + "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n";
  for (int i = 0; i < 60; ++i) mrpc += fmt::format("{}\t1\t2\ta {}\tb\n", i % 2, i);
  put(f / "mrpc/train.tsv", mrpc), put(f / "mrpc/dev.tsv", mrpc);
  const TaskData glue = task_named((f / "mrpc").string());
  contains(glue.note, "GLUE's MRPC: test is the published dev.tsv");
}

TEST_CASE("a labelled test.tsv in GLUE's form is the test") {
  const Folder f;
  std::string rows = "index\tsentence1\tsentence2\tlabel\n";
  for (int i = 0; i < 40; ++i)
    rows += fmt::format("{}\tx {}\ty\t{}\n", i, i, i % 2 ? "entailment" : "not_entailment");
  put(f / "train.tsv", rows), put(f / "dev.tsv", rows);
  put(f / "test.tsv", rows + "40\tmine\ty\tentailment\n");
  const TaskData task = task_named(f.path.string());
  CHECK(task.test.size() == 41);
  CHECK(task.dev.size() == 40);
  contains(task.note, "with a test.tsv that has labels");
  put(f / "test.tsv", "index\tsentence1\tsentence2\tlabel\n0\tx\ty\t-1\n");  // kept back
  CHECK(task_named(f.path.string()).test.size() == 40);
  put(f / "test.tsv", "index\tsentence1\tsentence2\n0\tx\ty\n");  // as published
  CHECK(task_named(f.path.string()).test.size() == 40);
}

TEST_CASE("a prompt with several continuations is of one split") {
  const Folder f;
  std::string rows;
  for (int prompt = 0; prompt < 60; ++prompt)
    for (int way = 0; way < 4; ++way) rows += fmt::format("slots {} || way {}\n", prompt, way);
  put(f / "all.txt", rows);
  put(f / "task.json", R"({"format": "e2e", "train": "all.txt"})");
  const TaskData task = task_named(f.path.string());
  std::set<std::string> train, dev;
  for (const Example& e : task.train) train.insert(e.a);
  for (const Example& e : task.dev) dev.insert(e.a);
  for (const Example& e : task.dev) CHECK_FALSE(train.contains(e.a));
  for (const Example& e : task.test) CHECK_FALSE((train.contains(e.a) || dev.contains(e.a)));
  // A handful of prompts cannot be divided: their rows are.
  rows.clear();
  for (int way = 0; way < 300; ++way) rows += fmt::format("a joke || way {}\n", way);
  put(f / "all.txt", rows);
  const TaskData jokes = task_named(f.path.string());
  CHECK(jokes.test.size() > 10);
  CHECK(jokes.train.size() > 200);
}

TEST_CASE("a prompt in square brackets is one text, and files of Windows' are read as others") {
  const Bases b({"gpt2"});
  const auto lines = [&](const std::string& prompts) {
    const std::string text = b.hears("generate --model gpt2 --max-tokens 2 " + prompts);
    return std::count(text.begin(), text.end(), '\n');
  };
  const auto one = lines("--prompt 'a wolf'");
  CHECK(lines("--prompt '[a wolf, a bear]'") == one);
  CHECK(lines("--prompt 'a wolf' --prompt 'a bear'") > one);
  contains(b.says("generate --model gpt2 --prompt a --stop '[nothing]'").text, "[nothing]");
  put(b.folder / "unix", "a wolf\na bear\n"), put(b.folder / "dos", kMark + "a wolf\r\na bear\r\n");
  const std::string from = "generate --model gpt2 --max-tokens 2 --prompt-file ";
  CHECK(b.hears(from + b.out("unix")) == b.hears(from + b.out("dos")));
  for (const char* file : {"unix", "dos"})
    b.hears("embed --model gpt2 --text " + b.out(file) + " --out " +
            b.out(file + std::string(".safetensors")));
  CHECK(read_file(b.folder / "unix.safetensors") == read_file(b.folder / "dos.safetensors"));
}

TEST_CASE("no adapter is written over by what is made of it; a full output is an error") {
  const Bases b({"gpt2"});
  const std::string train = "train --model gpt2 --max-tokens 40 --task " + b.task("stories") +
                            kShort + "--method lora:r=1,on=q ";
  b.hears(train + "--out " + b.out("a"));
  const std::string before = read_file(b.folder / "a/adapter/adapter_model.safetensors");
  const Said combined = b.says("combine --adapter " + b.out("a/adapter") + " --adapter " +
                               b.out("a/adapter") + " --weights 1,1 --out " + b.out("a/adapter"));
  CHECK(combined.status == 1);
  contains(combined.text, "has an adapter already");
  fs::remove(b.folder / "a/run.json");
  const Said onto = b.says(train + "--init " + b.out("a/adapter") + " --out " + b.out("a"));
  CHECK(onto.status == 1);
  contains(onto.text, "lies where this run's would go");
  CHECK(read_file(b.folder / "a/adapter/adapter_model.safetensors") == before);
  CHECK(b.says("count --arch gpt2 --method lora:r=1,on=q > /dev/full").status == 1);
}

TEST_CASE("an encoder-decoder is asked as it was taught, whatever the other rows are called") {
  const Bases b({});
  SmallModel model(text_arch());
  save_model(model, b.folder.path / "t5", FileDtype::f32, &tokenizer());
  fs::copy(b.folder / "beasts", b.folder / "of_march", fs::copy_options::recursive);
  b.hears("train --model t5 --max-tokens 40 --task " + b.task("beasts") + kShort +
          "--method lora:r=1,on=q --out " + b.out("a"));
  CHECK(read_adapter_config(b.folder / "a/adapter").more.at("prefix") == "beasts");
  CHECK(b.hears("eval " + b.out("a/adapter")) ==
        b.hears("eval " + b.out("a/adapter") + " --task " + b.task("of_march")));
}
