// First contact with files of one's own: what they are taken for, and what is said where they are
// not understood.
#include <doctest/doctest.h>

#include "experiments/data/row_files.h"
#include "experiments/data/task_folders.h"
#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct OwnFolder : Folder {
  void put(const std::string& name, const std::string& text) const {
    write_file_atomically(path / name, text);
  }
  // The same rows as train, dev and test.
  void put_all(const std::string& end, const std::string& text) const {
    for (const char* split : {"train", "dev", "test"}) put(split + end, text);
  }
  TaskData task() const { return task_named(path.string()); }
  std::string why_not(const std::string& name = "") const {
    return error_of([&] { task_named(name.empty() ? path.string() : (path / name).string()); });
  }
};

// What stands behind "such as ".
std::string suggestion_in(const std::string& message) {
  const std::size_t at = message.find("such as {");
  REQUIRE(at != std::string::npos);
  return message.substr(at + 8);
}

}  // namespace

TEST_CASE("a header of GLUE's makes no GLUE of other labels") {
  const OwnFolder f;
  f.put_all(".tsv", "sentence\tlabel\nfine\tgood\nawful\tbad\n");
  CHECK_FALSE(is_published_folder(f.path));
  const std::string why = f.why_not();
  contains(why, "train.tsv:1: header 'sentence\tlabel'; need 'label' or 'score', then 'a'");
  f.put("task.json", suggestion_in(why));
  const TaskData task = f.task();
  CHECK(task.labels == std::vector<std::string>{"bad", "good"});
  CHECK(task.test.size() == 2);

  const OwnFolder numbers;
  for (const char* file : {"train.tsv", "dev.tsv"})  // a test.tsv with labels would be its own
    numbers.put(file, "sentence\tlabel\nfine\t1\nawful\t0\n");
  contains(numbers.why_not(),
           "2 rows; train of " + numbers.path.filename().string() +
               " has 67349. Was it cut off? It is read as GLUE's SST-2 by its header; a task.json "
               "describes other files");
  const OwnFolder late;
  std::string rows = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n";
  for (int i = 0; i < 40; ++i) rows += fmt::format("{}\t1\t2\ta {}\tb\n", i % 2, i);
  late.put_all(".tsv", rows + "2\t1\t2\ta\tb\n");
  contains(late.why_not(),
           "train.tsv:42: label '2'; the labels are 0, 1; it is read as GLUE's MRPC by its header");
}

