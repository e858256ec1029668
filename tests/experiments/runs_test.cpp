// Fine-tuning runs are pure functions of their settings: again, on other threads, in micro-batches,
// and killed and resumed they end with the same bits.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <set>

#include "experiments/runs/finetune.h"
#include "nn/files/atomic.h"
#include "peft/files.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

EncodedTask task_of(Goal goal, const Arch& arch) {
  EncodedTask task = encode_task(
      data(goal == Goal::regression ? TaskData::Kind::regression : TaskData::Kind::classification),
      tokenizer(), arch, {});
  task.goal = goal;
  if (goal == Goal::language) task.metric = "loss";
  if (goal == Goal::language && !task.text())
    for (auto* split : {&task.train, &task.dev, &task.test})
      for (EncodedExample& e : *split) e.prompt = 2;
  return task;
}

// A run from nothing: one base, one task, one spec.
struct Run {
  Stack stack = Stack::encoder;
  Goal goal = Goal::classification;
  bool both = false;  // an encoder-decoder instead of the one stack
  RunSpec spec{
      .method = "lora:r=2,on=q+v,dropout=0.1", .lr = 0.01, .epochs = 3, .batch = 4, .seed = 3};

  int positions = 32;

  Arch arch() const {
    Arch a = both ? text_arch() : arch_of(stack);
    if (!both) a.positions = positions;
    return a;
  }
  // Saves the adapter where the run's state is to be kept, too.
  RunResult saved(const RunPlaces& places) const {
    return (*this)(places, [&](Model&, Adaptation& adaptation, const EncodedTask&) {
      save_adapter(places.keep, spec.method, adaptation.parameters(), {});
    });
  }
  RunResult operator()(const RunPlaces& places = {}, const AtBest& at_best = {}) const {
    SmallModel base(arch());
    const std::uint64_t before = base.hash();
    const EncodedTask task = task_of(goal, base.arch());
    const RunResult result = finetune(base, task, spec, all_methods(), at_best, places);
    CHECK(base.hash() == before);
    return result;
  }
  std::uint64_t hash(const RunPlaces& places = {}) const { return (*this)(places).weights_hash; }
};

std::vector<Run> kinds_of_runs() {
  std::vector<Run> all(8);
  all[1].spec.method = "houlsby:m=3";
  all[1].goal = Goal::regression;
  all[2].spec.method = "full";
  all[2].spec.head = "dense";
  all[2].spec.pool = "cls";
  all[3].spec.method = "full";  // the tied embedding is used twice
  all[3].stack = Stack::decoder;
  all[3].goal = Goal::language;
  all[4].spec.method = "bitfit|lora:r=1,on=down";
  all[4].spec.optimizer = "adafactor";
  all[4].spec.lr = 0.03;  // so that learning shows through the noise of dropout at width 12
  all[4].stack = Stack::decoder;
  all[4].spec.pool = "last";
  all[5].spec.method = "lora:r=2,on=q+v+xq+xv,dropout=0.1";
  all[5].spec.lr = 0.03;  // as above
  all[6].spec.method = "houlsby:m=3,on=attn+cross+mlp";
  all[6].goal = Goal::regression;
  all[7].spec.method = "full:vocabulary=yes";
  all[7].goal = Goal::language;
  for (std::size_t i = 5; i < 8; ++i) all[i].both = true;
  return all;
}

struct Interrupted {};

}  // namespace

TEST_CASE("the same run twice has one weights hash; another seed or rate has another") {
  for (const Run& run : kinds_of_runs()) {
    CAPTURE(run.spec.method);
    const RunResult a = run(), b = run();
    CHECK(a.weights_hash == b.weights_hash);
    CHECK(a.dev == b.dev);
    CHECK(a.train_loss == b.train_loss);
    CHECK(a.test_predictions == b.test_predictions);
    CHECK(a.dev.size() == 3);
    CHECK(a.test_rows.size() == 6);
    CHECK(a.train_loss.back() < a.train_loss.front());
    Run other = run;
    other.spec.seed = 4;
    CHECK(other.hash() != a.weights_hash);
    other = run;
    other.spec.lr *= 1.01;
    CHECK(other.hash() != a.weights_hash);
  }
}

