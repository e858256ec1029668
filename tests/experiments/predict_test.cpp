// graft predict: rows without labels.
#include <doctest/doctest.h>

#include <cmath>
#include <sstream>

#include "experiments/data/metrics.h"
#include "experiments/data/task_folders.h"
#include "nn/files/atomic.h"
#include "peft/files.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) all.push_back(json::parse(line));
  return all;
}

TaskData paired(TaskData task) {
  task.pair = true;
  for (auto* split : {&task.train, &task.dev, &task.test})
    for (Example& e : *split) e.b = sentence(e.id + 3);
  return task;
}

// The test split's texts as a file of columns without labels.
void write_rows(const TaskData& task, const fs::path& file, const std::string& a,
                const std::string& b) {
  std::string text = "number\t" + a + (task.pair ? "\t" + b : "") + "\n";
  for (const Example& e : task.test)
    text += std::to_string(e.id) + "\t" + e.a + (task.pair ? "\t" + e.b : "") + "\n";
  write_file_atomically(file, text);
}

// What share of the answers is right, as `graft eval` prints it.
std::string accuracy_of(const TaskData& task, const std::vector<json>& answers) {
  REQUIRE(answers.size() == task.test.size());
  double right = 0;
  for (std::size_t i = 0; i < answers.size(); ++i)
    right += answers[i].at("label") == task.labels[static_cast<std::size_t>(task.test[i].label)];
  return fmt::format("test accuracy {:.4f} on ", right / double(answers.size()));
}

}  // namespace

TEST_CASE("predict gives each row of any file its label, without the task's folder") {
  const Bases b({"bert"});
  const TaskData task = data();
  const std::string adapter = b.out("run/adapter");
  b.hears("train --model bert --task " + b.task("beasts") +
          " --method lora:r=2,on=q+v --epochs 6 --lr 1e-2 --batch 4 --out " + b.out("run"));
  const std::string eval = b.hears("eval " + adapter);
  contains(eval, "; f1 ");
  contains(eval, ", matthews ");
  fs::remove_all(b.folder / "beasts");

  write_rows(task, b.folder / "rows.tsv", "a", "b");
  std::string txt, csv = "a,other\n", jsonl;
  for (const Example& e : task.test) {
    txt += e.a + "\r\n", csv += '"' + e.a + "\",1\n";
    jsonl += json{{"zero", 0}, {"a", e.a}}.dump() + "\n";
  }
  write_file_atomically(b.folder / "rows.txt", txt);
  write_file_atomically(b.folder / "rows.csv", csv);
  write_file_atomically(b.folder / "rows.jsonl", jsonl);
  const std::string said = b.hears("predict " + adapter + " --rows " + b.out("rows.tsv"));
  const std::vector<json> answers = lines_of(said);
  contains(eval, accuracy_of(task, answers));
  for (const json& answer : answers) {
    double sum = 0, most = 0;
    for (const auto& [label, share] : answer.at("probabilities").items())
      sum += share.get<double>(), most = std::max(most, share.get<double>());
    CHECK(std::abs(sum - 1) < 1e-5);
    CHECK(answer.at("probability") == most);
    CHECK(answer.at("probabilities").at(answer.at("label").get<std::string>()) == most);
  }
  for (const char* file : {"rows.txt", "rows.csv", "rows.jsonl"})
    CHECK(b.hears("predict " + adapter + " --rows " + b.out(file)) == said);

  contains(b.hears("predict " + adapter + " --rows " + b.out("rows.tsv") + " --format tsv --out " +
                   b.out("answers.tsv")),
           "6 rows in ");
  const std::string tsv = read_file(b.folder / "answers.tsv");
  CHECK(tsv.starts_with("index\tprediction\n0\tnoun."));
  CHECK(std::count(tsv.begin(), tsv.end(), '\n') == 7);
}

TEST_CASE("predict reads pairs by the columns of training, or as it is told") {
  const Bases b({"bert"});
  const TaskData task = paired(data());
  write_tsv_task(task, b.folder / "pairs");
  const std::string adapter = b.out("run/adapter");
  b.hears("train --model bert --task " + b.task("pairs") + " --method houlsby:m=2" + kShort +
          "--out " + b.out("run"));
  write_rows(task, b.folder / "rows.tsv", "a", "b");
  write_rows(task, b.folder / "named.tsv", "left", "right");
  const std::string said = b.hears("predict " + adapter + " --rows " + b.out("rows.tsv"));
  contains(b.hears("eval " + adapter), accuracy_of(task, lines_of(said)));
  CHECK(b.hears("predict " + adapter + " --a left --b right --rows " + b.out("named.tsv")) == said);
  CHECK(b.hears("predict " + adapter + " --a right --b left --rows " + b.out("named.tsv")) != said);
  const Said unnamed = b.says("predict " + adapter + " --rows " + b.out("named.tsv"));
  CHECK(unnamed.status == 1);
  contains(unnamed.text, "no column 'a'; there are number, left, right");
}

