// Runs over several tasks: pure functions of their settings, whatever the weights; killed and
// resumed the same bits; tasks that come later; what is said of wrong settings.
#include "experiments/runs/multitask.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "experiments/runs/start.h"
#include "peft/files.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

// Two tasks on the same texts: which kind is named, and how long the text is (three classes).
std::vector<EncodedTask> two_tasks(const Arch& arch) {
  TaskData kinds = data(), lengths = data();
  lengths.name = "lengths";
  lengths.labels = {"short", "middle", "long"};
  for (auto* split : {&lengths.train, &lengths.dev, &lengths.test})
    for (Example& e : *split) e.label = static_cast<int>(e.a.size() / 9 % 3);
  std::ranges::reverse(lengths.train);
  lengths.train.resize(7);
  return {encode_task(kinds, tokenizer(), arch, {}), encode_task(lengths, tokenizer(), arch, {})};
}

struct Run {
  Arch arch = arch_of(Stack::encoder);
  MultitaskSpec spec{.run = {.method = "hyperformer++:t=4,hidden=6,i=4,m=2,std=0.1",
                             .lr = 0.01,
                             .epochs = 2,
                             .batch = 6,
                             .seed = 3}};
  MultitaskResult operator()(const RunPlaces& places = {}, const AtBestOfTask& at_best = {}) const {
    SmallModel base(arch);
    const std::uint64_t before = base.hash();
    const MultitaskResult r =
        multitask(base, two_tasks(arch), spec, all_methods(), at_best, places);
    CHECK(base.hash() == before);
    CHECK_FALSE(base.has_head());
    return r;
  }
};

const std::vector<std::string> kWeights{"uniform", "uncertainty", "gradnorm", "pcgrad",
                                        "metaweighting"};

struct Interrupted {};

}  // namespace

TEST_CASE("one adapter learns two tasks with a head each, and every way of weighing repeats") {
  const Threads one(1);
  std::set<std::uint64_t> hashes;
  for (const std::string& weights : kWeights) {
    CAPTURE(weights);
    Run run;
    run.spec.weights = weights;
    const MultitaskResult a = run(), b = run();
    CHECK(a.weights_hash == b.weights_hash);
    hashes.insert(a.weights_hash);
    REQUIRE(a.tasks.size() == 2);
    CHECK(a.tasks[0].name == "beasts");
    CHECK(a.tasks[0].head == 12 * 2 + 2);
    CHECK(a.tasks[1].head == 12 * 3 + 3);
    CHECK(a.tasks[0].dev.size() == 2);
    CHECK(a.tasks[1].test_rows.size() == 6);
    CHECK(a.tasks[0].test_predictions == b.tasks[0].test_predictions);
    // 13 and 7 rows, of which metaweighting holds out one each, in batches of 6: 4 or 3 an epoch.
    const int steps = 2 * (weights == "metaweighting" ? 3 : 4);
    if (weights == "uniform") {  // a step is of one task
      CHECK(a.tasks[0].steps + a.tasks[1].steps == steps);
    } else {
      CHECK(a.tasks[0].steps == steps);
      CHECK(a.tasks[1].steps == steps);
    }
    CHECK((a.tasks[0].weight.back() == a.tasks[1].weight.back()) ==
          (weights == "uniform" || weights == "pcgrad"));
  }
  CHECK(hashes.size() == kWeights.size());
}

TEST_CASE("the loss of both tasks falls") {
  const Threads one(1);
  for (const char* method : {"lora:r=4,on=q+v", "hyperformer++:t=4,hidden=6,i=4,m=2,std=0.1"}) {
    Run run;
    run.spec.run.method = method;
    run.spec.sampling = "all";
    run.spec.run.epochs = 20;
    run.arch.dropout = 0;
    const MultitaskResult r = run();
    CHECK(r.train_loss.back() < 0.95 * r.train_loss.front());
  }
}

