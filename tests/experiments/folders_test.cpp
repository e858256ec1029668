// Folders and files that commands write: who may, how runs go on in them, and that nothing is
// computed for what cannot be written or read.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/runs/out_folder.h"
#include "experiments/runs/step_log.h"
#include "nn/files/atomic.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;

namespace {

// With the exit status of a command that was understood, and one line.
void fails_by(const Bases& b, const std::string& arguments, const std::string& why) {
  const Said s = b.says(arguments);
  CAPTURE(arguments);
  CAPTURE(s.text);
  CHECK(s.status != 0);
  contains(s.text, why);
  CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
  CHECK(s.text.size() < 500);
}

struct CutOff {};

}  // namespace

TEST_CASE("one process at a time writes to a folder, and a killed one leaves it free") {
  const Bases b({"gpt2"});
  const fs::path out = b.folder / "two";
  const std::string busy = "another graft is writing to '" + out.string() + "'";
  const std::string train = "train --model gpt2 --task " + b.task("beasts") + kShort +
                            "--method lora:r=1,on=q --out " + b.out("two");
  {
    const OutFolder held("train", out);
    contains(error_of([&] { OutFolder("train", out); }), "train: " + busy);
    fails_by(b, train, "train: " + busy);
    fails_by(b, "multitask --model gpt2 --tasks beasts,beasts --out " + b.out("two"), busy);
    CHECK(fs::exists(out));  // it is the other's, empty as it is
  }
  CHECK_FALSE(fs::exists(out));
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const OutFolder held("train", out);
    const bool told = ::write(ready[1], "x", 1) == 1;
    while (told) {
      if (::pause() == 0) break;  // it never is
    }
    ::_exit(1);
  }
  REQUIRE(child > 0);
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  contains(error_of([&] { OutFolder("train", out); }), busy);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]), ::close(ready[1]);
  contains(b.hears(train), "adapter in ");
  for (const auto& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string();
    CHECK((name == "adapter" || name == "run.json"));  // no file of a lock
  }
}

TEST_CASE("a log may be asked for when a run goes on, and begins there") {
  const Bases b({"gpt2"});
  const std::string train = "train --model gpt2 --task " + b.task("beasts") +
                            " --method lora:r=1,on=q --lr 1e-3 --batch 4 --epochs 2";
  b.hears(train + " --stop-after 1 --out " + b.out("half"));
  const std::string said = b.hears("train --resume " + b.out("half/adapter") + " --out " +
                                   b.out("rest") + " --log " + b.out("log"));
  contains(said, "log' is new: it begins at step 4");
  std::ifstream in(b.folder / "log");
  int step = 4;
  for (std::string line; std::getline(in, line); ++step)
    CHECK(nlohmann::json::parse(line).at("step") == step);
  CHECK(step == 8);

  const fs::path log = b.folder / "steps";
  const auto note = [&](int at) {
    StepLog opened(log);
    opened({at, 0, 1, 1, 1, {}});
  };
  note(5), note(6), note(7);
  const std::string three = read_file(log);
  note(6), note(7);  // cut off and resumed
  CHECK(read_file(log) == three);
  contains(error_of([&] { note(9); }), "has 3 of the 4 steps before");
  contains(error_of([&] { note(3); }), "begins at step 5, this run goes on at 3");
  CHECK(read_file(log) == three);
  note(0);
  CHECK(std::ranges::count(read_file(log), '\n') == 1);
}

TEST_CASE("a run that cannot go on says which settings differ, and the way out") {
  const Threads one(1);
  const Folder folder;
  const Arch arch = arch_of(Stack::encoder);
  SmallModel base(arch);
  EncodedTask task = encode_task(data(), tokenizer(), arch, {});
  RunSpec spec{.method = "lora:r=2,on=q", .lr = 0.01, .epochs = 2, .batch = 4};
  RunPlaces places{folder / "state", 0, [](int step, int, double) {
                     if (step == 3) throw CutOff();
                   }};
  CHECK_THROWS_AS(finetune(base, task, spec, all_methods(), {}, places), CutOff);
  places.progress = {};
  const std::string before = read_file(folder / "state");
  spec.lr = 0.02, spec.seed = 7;
  const std::string why = error_of([&] { finetune(base, task, spec, all_methods(), {}, places); });
  contains(why, "belongs to another run: lr: 0.01, seed: 0 there, lr: 0.02, seed: 7 here");
  contains(why, "give another --out, or remove that file to begin anew");
  CHECK(why.find("epochs") == std::string::npos);
  spec.lr = 0.01, spec.seed = 0;
  EncodedTask fewer = task;
  fewer.train.pop_back();
  contains(error_of([&] { finetune(base, fewer, spec, all_methods(), {}, places); }),
           "(other: task); give another --out");
  CHECK(read_file(folder / "state") == before);
  task.name = "of another name";  // the rows count
  CHECK(finetune(base, task, spec, all_methods(), {}, places).dev.size() == 2);

  spec.epochs = 2'000'000'000;
  contains(error_of([&] { finetune(base, task, spec, all_methods()); }),
           "2000000000 epochs of 4 steps are 8000000000 steps; need 2147483647 at most");
}

TEST_CASE("what cannot be read or written is found before anything is computed") {
  const Bases b({"gpt2", "bert"});
  const auto put = [&](const char* name, const std::string& text) {
    write_file_atomically(b.folder / name, text);
    return b.out(name);
  };
  const std::string good = put("good", "the wolf\nthe hare\n"),
                    bad = put("bad", "the wolf\nthe h\xffre\n"),
                    empty = put("empty", "the wolf\n \nthe hare\n"),
                    zero = put("zero", std::string("a\n\0b\n", 5));
  const std::string embed = "embed --model gpt2 --text ", to = " --out " + b.out("rows");
  fails_by(b, embed + bad + to, "bad:2: byte 6 is not valid UTF-8");
  fails_by(b, embed + zero + to, "zero:2: a zero byte");
  fails_by(b, embed + good + " --out " + b.out("no/where"), "no/where");
  fails_by(b, embed + good + " --out " + b.out("bert"), "bert");
  CHECK_FALSE(fs::exists(b.folder / "rows"));
  // An encoder marks each text, so an empty line is one, too.
  b.hears("embed --model bert --text " + empty + to);
  CHECK(SafetensorsReader(b.folder / "rows").at("embeddings").shape[0] == 3);
  const std::string generate = "generate --model gpt2 --max-tokens 2 --prompt-file ";
  fails_by(b, generate + bad, "bad:2: byte 6 is not valid UTF-8");
  fails_by(b, generate + b.out("bert"), "cannot read");
  b.hears(generate + good);

  fails_by(b, "train --model bert --task " + b.task("beasts") + to + " --state-seconds -1",
           "-1 given; need 0 or more");
}

TEST_CASE("of several adapters' answers each shows whose it is") {
  const Bases b({"gpt2"});
  for (const std::string name : {"one", "two"})
    b.hears("train --model gpt2 --max-tokens 40 --task " + b.task("stories") + kShort +
            "--method lora:r=1,on=q --out " + b.out(name));
  const std::string said = b.hears(
      "generate --adapter a=" + b.out("one/adapter") + " --adapter b=" + b.out("two/adapter") +
      " --max-tokens 2 --prompt 'a\twolf' --prompt 'b\twolf'" + " --prompt 'base\twolf'");
  for (const char* shown : {"a: wolf\n  -> ", "b: wolf\n  -> ", "base: wolf\n  -> "})
    contains(said, shown);
}