TEST_CASE("predict: values, an encoder-decoder's answers, cloze words, a model's own head") {
  const Bases b({"bert"});
  const Shelf shelf;
  const TaskData task = data(), scores = data(TaskData::Kind::regression);
  write_tsv_task(scores, b.folder / "scores");
  write_rows(task, b.folder / "rows.tsv", "a", "b");
  const std::string rows = " --rows " + b.out("rows.tsv");
  const auto trained = [&](const std::string& base, const std::string& of,
                           const std::string& more) {
    const std::string out = b.out("run" + of + more.substr(0, more.find(' ')));
    b.hears("train --model '" + base + "' --task " + b.task(of) + " --method lora:r=2,on=q+v " +
            more + kShort + "--out " + out);
    return out.substr(0, out.size() - 1) + "/adapter'";
  };
  const auto bert = (b.folder / "bert").string(), t5 = (shelf.folder / "t5").string();
  for (const std::string& base : {bert, t5}) {
    const std::string adapter = trained(base, "scores", base == t5 ? "" : "--pool=cls");
    const auto answers = lines_of(b.hears("predict " + adapter + rows));
    REQUIRE(answers.size() == 6);
    std::vector<float> truth, values;
    for (std::size_t i = 0; i < 6; ++i)
      truth.push_back(scores.test[i].score), values.push_back(answers[i].at("value"));
    contains(b.hears("eval " + adapter),
             fmt::format("test pearson {:.4f} on ", pearson(truth, values)));
  }
  const std::string text = trained(t5, "beasts", "");
  const std::string cloze = trained(bert, "beasts", "--head=cloze");
  for (const std::string& adapter : {text, cloze}) {
    const std::string eval = b.hears("eval " + adapter);
    contains(eval, accuracy_of(task, lines_of(b.hears("predict " + adapter + rows))));
  }

  b.hears("train --model '" + bert + "' --task " + b.task("beasts") +
          " --method full --head family" + kShort + "--out " + b.out("whole"));
  const std::string own = b.hears("predict --model " + b.out("whole/model") + rows);
  CHECK(own == b.hears("predict " + b.out("whole/adapter") + rows));
}

TEST_CASE("predict says what is wrong with its rows") {
  const Bases b({"gpt2"});
  const std::string adapter = b.out("run/adapter");
  b.hears("train --model gpt2 --task " + b.task("beasts") + " --method ia3" + kShort + "--out " +
          b.out("run"));
  b.hears("train --model gpt2 --task " + b.task("stories") + " --method ia3" + kShort + "--out " +
          b.out("told"));
  write_file_atomically(b.folder / "rows.txt", "the wolf\n\nthe hare\n");
  write_file_atomically(b.folder / "rows.md", "the wolf\n");
  write_file_atomically(b.folder / "none.txt", "");
  write_file_atomically(b.folder / "good.txt", "the wolf\n");
  const auto fails = [&](const std::string& arguments, const std::string& why) {
    const Said s = b.says("predict " + arguments);
    CAPTURE(s.text);
    CHECK(s.status == 1);
    contains(s.text, why);
    CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
  };
  fails(adapter + " --rows " + b.out("rows.txt"),
        "rows.txt:2: the line is empty; each line is a row");
  fails(adapter + " --rows " + b.out("rows.md"), "ends in .csv, .tsv, .jsonl, .json or .txt");
  fails(adapter + " --rows " + b.out("none.txt"), "no rows");
  fails(adapter + " --rows " + b.out("lost.txt"), "lost.txt");
  fails(adapter + " --b x --rows " + b.out("good.txt"), "was trained on single texts");
  fails("--rows " + b.out("good.txt"), "give an adapter's folder, or --model FOLDER");
  fails("--model gpt2 --rows " + b.out("good.txt"), "has no head for whole texts");
  fails(b.out("told/adapter") + " --rows " + b.out("good.txt"), "graft generate does");
  fails(adapter + " --rows " + b.out("good.txt") + " --out " + b.out("no/where"), "no/where");
}

TEST_CASE("f1 is of the second class, and a task's metric is checked before its training") {
  const std::vector<int> truth{1, 1, 0, 0, 1}, guess{1, 0, 1, 0, 1};
  CHECK(f1(truth, guess) == doctest::Approx(4.0 / 6));
  CHECK(f1(guess, truth) == f1(truth, guess));
  const std::vector<int> none{0, 0};
  CHECK(f1(none, none) == 0);
  const std::vector<int> three{2, 0};
  contains(error_of([&] { (void)f1(three, none); }), "of two classes");
  check_metric("f1", 2), check_metric("pearson", 0), check_metric("matthews", 9);
  contains(error_of([] { check_metric("f1", 3); }), "these are 3");
  contains(error_of([] { check_metric("accuracy", 0); }), "does not score values");
  contains(error_of([] { check_metric("spearman", 2); }), "does not score classes");
}