TEST_CASE("a run on one thread, two or three threads has one weights hash") {
  for (const Run& run : kinds_of_runs()) {
    std::set<std::uint64_t> hashes;
    for (const int n : {1, 2, 3}) {
      const Threads limit(n);
      hashes.insert(run.hash());
    }
    CHECK(hashes.size() == 1);
  }
}

TEST_CASE("micro-batches of any size and checkpointed blocks have the hash of the whole batch") {
  const Threads one(1);
  for (Run run : kinds_of_runs()) {
    CAPTURE(run.spec.method);
    const std::uint64_t whole = run.hash();
    for (const int micro : {1, 2, 3, 4, 7}) {
      CAPTURE(micro);
      run.spec.micro = micro;
      CHECK(run.hash() == whole);
    }
    for (const char* checkpoint : {"inner", "blocks"}) {
      run.spec.checkpoint = checkpoint;
      CHECK(run.hash() == whole);
    }
  }
}

TEST_CASE("a run interrupted at any step and resumed has the hash of the whole run") {
  const Threads one(1);
  for (Run run : kinds_of_runs()) {
    CAPTURE(run.spec.method);
    run.spec.epochs = 2;
    const RunResult whole = run();
    for (int stop = 1; stop <= 8; ++stop) {
      CAPTURE(stop);
      const Folder folder;
      int steps = 0, first = 0;
      RunPlaces places{folder / "state", 0, [&](int step, int, double) {
                         if (!first) first = step;
                         if (++steps == stop) throw Interrupted();
                       }};
      CHECK_THROWS_AS(run(places), Interrupted);
      first = 0;
      const RunResult resumed = run(places);
      CHECK(first == stop);  // the step under way when it was interrupted comes again
      CHECK(resumed.weights_hash == whole.weights_hash);
      CHECK(resumed.dev == whole.dev);
      CHECK(resumed.train_loss == whole.train_loss);
      CHECK(folder.entries() == 0);  // a run that is done leaves no state
    }
  }
}

TEST_CASE("a run that stopped after any epoch goes on from its adapter to the whole run's hash") {
  const Threads one(1);
  std::vector<Run> runs = kinds_of_runs();
  runs.resize(10, runs[0]);
  runs[8].spec.method = "prefix:length=2,mlp=yes,mid=3";
  runs[9].spec.method = "ptuning:template=2+a,encoder=lstm,hidden=3";
  runs[9].spec.optimizer = "sgd";
  runs[8].positions = runs[9].positions = 64;  // room for rows of their own
  for (const Run& run : runs) {
    CAPTURE(run.spec.method);
    const RunResult whole = run();
    for (const int stop : {1, 2}) {
      const Folder folder;
      RunPlaces first, then;
      first.stop_after = stop, first.keep = then.resume = folder / "adapter";
      const RunResult stopped = run.saved(first);
      CHECK(stopped.dev.size() == static_cast<std::size_t>(stop));
      const RunResult resumed = run(then);
      CHECK(resumed.weights_hash == whole.weights_hash);
      CHECK(resumed.dev == whole.dev);
      CHECK(resumed.train_loss == whole.train_loss);
      CHECK(resumed.test_predictions == whole.test_predictions);
    }
  }
}

TEST_CASE("a finished run goes on for more epochs where they would have had the same rates") {
  const Threads one(1);
  const Folder folder;
  Run run;
  run.spec.schedule = "constant", run.spec.warmup = 0, run.spec.epochs = 2;
  RunPlaces first, then;
  first.keep = then.resume = folder / "adapter";
  run.saved(first);
  contains(error_of([&] { run(then); }), "is finished: it did 2 of 2 epochs; give more --epochs");
  run.spec.epochs = 4;
  CHECK(run(then).weights_hash == run.hash());
  run.spec.lr = 0.02;
  contains(error_of([&] { run(then); }), "was trained with {");
  run.spec.lr = 0.01, run.goal = Goal::regression;
  contains(error_of([&] { run(then); }), "belongs to a run on base");

  Run linear;
  linear.spec.epochs = 2;
  linear.saved(first);
  linear.spec.epochs = 4;
  contains(error_of([&] { linear(then); }),
           "was trained for 2 epochs; a linear schedule over 4 has other rates from its step");
}

