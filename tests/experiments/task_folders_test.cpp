// Data files as their publishers and owners have them: GLUE, E2E, Alpaca, CSV, JSON, plain text.
#include "experiments/data/task_folders.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "experiments/data/row_files.h"
#include "experiments/data/task_files.h"
#include "experiments/runs/encoded.h"
#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Files : Folder {
  void put(const std::string& name, const std::string& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
  }
  TaskData task(const std::string& json) const {
    put("task.json", json);
    return task_named(path.string());
  }
  std::string refusal(const std::string& json) const {
    return error_of([&] { task(json); });
  }
};

// `n` rows of CSV: text and yes or no.
std::string csv(int n) {
  std::string text = "id,words,answer\n";
  for (int i = 0; i < n; ++i)
    text += fmt::format("{},\"row {}, \"\"so\"\" it is\",{}\n", i, i, i % 3 ? "yes" : "no");
  return text;
}

fs::path shared(const char* name) {
  return fs::path(__FILE__).parent_path() / "../../../shared/data" / name;
}

// The row that stands first in the test's file.
const Example& first_of(const TaskData& task) {
  return *std::ranges::min_element(task.test, {}, &Example::id);
}

}  // namespace

TEST_CASE("CSV is read as RFC 4180 has it") {
  const Files f;
  f.put("a.csv", "\xef\xbb\xbfx,\"y\nz\"\r\n\"a \"\"b\"\", c\",1\n,\"two\nlines\"\r\nlast,\n");
  const data::RowFile rows = data::read_csv(f / "a.csv");
  CHECK(rows.columns == std::vector<std::string>{"x", "y\nz"});
  REQUIRE(rows.rows.size() == 3);
  CHECK(rows.rows[0] == std::vector<std::string>{"a \"b\", c", "1"});
  CHECK(rows.rows[1] == std::vector<std::string>{"", "two\nlines"});
  CHECK(rows.rows[2] == std::vector<std::string>{"last", ""});
  CHECK(rows.where(2) == (f / "a.csv").string() + ":6");
  const auto refused = [&](const std::string& text) {
    f.put("b.csv", text);
    return error_of([&] { data::read_csv(f / "b.csv"); });
  };
  contains(refused("a,b\n1,2\n\"3,4\n5,6\n"), "b.csv:3: a quote that never closes");
  contains(refused("a,b\n1,\"2\"3\n"), "b.csv:2: text behind a closing quote");
  contains(refused("a,b\n1,2\"3\"\n"), "b.csv:2: a quote in the middle");
  contains(refused("a,b\n1,2\n3\n"), "b.csv:3: 1 fields; there are 2 columns (a, b)");
  contains(refused("a,a\n1,2\n"), "a column is there twice");
  contains(refused("a,b\n"), "no rows");
  contains(refused("a,b\n1,\xff\n"), "b.csv:2: a byte that is not valid UTF-8");
}

TEST_CASE("a described folder splits train where it must, by text, and never twice") {
  const Files f;
  f.put("all.csv", csv(300));
  const std::string json =
      R"({"format": "csv", "train": "all.csv", "a": "words", "label": "answer"})";
  const TaskData t = f.task(json);
  CHECK(t.labels == std::vector<std::string>{"no", "yes"});
  CHECK(t.train.size() + t.dev.size() + t.test.size() == 300);
  CHECK(t.dev.size() > 15);
  CHECK(t.test.size() > 15);
  std::set<std::string> texts;
  std::set<std::uint32_t> ids;
  for (const auto* split : {&t.train, &t.dev, &t.test})
    for (const Example& e : *split) texts.insert(e.a), ids.insert(e.id);
  CHECK(texts.size() == 300);
  CHECK(ids.size() == 300);
  CHECK(f.task(json).dev.at(0).a == t.dev.at(0).a);
  contains(t.note, "dev is a tenth of train; test is a tenth of train");
  CHECK(kind_of_named_task(f.path.string()) == TaskData::Kind::classification);
}

TEST_CASE("labels keep the order that is given, and JSON's numbers may be labels and scores") {
  const Files f;
  f.put("t.jsonl", "{\"s\": \"one\", \"l\": 1}\n\n{\"s\": \"two\", \"l\": 0}\n");
  f.put("d.jsonl", "{\"l\": 0, \"s\": \"three\"}\n");
  const std::string files = R"("train": "t.jsonl", "dev": "d.jsonl", "test": "d.jsonl")";
  const TaskData t =
      f.task(R"({"format": "jsonl", "a": "s", "label": "l", "labels": ["1", "0"], )" + files + "}");
  CHECK(t.labels == std::vector<std::string>{"1", "0"});
  CHECK(t.test.at(0).label == 1);
  const TaskData r =
      f.task(R"({"format": "jsonl", "kind": "regression", "a": "s", "score": "l", )" + files + "}");
  CHECK(r.kind == TaskData::Kind::regression);
  CHECK(r.metric == "pearson");
  CHECK(r.dev.at(0).score == 0);
}