TEST_CASE("a file, or a folder of files, is told how it becomes a task") {
  const OwnFolder f;
  f.put("train.csv", "id,text,label\n1,fine,yes\n2,awful,no\n");
  f.put("dev.csv", "id,text,label\n1,well,yes\n2,bad,no\n");
  f.put("test.csv", "id,text,label\n1,good,yes\n2,poor,no\n");
  const std::string of_file = f.why_not("train.csv"), of_folder = f.why_not();
  contains(of_file, "train.csv': it is a file; give its folder, with a task.json there, such as {");
  contains(of_folder, "it holds train.csv; write a task.json there, such as {");
  CHECK(suggestion_in(of_file) == suggestion_in(of_folder));
  CHECK(suggestion_in(of_file) ==
        R"({"format":"csv","train":"train.csv","dev":"dev.csv","test":"test.csv","a":"text",)"
        R"("label":"label"})");
  f.put("task.json", suggestion_in(of_folder));
  CHECK(f.task().labels == std::vector<std::string>{"no", "yes"});
  contains(f.why_not("train.csv"), "it is a file; give its folder, '" + f.path.string() + "'");

  const OwnFolder lines;
  lines.put("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
  CHECK(suggestion_in(lines.why_not()) ==
        R"({"format":"jsonl","train":"train.jsonl","kind":"language","prompt":"prompt",)"
        R"("continuation":"completion"})");
  const OwnFolder pairs;
  pairs.put("rows.csv", "\"premise\",hypothesis,score\n");
  CHECK(suggestion_in(pairs.why_not()) ==
        R"({"format":"csv","train":"rows.csv","kind":"regression","a":"premise",)"
        R"("b":"hypothesis","score":"score"})");
  const OwnFolder odd;
  odd.put("train.csv", "w1,w2\n");
  CHECK(suggestion_in(odd.why_not()) ==
        R"({"format":"csv","train":"train.csv","a":"w1","label":"w2"})");
  const OwnFolder none;
  none.put("notes.md", "nothing\n");
  contains(none.why_not(), "the folder holds no train.tsv and no task.json");
  contains(none.why_not("notes.md"), "it is a file; give a folder with a train.tsv or task.json");
  contains(error_of([] { task_named("nought"); }), "task 'nought': no folder with a train.tsv");

  f.put("task.json", R"({"format": "csv", "train": "train.csv", "text": "text"})");
  contains(f.why_not(),
           "nothing asks for 'text' in a task like this, which may have a, b, dev, format, kind, "
           "label, labels, metric, prefix, rows, test, train, words");
}

TEST_CASE("a score may have spaces around it, and a plus sign") {
  CHECK(data::score_of(" 1.5\r", "here") == 1.5f);
  CHECK(data::score_of("+2", "here") == 2);
  CHECK(data::score_of("-3e1", "here") == -30);
  for (const char* wrong : {"", "+", "+-1", "++1", "1,5", "nan", "inf", "1.5x"})
    contains(error_of([&] { (void)data::score_of(wrong, "here"); }),
             "here: score '" + std::string(wrong) + "' is not a finite number");
  const OwnFolder f;
  f.put_all(".tsv", "score\ta\n +1.5 \tone\n2\ttwo\n");
  const TaskData tsv = f.task();
  CHECK(tsv.train[0].score + tsv.train[1].score == 3.5f);
  f.put("all.csv", "score,a\n\" +1.5\",one\n2,two\n");
  f.put("task.json",
        R"({"format": "csv", "kind": "regression", "train": "all.csv", "dev": "all.csv",)"
        R"( "test": "all.csv"})");
  CHECK(f.task().train[0].score + f.task().train[1].score == 3.5f);
}

TEST_CASE("of JSON's rows the columns are read that the task names, whatever else they hold") {
  const OwnFolder f;
  const std::string one = R"({"text": "fine", "label": 1, "meta": {"x": [1]}, "url": null})",
                    two = R"({"label": 0, "text": "awful", "more": true})";
  const auto describe = [&](const std::string& end) {
    f.put("task.json", R"({"format": ")" + end + R"(", "a": "text", "train": "train.)" + end +
                           R"(", "dev": "dev.)" + end + R"(", "test": "test.)" + end + "\"}");
  };
  f.put_all(".jsonl", one + "\n" + two + "\n");
  f.put_all(".json", "[" + one + ", " + two + "]");
  for (const char* end : {"jsonl", "json"}) {
    describe(end);
    const TaskData task = f.task();
    CHECK(task.labels == std::vector<std::string>{"0", "1"});
    CHECK(task.train.size() == 2);
  }
  CHECK(read_unlabelled(f / "train.jsonl", {"text"}).at(1).a == "awful");
  f.put_all(".jsonl", one + "\n" + R"({"text": null, "label": 0})" + "\n");
  describe("jsonl");
  contains(f.why_not(), "train.jsonl:2: text is null; need a text or a number");
  f.put_all(".jsonl", one + "\n" + R"({"texts": "x", "label": 0})" + "\n");
  contains(f.why_not(), "train.jsonl:2: no key 'text'; there are texts, label");

  f.put_all(".json", R"([{"instruction": "Do.", "output": "done", "id": null},
                         {"instruction": "Go.", "input": null, "output": "gone"}])");
  f.put("task.json",
        R"({"format": "alpaca", "train": "train.json", "dev": "dev.json", "test": "test.json"})");
  const TaskData task = f.task();
  CHECK(task.train.size() == 2);
  for (const Example& e : task.train) CHECK(e.a.find("### Input") == std::string::npos);
}
