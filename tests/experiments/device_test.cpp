// Runs on the device: what is trained, saved and scored there is what the host makes of it.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "experiments/runs/finetune.h"
#include "peft/files.h"
#include "peft/training_state.h"
#include "tests/cuda/device_cases.h"
#include "tests/experiments/small_language.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

RunResult run_on(Device device, const std::string& method, const RunPlaces& places = {},
                 const std::string& optimizer = "adamw", int epochs = 1,
                 const std::string& compute = "f32", int batch = 4) {
  SmallModel base(arch_of(Stack::encoder));
  const std::uint64_t before = base.hash();
  EncodedTask task = encode_task(data(), tokenizer(), base.arch(), {});
#ifdef GRAFT_SANITIZED
  for (auto* rows : {&task.train, &task.dev, &task.test}) rows->resize(2);
#endif
  base.move_to(device);
  CHECK(base.hash() == before);
  const RunSpec spec{.method = method,
                     .optimizer = optimizer,
                     .lr = 0.01,
                     .epochs = epochs,
                     .batch = batch,
                     .seed = 3,
                     .device = name(device),
                     .compute = compute};
  // What is saved then is not what it was rounded to meanwhile.
  const AtBest whole = [](Model& model, Adaptation&, const EncodedTask&) {
    model.each([](Weight& w) { CHECK(w.value().dtype() == Dtype::f32); });
  };
  const RunResult result = finetune(base, task, spec, all_methods(), whole, places);
  CHECK(base.hash() == before);
  return result;
}

}  // namespace

TEST_CASE("a run on the device has the host's losses and scores, and its own bits every time") {
  if (!device_is_there()) return;
  struct Case {
    std::string method, optimizer;
  };
  for (const Case& c : {Case{"lora:r=2,on=q+v,dropout=0.1", "adamw"}, Case{"full", "adafactor"}}) {
    const std::string &method = c.method, &optimizer = c.optimizer;
    CAPTURE(method);
    const RunResult host = run_on(Device::cpu, method, {}, optimizer),
                    there = run_on(Device::cuda, method, {}, optimizer);
    REQUIRE(host.train_loss.size() == there.train_loss.size());
    for (std::size_t i = 0; i < host.train_loss.size(); ++i)
      CHECK(there.train_loss[i] == doctest::Approx(host.train_loss[i]).epsilon(1e-4));
    CHECK(there.dev == host.dev);
    CHECK(there.test_predictions == host.test_predictions);
    CHECK(there.peak_bytes > 0);
    CHECK(run_on(Device::cuda, method, {}, optimizer).weights_hash == there.weights_hash);
  }
}

#ifndef GRAFT_SANITIZED
TEST_CASE("steps of a run over texts of many lengths are graphs that come again") {
  if (!device_is_there()) return;
  // All 13 examples in a step: as many tokens every time, in another order.
  const cuda::Work before = cuda::work();
  run_on(Device::cuda, "lora:r=2,on=q+v,dropout=0.1", {}, "adamw", 7, "f32", 13);
  CHECK(cuda::work().lists - before.lists == 7);
  CHECK(cuda::work().replayed - before.replayed >= 3);
}
#endif

TEST_CASE("a run in half precision is close to f32's, has its own bits, and spares the base") {
  if (!device_is_there()) return;
  struct Case {
    std::string method, compute, optimizer;
  };
  for (const Case& c : {Case{"lora:r=2,on=q+v,dropout=0.1", "bf16", "adamw"},
                        {"full", "bf16", "adamw"},
                        {"lora:r=2,on=q+v,dropout=0.1", "f16", "adamw"},
                        {"houlsby:m=3", "f16", "sgd"}}) {
    const std::string& method = c.method;
    CAPTURE(method);
    CAPTURE(c.compute);
#ifdef GRAFT_SANITIZED  // half a minute each
    if (method == "full" || c.compute == "f16") continue;
#endif
    const auto in_half = [&] {
      return run_on(Device::cuda, method, {}, c.optimizer, 1, c.compute);
    };
    const RunResult wide = run_on(Device::cpu, method, {}, c.optimizer), narrow = in_half();
    REQUIRE(wide.train_loss.size() == narrow.train_loss.size());
    for (std::size_t i = 0; i < wide.train_loss.size(); ++i) {
      CHECK(narrow.train_loss[i] == doctest::Approx(wide.train_loss[i]).epsilon(0.02));
      CHECK(narrow.train_loss[i] != wide.train_loss[i]);
    }
    CHECK(in_half().weights_hash == narrow.weights_hash);
  }
}

