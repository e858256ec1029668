// Seeds, and the file beside an adapter that training goes on from.
#include "peft/training_state.h"

#include "nn/files/safetensors.h"
#include "peft/files.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Built {
  Built(const std::string& spec, std::uint32_t seed, Body body)
      : model(contract_arch(body), {.seed = seed}), adaptation(all_methods(), spec, model) {}
  std::map<std::string, Array> values() const {
    std::map<std::string, Array> all;
    for (const auto& p : adaptation.parameters()) all[p->label()] = p->value.value();
    return all;
  }
  Model model;
  Adaptation adaptation;
};

// What trains of `spec` is among the values, with the same bits.
bool starts_alike(const Built& one, const std::map<std::string, Array>& all) {
  for (const auto& [name, value] : one.values()) {
    const auto at = all.find(name);
    if (at == all.end() || !same_bits(at->second, value)) return false;
  }
  return true;
}

struct Trained {
  explicit Trained(const std::string& spec, const std::string& optimizer = "adamw")
      : built(spec, 3, Body::encoder),
        optimizer(built.adaptation.parameters(), {.kind = optim_named(optimizer)}) {}
  void step() {
    Ctx ctx;
    const Batch batch = ragged(built.model.arch(), {3, 2});
    Gradients grads = backward(built.model.lm_loss(built.model.forward(batch, ctx), batch, ctx));
    optimizer.step(grads, 0.01);
  }
  void save(const fs::path& folder) {
    save_adapter(folder, built.adaptation.spec(), built.adaptation.parameters(), {});
    keep_training_state(folder, training_state(optimizer));
  }
  Built built;
  Optimizer optimizer;
};

}  // namespace

TEST_CASE("adapters made with one seed are bit-equal whatever was built before; 0 is a seed") {
  for (const Body body : kBodies)
    for (const Method& method : all_methods()) {
      CAPTURE(method.name);
      const Built first(method.example, 0, body);
      for (const Method& before : all_methods()) {
        const Built other(before.example, 5, body);  // elsewhere, and still there
        const Built again(method.example, 0, body);
        CHECK(starts_alike(first, again.values()));
        if (body != Body::decoder || before.name == method.name) continue;
        try {  // before it in the same model, where the two go together
          const Built both(before.example + "|" + method.example, 0, body);
          CHECK(starts_alike(first, both.values()));
        } catch (const Error& e) {
          CHECK_FALSE(std::string(e.what()).empty());
        }
      }
    }
}

TEST_CASE("another seed is another start, for every method that draws one") {
  std::set<std::string> drawn;
  for (const Method& method : all_methods()) {
    const std::string spec = method.example;
    Model one(contract_arch(Body::decoder), {.seed = 7}),
        two(contract_arch(Body::decoder), {.seed = 7});
    two.set_build({.seed = 0});
    const Adaptation a(all_methods(), spec, one), b(all_methods(), spec, two);
    for (std::size_t i = 0; i < a.parameters().size(); ++i)
      if (!same_bits(a.parameters()[i]->value.value(), b.parameters()[i]->value.value()))
        drawn.insert(method.name);
  }
  for (const char* name : {"lora", "houlsby", "pfeiffer", "parallel", "series", "prompt", "prefix",
                           "ptuning", "llama_adapter"})
    CHECK(drawn.contains(name));
  for (const char* name : {"full", "top", "bitfit", "layernorm", "ia3"})
    CHECK_FALSE(drawn.contains(name));
}

TEST_CASE("a training state that is missing, another's, or no longer the adapter's is an error") {
  const Folder folder;
  const fs::path at = folder / "adapter";
  const std::string spec = "lora:r=2,on=q";
  Trained t(spec);
  t.step();
  save_adapter(at, spec, t.built.adaptation.parameters(), {});
  contains(error_of([&] { kept_training_state(folder / "x"); }), "there is no folder '");
  contains(error_of([&] { kept_training_state(at); }), "has no training_state.safetensors");
  CHECK_FALSE(has_training_state(at));
  t.save(at);
  CHECK(has_training_state(at));
  CHECK(kept_training_state(at).step == 1);

  Trained sgd(spec, "sgd");
  const std::string kinds = error_of([&] { resume(kept_training_state(at), sgd.optimizer, "X"); });
  contains(kinds, "in 'X' is not of this method, model and optimizer");
  contains(kinds, "missing: optimizer's encoder 0 q lora_A velocity");
  contains(kinds, "unexpected: optimizer's encoder 0 q lora_A mean");
  Trained wider("lora:r=3,on=q+v");
  const auto before = wider.built.values();
  std::map<std::string, Array> copies;
  for (const auto& [name, value] : before) copies[name] = value.clone();
  const std::string shapes =
      error_of([&] { resume(kept_training_state(at), wider.optimizer, "X"); });
  contains(shapes, "missing: parameter encoder 0 v lora_A");
  contains(shapes,
           "parameter encoder 0 q lora_A: the file has [2, 12], this training needs [3, 12]");
  for (const auto& [name, value] : wider.built.values()) CHECK(same_bits(value, copies.at(name)));
  CHECK(wider.optimizer.steps() == 0);

  t.step();  // the adapter is trained on elsewhere and saved in its place
  save_adapter(at, spec, t.built.adaptation.parameters(), {});
  contains(error_of([&] { kept_training_state(at); }), "its values were replaced");
  fs::remove(at / "adapter_model.safetensors");
  contains(error_of([&] { kept_training_state(at); }), "there is no adapter in");
}

TEST_CASE("what an adapter holds and does not train is in the state, too") {
  Trained t("lora:r=1,on=q"), other("lora:r=1,on=q");
  const auto held = [](double value) {
    auto p = std::make_shared<Parameter>();
    p->site = Site{Stack::encoder, 0, Part::q}, p->name = "held";
    p->value = Tensor(Array::full({3}, value));
    return p;
  };
  const Parameters one{held(4)}, two{held(5)};
  t.step();
  const TrainingState s = training_state(t.optimizer, one);
  resume(s, other.optimizer, "X", two);
  CHECK(two[0]->value.value().at(0) == 4);
  contains(error_of([&] { resume(s, other.optimizer, "X"); }),
           "unexpected: parameter encoder 0 q held");
}

TEST_CASE("a training state's file that is not one is an error that names it") {
  const Folder folder;
  const auto wrong = [&](const std::string& key, const std::string& value,
                         const std::string& tensor, const std::string& why) {
    SafetensorsWriter writer;
    writer.metadata = {{"kind", "graft-training-state-1"}, {"step", "3"}};
    if (!key.empty()) writer.metadata[key] = value;
    writer.add(tensor, Array::full({2}, 1));
    writer.write(folder / "state");
    const std::string message = error_of([&] { read_training_state(folder / "state"); });
    contains(message, why);
    contains(message, (folder / "state").string());
  };
  wrong("kind", "other", "parameter a", "is no training state of this program");
  wrong("step", "-1", "parameter a", "step '-1'");
  wrong("step", "3x", "parameter a", "step '3x'");
  wrong("", "", "weights", "has a tensor 'weights', which is no part of a training state");
  SafetensorsWriter writer;
  writer.metadata = {{"kind", "graft-training-state-1"}, {"step", "3"}};
  const std::vector<float> value{1, 2};
  writer.add("parameter a", FileDtype::f16, {2}, value);
  writer.write(folder / "state");
  contains(error_of([&] { read_training_state(folder / "state"); }),
           "parameter a is F16; need F32");
}