TEST_CASE("a run killed at random moments and resumed has the hash of the whole run") {
  const Threads one(1);
  Run run;
  run.spec.epochs = 12;
  const std::uint64_t whole = run.hash();
  const Folder folder;
  std::mt19937 random(5);
  int resumed = 0;
  for (int kills = 0;; ++kills) {
    REQUIRE(kills < 200);
    if (fs::exists(folder / "state")) ++resumed;
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // no doctest in here: it writes its hash, or dies
      ::close(pipe[0]);
      const RunPlaces places{folder / "state", 0, [&](int, int, double) {
                               if (::write(pipe[1], ".", 1) != 1) ::_exit(1);
                             }};
      SmallModel base(arch_of(run.stack));
      const EncodedTask task = task_of(run.goal, base.arch());
      const RunResult result = finetune(base, task, run.spec, all_methods(), {}, places);
      std::ofstream(folder / "hash") << result.weights_hash << std::flush;
      ::_exit(0);
    }
    ::close(pipe[1]);
    char step;  // kills it some steps on, anywhere within the next one or its checkpoint
    for (auto left = 1 + random() % 6; left > 0 && ::read(pipe[0], &step, 1) == 1; --left) continue;
    ::usleep(static_cast<useconds_t>(random() % 4000));
    ::kill(child, SIGKILL);
    ::close(pipe[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status)) {
      REQUIRE(WEXITSTATUS(status) == 0);
      break;
    }
  }
  CHECK(resumed >= 3);
  CHECK(read_file(folder / "hash") == std::to_string(whole));
}

TEST_CASE("the state of another run is refused, and stays") {
  const Folder folder;
  Run run;
  const RunPlaces stops{folder / "state", 0, [](int step, int, double) {
                          if (step == 3) throw Interrupted();
                        }};
  CHECK_THROWS_AS(run(stops), Interrupted);
  const std::string before = read_file(folder / "state");
  run.spec.lr = 0.02;
  contains(error_of([&] { run({folder / "state", 0, {}}); }), "belongs to another run");
  run = Run{};
  SmallModel other(arch_of(Stack::encoder), Dtype::f32, 0.1);
  EncodedTask task = task_of(Goal::classification, other.arch());
  const RunPlaces places{folder / "state", 0, {}};
  contains(error_of([&] { finetune(other, task, run.spec, all_methods(), {}, places); }),
           "belongs to a run on base");
  SmallModel same(arch_of(Stack::encoder));
  task.train.pop_back();
  contains(error_of([&] { finetune(same, task, run.spec, all_methods(), {}, places); }),
           "this one is on base");
  CHECK(read_file(folder / "state") == before);
}

TEST_CASE("a loss that is not a number is an error, and the base is as it was") {
  SmallModel base(arch_of(Stack::encoder));
  const std::uint64_t before = base.hash();
  const EncodedTask task = task_of(Goal::classification, base.arch());
  for (const char* method : {"lora:r=2", "full"}) {
    RunSpec spec{.method = method, .schedule = "constant", .lr = 1e30, .warmup = 0, .epochs = 3};
    const std::string message = error_of([&] { finetune(base, task, spec, all_methods()); });
    contains(message, "lower the rate");
    CHECK(base.hash() == before);
  }
  const RunSpec good{.method = "lora:r=2", .epochs = 1};
  CHECK(std::isfinite(finetune(base, task, good, all_methods()).train_loss[0]));
}

TEST_CASE("scores that are no numbers are an error that names the row, not an answer") {
  SmallModel base(arch_of(Stack::encoder));
  const EncodedTask task = task_of(Goal::classification, base.arch());
  std::vector<float> into{0, 0};
  for (const float bad : {NAN, INFINITY}) {
    const Tensor scores(Array::of(std::vector<float>{1, 2, 3, 1, bad, 3}, {2, 3}));
    contains(error_of([&] { append_predictions(task, scores, into); }),
             fmt::format("row 3: a score is {}; the base, the head or the adapter", bad));
    into.resize(2);
  }
  base.set_head(make_head(task, {}, base));
  base.each([](Weight& w) { w.parameter().value = Tensor(Array::full(w.value().shape(), NAN)); });
  contains(error_of([&] { evaluate(base, task, task.test); }), "row 0: a score is nan");
}