#ifndef GRAFT_SANITIZED  // it takes minutes there, and reads and writes what the case above does
TEST_CASE("a run on the device resumes with the same bits") {
  if (!device_is_there()) return;
  // Of the second one the blocks never change, and a run on the host would keep their rows.
  for (const std::string method : {"lora:r=2,on=q+v,dropout=0.1", "head"}) {
    CAPTURE(method);
    const int epochs = method == "head" ? 2 : 1;
    const auto run = [&](const RunPlaces& places) {
      return run_on(Device::cuda, method, places, "adamw", epochs).weights_hash;
    };
    const Folder folder;
    const std::uint64_t whole = run({});
    int steps = 0;
    RunPlaces places;
    places.state = folder.path / "state.safetensors", places.state_seconds = 0;
    places.progress = [&](int step, int, double) { check(++steps < 3, "cut at {}", step); };
    CHECK(error_of([&] { run(places); }).starts_with("cut at"));
    places.progress = {};
    CHECK(run(places) == whole);
  }
}
#endif

#ifndef GRAFT_SANITIZED
TEST_CASE("in f16 a step whose gradients overflow is taken again with a smaller loss") {
  if (!device_is_there()) return;
  SmallModel base(arch_of(Stack::encoder));
  EncodedTask task = encode_task(data(TaskData::Kind::regression), tokenizer(), base.arch(), {});
  for (EncodedExample& e : task.train) e.target = 1e4f;  // times 2^15 beyond what f16 can hold
  base.move_to(Device::cuda);
  const RunSpec spec{.method = "lora:r=2,on=q+v",
                     .lr = 0.01,
                     .epochs = 1,
                     .batch = 4,
                     .seed = 3,
                     .device = "cuda",
                     .compute = "f16"};
  const auto run = [&](const RunPlaces& places) {
    return finetune(base, task, spec, all_methods(), {}, places).weights_hash;
  };
  const std::uint64_t whole = run({});
  const Folder folder;
  int steps = 0;
  RunPlaces places;
  places.state = folder.path / "state.safetensors", places.state_seconds = 0;
  places.progress = [&](int, int, double) { check(++steps < 3, "cut at {}", steps); };
  CHECK(error_of([&] { run(places); }).starts_with("cut at"));
  const TrainingState state = read_training_state(places.state);
  CHECK(state.step == 2);
  const auto history = nlohmann::json::parse(state.about.at("history"));
  CHECK(history.at("loss_scale") < 0x1p15);
  CHECK(history.at("loss_scale") >= 1);
  CHECK(history.at("loss_scale_steps") > 0);
  places.progress = {};
  CHECK(run(places) == whole);
}
#endif

TEST_CASE("a run says where its base must lie") {
  SmallModel base(arch_of(Stack::encoder));
  const EncodedTask task = encode_task(data(), tokenizer(), base.arch(), {});
  const RunSpec spec{.device = "cuda"};
  contains(error_of([&] { finetune(base, task, spec, all_methods()); }),
           "the run is for device cuda, the base lies on cpu");
  // A record says the device only where it is not the host, so that older records are read as such.
  CHECK(!RunSpec{}.json().contains("device"));
  CHECK(RunSpec::from(spec.json()).device == "cuda");
  CHECK(RunSpec::from(RunSpec{}.json()).device == "cpu");
  const RunSpec half{.device = "cuda", .compute = "bf16"};
  CHECK(RunSpec::from(half.json()).compute == "bf16");
  CHECK(!spec.json().contains("compute"));
  contains(error_of([] { RunSpec::from(RunSpec{.compute = "bf16"}.json()); }),
           "the host computes in f32 alone");
  contains(error_of([] { RunSpec::from(RunSpec{.device = "cuda", .compute = "f8"}.json()); }),
           "compute f8: there are f32, f16 and bf16");
}

TEST_CASE("steps on labels and on text are filled up for a device, on scores they are not") {
  const auto filler = [](const EncodedTask& task, const Arch& arch) {
    std::vector<std::int32_t> order(task.train.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
    return filled_up(make_batch(task, task.train, order, 0, 6), arch).filler;
  };
  const Arch encoder = arch_of(Stack::encoder), decoder = arch_of(Stack::decoder);
  CHECK(filler(encode_task(data(), tokenizer(), encoder, {}), encoder) == 1);
  CHECK(filler(encode_task(stories(), tokenizer(), decoder, {}), decoder) == 1);
  CHECK(filler(encode_task(data(TaskData::Kind::regression), tokenizer(), encoder, {}), encoder) ==
        0);
}