TEST_CASE("killed after any step and resumed, a run over tasks ends with the same bits") {
  const Threads one(1);
  for (const std::string& weights : kWeights) {
    CAPTURE(weights);
    Run run;
    run.spec.weights = weights;
    run.spec.rules = {"task=lengths,layers=0,lr=0.5,dropout=0.2,pull=0.1", "decay=0.05"};
    const MultitaskResult whole = run();
    for (const int stop : {1, 3, 5}) {
      CAPTURE(stop);
      const Folder folder;
      RunPlaces places;
      places.state = folder / "state.safetensors", places.state_seconds = 0;
      places.progress = [&](int step, int, double) {
        if (step == stop + 1) throw Interrupted{};
      };
      CHECK_THROWS_AS(run(places), Interrupted);
      REQUIRE(fs::exists(places.state));
      Run other = run;
      other.spec.temperature = 1;
      places.progress = {};
      contains(error_of([&] { other(places); }), "belongs to another run");
      const MultitaskResult resumed = run(places);
      CHECK(resumed.weights_hash == whole.weights_hash);
      CHECK(resumed.train_loss == whole.train_loss);
      CHECK(resumed.tasks[1].dev == whole.tasks[1].dev);
      CHECK(resumed.tasks[1].weight == whole.tasks[1].weight);
      CHECK(resumed.tasks[0].steps == whole.tasks[0].steps);
      CHECK_FALSE(fs::exists(places.state));
    }
  }
}

TEST_CASE("rules change what they name: a task or layers whose rate is 0 stay where they were") {
  const Threads one(1);
  const auto trained = [](const std::vector<std::string>& rules) {
    Run run;
    run.spec.run.method = "lora:r=2,on=q+v,layers=all";
    run.spec.rules = rules;
    std::map<std::string, Array> values;
    run({}, [&](Model&, Adaptation& a, const EncodedTask&, int) {
      for (const auto& p : a.parameters()) values[p->label()] = p->value.value().clone();
    });
    return values;
  };
  for (const auto& entry : trained({"layers=1,lr=0"})) {
    const std::string& label = entry.first;
    CAPTURE(label);
    if (!label.ends_with("lora_B")) continue;  // B starts at 0
    const auto all = entry.second.to_vector();
    CHECK(std::ranges::all_of(all, [](double v) { return v == 0; }) ==
          (label.find(" 1 ") != std::string::npos));
  }
  const auto free = trained({}), pulled = trained({"pull=50"});
  double far = 0, near = 0;
  for (const auto& [label, value] : free)
    if (label.ends_with("lora_B")) {
      far += kernels::sum_squares({value}).item();
      near += kernels::sum_squares({pulled.at(label)}).item();
    }
  CHECK(near < 0.5 * far);
}

TEST_CASE("a task's adapter is opened by itself, and a new task is added to it by its embedding") {
  const Threads one(1);
  Run run;
  const Folder folder;
  std::vector<Score> scores;
  const MultitaskResult r = run({}, [&](Model& m, Adaptation& a, const EncodedTask& t, int i) {
    Parameters all = a.stored();
    const Parameters head = train_head(m);
    all.insert(all.end(), head.begin(), head.end());
    save_adapter(folder / t.name.c_str(), spec_of_task(a.spec(), i), all,
                 {{"labels", t.labels}, {"head", "linear"}, {"pool", "mean"}});
    scores.push_back(evaluate(m, t, t.test));
  });
  CHECK(scores[1].predictions == r.tasks[1].test_predictions);
  const Start start = read_start(folder / "lengths", run.arch);
  contains(start.spec, "tasks=2");
  contains(start.spec, "use=1");
  // The same adapter, asked as a run of one task.
  SmallModel base(run.arch);
  EncodedTask third = two_tasks(run.arch)[0];
  third.name = "third";
  RunSpec spec = run.spec.run;
  spec.head = "linear", spec.epochs = 1;
  contains(error_of([&] {
             RunSpec other = spec;
             other.method = "hyperformer++:t=4,hidden=7,i=4,m=2,std=0.1,tasks=2,new=1";
             settle(start, other, {.method = true});
           }),
           "leave it out");
  spec.method = "hyperformer++:t=4,hidden=6,i=4,m=2,std=0.1,tasks=2,new=1";
  contains(error_of([&] { finetune(base, third, spec, all_methods()); }),
           "new= adds a task to a saved adapter; say which with --init");
  settle(start, spec, {.method = true});
  CHECK(spec.method.find("new=1") != std::string::npos);
  RunPlaces places;
  places.start = [&](const Parameters& p) { begin_at(start, p, false); };
  AdapterValues after;
  const RunResult grown = finetune(
      base, third, spec, all_methods(),
      [&](Model&, Adaptation& a, const EncodedTask&) {
        for (const auto& p : a.stored()) after[p->label()] = p->value.value().clone();
      },
      places);
  CHECK(grown.trainable == 4);
  for (const auto& [label, value] : after)
    if (label.find("new.task") == std::string::npos)
      CHECK(same_bits(value, start.values.at(label)));
}