TEST_CASE("a run's settings go through JSON and back; what is not one is an error") {
  RunSpec spec{.method = "bitfit", .head = "dense", .lr = 0.5, .micro = 3, .seed = 9};
  CHECK(RunSpec::from(spec.json()).json() == spec.json());
  contains(error_of([] { RunSpec::from({{"rate", 1}}); }), "unknown key 'rate'");
  contains(error_of([] { RunSpec::from({{"lr", "high"}}); }), "key 'lr' has the wrong type");
  contains(error_of([] { RunSpec::from({{"lr", 0}}); }), "lr 0");
  contains(error_of([] { RunSpec::from({{"epochs", 0}}); }), "epochs 0");
  contains(error_of([] { RunSpec::from(nlohmann::json::array()); }), "not a JSON object");
  Run run;
  run.spec.head = "round";
  contains(error_of([&] { run(); }), "linear, dense, cloze and family");
  run.spec.head = "linear", run.spec.pool = "max";
  contains(error_of([&] { run(); }), "mean, cls and last");
  run.spec.pool = "mean", run.spec.optimizer = "adam";
  contains(error_of([&] { run(); }), "adamw, sgd and adafactor");
}

TEST_CASE("an encoder-decoder's head is text by standard, and no other; text is no other's") {
  const Arch both = text_arch(), encoder = arch_of(Stack::encoder);
  CHECK(RunSpec{}.on(both).head == "text");
  CHECK(RunSpec{.head = "text"}.on(both).head == "text");
  CHECK(RunSpec{}.on(encoder).head == "linear");
  CHECK(RunSpec{.head = "dense"}.on(encoder).head == "dense");
  for (const char* head : {"linear", "dense", "cloze"})
    contains(error_of([&] { RunSpec{.head = head}.on(both); }),
             fmt::format("head={}: an encoder-decoder (t5) answers in text", head));
  contains(error_of([&] { RunSpec{.pool = "cls"}.on(both); }), "pool=cls: an encoder-decoder");
  contains(error_of([&] { RunSpec{.head = "text"}.on(encoder); }), "there are linear, dense");
  Run run;
  run.both = true, run.spec.head = "linear";
  contains(error_of([&] { run(); }), "head=linear: an encoder-decoder");
  run.spec.head = "", run.spec.method = "head";
  contains(error_of([&] { run(); }), "an encoder-decoder has no head of its own");
  SmallModel base(both);
  const EncodedTask other = task_of(Goal::classification, arch_of(Stack::decoder));
  contains(error_of([&] { finetune(base, other, {}, all_methods()); }), "another kind of model");
}

TEST_CASE("a batch is its examples in order; language labels tell each token by those before it") {
  const EncodedTask task = task_of(Goal::language, arch_of(Stack::decoder));
  const Batch b = make_batch(task, task.train, {4, 1, 0, 2}, 1, 2);
  CHECK(b.sequences() == 2);
  CHECK(b.example == std::vector<std::uint32_t>{task.train[1].id, task.train[0].id});
  std::size_t at = 0;
  for (const int which : {1, 0}) {
    const auto& token = task.train[static_cast<std::size_t>(which)].token;
    for (std::size_t i = 0; i < token.size(); ++i, ++at) {
      CHECK(b.token[at] == token[i]);
      CHECK(b.token_label[at] == (i + 1 < token.size() && i + 1 >= 2 ? token[i + 1] : -1));
    }
  }
  CHECK(at == b.token.size());
  std::vector<std::int32_t> order = shuffled(50, 1, 2);
  CHECK(order == shuffled(50, 1, 2));
  CHECK(order != shuffled(50, 1, 3));
  CHECK(order != shuffled(50, 2, 2));
  std::sort(order.begin(), order.end());
  for (std::int32_t i = 0; i < 50; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}