TEST_CASE("a description is checked against its files, and says what does not fit") {
  const Files f;
  f.put("all.csv", csv(300));
  f.put("other.csv", "id,words,answer\n1,x,maybe\n");
  f.put("empty.csv", "id,words,answer\n1, ,no\n2,b,yes\n");
  const std::string csv_head = R"({"format": "csv", "a": "words", "label": "answer", )";
  const auto refused = [&](const std::string& rest) { return f.refusal(csv_head + rest + "}"); };
  contains(f.refusal("[1]"), "need an object");
  contains(f.refusal("{"), "not JSON");
  contains(f.refusal(R"({"format": "xml"})"), "format is 'xml'");
  contains(f.refusal(R"({"format": "csv"})"), "no train");
  contains(f.refusal(R"({"format": "csv", "train": "all.csv", "a": "word", "label": "answer"})"),
           "no column 'word'; there are id, words, answer");
  contains(refused(R"("train": "all.csv", "lables": ["a"])"), "nothing asks for 'lables'");
  contains(refused(R"("train": "all.csv", "labels": ["no"])"), "label 'yes'; the labels are no");
  contains(refused(R"("train": "all.csv", "labels": ["no", "yes", "so"])"),
           "no row has the label 'so'");
  contains(refused(R"("train": "all.csv", "labels": "no")"), "need a list of texts");
  contains(refused(R"("train": "all.csv", "dev": "other.csv")"), "other.csv:2: label 'maybe'");
  contains(refused(R"("train": "empty.csv")"), "empty.csv:2: column words is empty");
  contains(refused(R"("train": "all.csv", "rows": {"train": 299})"), "300 rows; train of");
  contains(refused(R"("train": "all.csv", "rows": {"dev": 299})"), "dev has no file");
  contains(refused(R"("train": "none.csv")"), "none.csv");
  contains(refused(R"("train": "all.csv", "kind": "poem")"), "kind is 'poem'");
}

TEST_CASE("E2E, Alpaca and plain text are language tasks") {
  const Files f;
  std::string e2e, alpaca = "[", text;
  for (int i = 0; i < 60; ++i) {
    e2e += fmt::format("name : Inn {} | food : fish||The Inn {} has fish . \n", i, i);
    alpaca += fmt::format(R"({}{{"instruction": "Do {}", "input": "{}", "output": "done {}"}})",
                          i ? "," : "", i, i % 2 ? "this" : "", i);
    text += fmt::format("line {}\n\n", i);
  }
  f.put("e2e.txt", e2e), f.put("alpaca.json", alpaca + "]"), f.put("text.txt", text);
  const TaskData a = f.task(R"({"format": "e2e", "train": "e2e.txt"})");
  CHECK(a.kind == TaskData::Kind::language);
  CHECK(a.train.at(0).a.starts_with("name : Inn"));
  CHECK(a.train.at(0).b.ends_with("has fish ."));
  CHECK(!a.joined);
  const TaskData b = f.task(R"({"format": "alpaca", "train": "alpaca.json"})");
  CHECK(b.joined);
  CHECK(b.train.at(0).a.ends_with("### Response:"));
  const TaskData c = f.task(R"({"format": "text", "train": "text.txt"})");
  CHECK(c.train.at(0).a.empty());
  CHECK(c.train.size() + c.dev.size() + c.test.size() == 60);
  CHECK(alpaca_prompt("Add.", "1 2").find("further context. Write a response") !=
        std::string::npos);
  CHECK(alpaca_prompt("Add.", "").find("Input") == std::string::npos);
  Arch arch = arch_of(Stack::decoder);
  arch.positions = 512;
  const EncodedTask e = encode_task(b, tokenizer(), arch, {.max_tokens = 512});
  const EncodedExample& first = e.train.at(0);  // the response follows the prompt at once
  const auto prompt = tokenizer().encode(b.train.at(0).a);
  CHECK(first.prompt == static_cast<int>(prompt.size()));
}

TEST_CASE(
    "GLUE's folders are read as published, a slice of train as dev, and cut-off files refused") {
  const fs::path glue = shared("glue");
  if (!fs::exists(glue)) {
    MESSAGE("SKIPPED: no folder ../shared/data with GLUE's files beside the source tree");
    return;
  }
  const TaskData sst = task_named((glue / "SST-2").string());
  CHECK(sst.train.size() + sst.dev.size() == 67349);
  CHECK(sst.test.size() == 872);
  CHECK(sst.metric == "accuracy");
  CHECK(first_of(sst).a.starts_with("it 's a charming"));
  CHECK(sst.labels.at(static_cast<std::size_t>(first_of(sst).label)) == "1");
  const TaskData cola = task_named((glue / "CoLA").string());
  CHECK(cola.test.size() == 1043);
  CHECK(cola.metric == "matthews");
  CHECK(first_of(cola).a == "The sailors rode the breeze clear of the rocks.");
  const Folder cut;
  fs::create_directory(cut / "SST-2");
  const std::string text = read_file(glue / "SST-2" / "train.tsv");
  std::ofstream(cut / "SST-2" / "train.tsv") << text.substr(0, text.find('\n', 100000) + 1);
  fs::copy_file(glue / "SST-2" / "dev.tsv", cut / "SST-2" / "dev.tsv");
  contains(error_of([&] { task_named((cut / "SST-2").string()); }), "Was it cut off?");
}

TEST_CASE("E2E's files are read to the last row") {
  const fs::path e2e = shared("e2e");
  if (!fs::exists(e2e)) {
    MESSAGE("SKIPPED: no folder ../shared/data with E2E's files beside the source tree");
    return;
  }
  const Files f;
  for (const char* name : {"train.txt", "lora_valid.txt", "lora_test.txt"})
    fs::create_symlink(fs::canonical(e2e / name), f.path / name);
  const TaskData t = f.task(
      R"({"format": "e2e", "train": "train.txt", "dev": "lora_valid.txt", "test": "lora_test.txt",
          "rows": {"train": 42061, "dev": 4672, "test": 4693}})");
  CHECK(t.train.size() == 42061);
  CHECK(first_of(t).a == "name : Blue Spice | Type : coffee shop | area : city centre");
}