TEST_CASE("described tasks are described by their own rows in a run over several") {
  const Threads one(1);
  Run run;
  run.spec.run.method = "hyperformer++:task=described,examples=3,hidden=6,i=4,m=2,std=0.1";
  run({}, [&](Model&, Adaptation& a, const EncodedTask&, int) {
    for (const auto& p : a.stored())
      if (p->name == "task") {
        CHECK(p->value.shape() == Shape{2, 12});
        const Tensor z(p->value.value());
        CHECK_FALSE(same_bits(slice(z, 0, 0, 1).value().as_contiguous(),
                              slice(z, 0, 1, 2).value().as_contiguous()));
      }
  });
}

TEST_CASE("an encoder-decoder answers several tasks in words") {
  const Threads one(1);
  Run run;
  run.arch = text_arch();
  run.spec.run.epochs = 1;
  const MultitaskResult r = run();
  CHECK(r.tasks[0].head == 0);
  CHECK(r.tasks[1].test_rows.size() == 6);
}

TEST_CASE("what a run over tasks cannot do it says in a line") {
  MultitaskSpec half;
  half.run.device = "cuda", half.run.compute = "f16";
  contains(error_of([&] { (void)half.settled(); }), "compute f16; there are f32 and bf16");
  const auto refused = [](auto change, const std::string& why) {
    Run run;
    change(run.spec);
    contains(error_of([&] { run(); }), why);
  };
  refused([](auto& s) { s.weights = "even"; }, "weights 'even' are unknown; there are uniform");
  refused([](auto& s) { s.weights = "pcgrad", s.sampling = "one"; },
          "sampling=one goes with uniform alone");
  refused([](auto& s) { s.query = 0.5; }, "query 0.5 with weights uniform, which do not read it");
  refused([](auto& s) { s.gradnorm_alpha = 2; }, "gradnorm_alpha 2 with weights uniform");
  refused([](auto& s) { s.weights = "pcgrad", s.weight_rate = 0.5; },
          "it is of uncertainty, gradnorm and metaweighting");
  refused([](auto& s) { s.temperature = 0; }, "temperature 0; need above 0");
  refused([](auto& s) { s.weights = "metaweighting", s.query = 1; },
          "query 1; need a part between 0 and 1");
  refused([](auto& s) { s.run.method = "head"; }, "nothing that tasks share");
  refused([](auto& s) { s.run.method = "hyperformer++:tasks=3"; }, "but there are 2 tasks");
  refused([](auto& s) { s.run.method = "hyperformer++:use=1"; }, "leave use= out");
  refused([](auto& s) { s.rules = {"task=birds,lr=1"}; },
          "no task is called 'birds'; there are beasts, lengths");
  refused([](auto& s) { s.rules = {"rate=2"}; },
          "unknown option 'rate'; it takes decay, dropout, layers, lr, pull, task");
  refused([](auto& s) { s.rules = {"layers=7,lr=1"}; }, "layers");
  refused([](auto& s) { s.rules = {"task=beasts"}; }, "says nothing");
  SmallModel base(arch_of(Stack::encoder));
  std::vector<EncodedTask> tasks = two_tasks(base.arch());
  const Run run;
  contains(error_of([&] { multitask(base, {tasks[0]}, run.spec, all_methods()); }),
           "1 task; need two or more");
  contains(error_of([&] {
             multitask(base, {tasks[0], tasks[0]}, run.spec, all_methods());
           }),
           "task beasts is there twice");
  contains(error_of([&] {
             MultitaskSpec::from({{"temprature", 2}}, run.spec.run.json());
           }),
           "unknown key 'temprature'");
  contains(error_of([&] {
             MultitaskSpec::from({{"query", "x"}}, run.spec.run.json());
           }),
           "key 'query' has the wrong type");
}

TEST_CASE("methods that take tasks= get the run's number, and use= for one of them") {
  const Methods methods = all_methods();
  CHECK(spec_for_tasks("hyperformer++", methods, 3) == "hyperformer++:tasks=3");
  CHECK(spec_for_tasks("lora:r=2|hyperformer:m=4", methods, 2) ==
        "lora:r=2|hyperformer:m=4,tasks=2");
  CHECK(spec_of_task("lora:r=2|hyperformer:m=4,tasks=2", 1) ==
        "lora:r=2|hyperformer:m=4,tasks=2,use=1");
}
