// graft multitask as its user runs it: train, score, replay, add a task, and what is refused.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "nn/files/atomic.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;

namespace {

// The bases' texts again, told apart by how long they are.
TaskData lengths() {
  TaskData t = data();
  t.labels = {"short", "middle", "long"};
  for (auto* split : {&t.train, &t.dev, &t.test})
    for (Example& e : *split) e.label = static_cast<int>(e.a.size() / 9 % 3);
  return t;
}

struct Two : Bases {
  Two() : Bases({"esm"}) { write_tsv_task(lengths(), folder.path / "lengths"); }
  std::string tasks() const {
    return " --tasks '" + (folder.path / "beasts").string() + "," +
           (folder.path / "lengths").string() + "'";
  }
};

constexpr const char* kMethod = "hyperformer++:t=4,hidden=6,i=4,m=2,std=0.1";

// What stands between two words, from the first occurrence of `from`.
std::string between(const std::string& text, const std::string& from, const std::string& to) {
  const std::size_t begin = text.find(from);
  REQUIRE(begin != std::string::npos);
  const std::size_t end = text.find(to, begin + from.size());
  return text.substr(begin + from.size(), end - begin - from.size());
}

}  // namespace

TEST_CASE("graft multitask trains two tasks; each is scored, replayed and compared by itself") {
  const Two b;
  const std::string text = b.hears("multitask --model esm" + b.tasks() + " --method " + kMethod +
                                   kShort + "--weights gradnorm --alone --rule layers=0,lr=0.5" +
                                   " --rule task=beasts,dropout=0.1 --out " + b.out("run"));
  contains(text, "sharing");
  for (const char* task : {"beasts", "lengths"}) {
    const std::string of_task = text.substr(text.find(std::string(task) + ": "));
    const std::string test = between(of_task, ", test ", ";");
    contains(b.hears("eval " + b.out("run/adapters/" + std::string(task))), test + " on");
  }
  const Said written = b.says("eval " + b.out("run/adapters/beasts") + " --generate");
  CHECK(written.status != 0);
  contains(written.text, "beasts has labels, not texts to write");
  CHECK(std::ranges::count(written.text, '\n') == 1);  // and no score before it
  contains(b.hears("replay " + b.out("run/run.json")), "the same bits: weights");
  const Said again = b.says("multitask --model esm" + b.tasks() + " --out " + b.out("run"));
  CHECK(again.status != 0);
  contains(again.text, "is a finished run; give another --out");
}

TEST_CASE("a multitask run killed in the runs alone keeps what is done, and tells their length") {
  const Two b;
  // tasks= is the joint run's; alone a task is by itself
  const std::string run = "multitask --model esm" + b.tasks() + " --method '" + kMethod +
                          std::string(",tasks=2'") + kShort + "--alone --out " + b.out("run");
  const std::string whole = b.hears(run);
  const auto record = [&] {
    return nlohmann::json::parse(read_file(b.folder.path / "run" / "run.json"));
  };
  nlohmann::json done = record();
  for (const auto& of : done.at("of_tasks")) {
    CHECK(of.at("seen") == of.at("steps").get<int>() * 4);
    CHECK(of.at("alone_epochs") ==
          std::max<long>(1, std::lround(of.at("seen").get<double>() / 13)));
  }
  // As a kill in the second run alone leaves it.
  nlohmann::json half = done;
  for (const char* key : {"alone", "alone_epochs", "alone_hash", "sharing"})
    half["of_tasks"][1].erase(key);
  half["of_tasks"][0]["alone"] = 0.25;  // a number that no new run would give
  fs::remove(b.folder.path / "run" / "run.json");
  write_file_atomically(b.folder.path / "run" / "joint.json", half.dump());
  const Said other = b.says(run + " --seed 5");
  CHECK(other.status == 1);
  contains(other.text, "is of another run: its run is ");
  const std::string again = b.hears(run);
  contains(again, "the joint run is done already");
  CHECK(record().at("of_tasks")[0].at("alone") == 0.25);
  CHECK(record().at("of_tasks")[1] == done.at("of_tasks")[1]);
  CHECK(record().at("weights_hash") == done.at("weights_hash"));
  CHECK(!fs::exists(b.folder.path / "run" / "joint.json"));
  contains(b.hears("replay " + b.out("run/run.json")), "the same bits");
}

TEST_CASE("graft train adds a task to a saved adapter by its embedding alone") {
  const Two b;
  b.hears("multitask --model esm" + b.tasks() + " --method " + kMethod + kShort + "--out " +
          b.out("run"));
  const std::string init = "train --model esm --init " + b.out("run/adapters/beasts") + " --task " +
                           b.task("beasts") + kShort;
  const std::string text =
      b.hears(init + "--method " + kMethod + ",tasks=2,new=1 --out " + b.out("third"));
  contains(text, "trainable params: 4 (");
  contains(b.hears("eval " + b.out("third/adapter")), "on 6 examples");
  contains(b.hears("replay " + b.out("third/run.json")), "the same bits");
  // A description in words takes the place of training it.
  const std::string told = "hyperformer++:task=described,hidden=6,i=4,m=2,std=0.1";
  contains(b.hears("train --model esm --task " + b.task("beasts") + kShort + "--method '" + told +
                   ",text=which beast is it' --out " + b.out("told")),
           "trainable params");
  contains(b.hears("eval " + b.out("told/adapter")), "on 6 examples");
}

TEST_CASE("graft multitask ends with one line where it cannot be done") {
  const Two b;
  const auto refused = [&](const std::string& arguments, const std::string& why) {
    const Said s = b.says("multitask --model esm --out " + b.out("none") + " " + arguments);
    CAPTURE(arguments);
    CHECK(s.status != 0);
    contains(s.text, why);
    CHECK(std::ranges::count(s.text, '\n') == 1);
  };
  refused("--tasks " + b.task("beasts"), "1 task; need two or more");
  refused("--tasks beasts,", "task 'beasts'");
  refused(b.tasks() + " --weights even", "weights 'even' are unknown");
  refused(b.tasks() + " --weights pcgrad --sampling one", "sampling=one goes with uniform alone");
  refused(b.tasks() + " --query .1", "--query with weights uniform, which do not read it");
  refused(b.tasks() + " --gradnorm-alpha 1.5", "it is of gradnorm");
  refused(b.tasks() + " --weights pcgrad --weight-rate .1", "--weight-rate with weights pcgrad");
  refused(b.tasks() + " --weights gradnorm --weight-rate 0", "--weight-rate 0; need above 0");
  refused(b.tasks() + " --temperature 0", "temperature 0; need above 0");
  refused(b.tasks() + " --rule task=birds,lr=2", "no task is called 'birds'");
  refused(b.tasks() + " --method hyperformer++:tasks=3", "but there are 2 tasks");
  refused(b.tasks() + " --method head", "nothing that tasks share");
}
