// HyperFormer and HyperFormer++: tasks in one batch, new and described tasks.
#include <doctest/doctest.h>

#include "peft/files.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr const char* kThree = "hyperformer++:tasks=3,t=4,hidden=5,i=3,m=2,std=0.3";

// A small model that `spec` adapts, everything of it jittered so that tasks differ.
struct Adapted {
  explicit Adapted(const std::string& spec, const Arch& arch = small_arch(Stack::encoder))
      : model(arch), adaptation(all_methods(), spec, model) {
    jitter(adaptation.parameters());
  }
  Array rows(const Batch& batch, int task = -1) const {
    Ctx ctx{.task = task};
    return model.forward(batch, ctx).rows.value();
  }
  SmallModel model;
  Adaptation adaptation;
};

Array cut(const Array& rows, std::int64_t begin, std::int64_t end) {
  return slice(Tensor(rows), 0, begin, end).value();
}

Array parameter(const Parameters& all, const std::string& name) {
  for (const auto& p : all)
    if (p->name == name) return p->value.value();
  fail("no parameter {}", name);
}

}  // namespace

TEST_CASE("every form of HyperFormer keeps the contract") {
  const std::string small = ",t=3,hidden=4,i=3,m=2";
  for (const char* spec :
       {"hyperformer:sharing=code", "hyperformer++:layers=1,f=relu", "hyperformer++:on=attn"})
    keeps_contract(spec + small);
  for (const char* spec : {"hyperformer++:task=described,hidden=4,i=3,m=2",
                           "hyperformer:task=described,tokens=3-4-5,hidden=4,i=3,m=2",
                           "hyperformer++:tasks=2,new=1,t=3,hidden=4,i=3,m=2,std=0.5",
                           "lora:r=2|hyperformer++:t=3,hidden=4,i=3,m=2,norms=no"})
    keeps_contract_on(spec, Body::encoder);
  keeps_contract_on("hyperformer:norm=none,norms=no,on=mlp,std=0.3,t=3,hidden=12,i=3,m=2",
                    Body::encoder);
  keeps_contract_on("hyperformer++:on=attn+cross+mlp,t=3,hidden=4,i=3,m=2", Body::both);
}

TEST_CASE("a batch of several tasks gives each text what it gets alone with its task") {
  for (const char* spec : {kThree, "hyperformer:tasks=3,t=4,hidden=5,i=3,m=2,std=0.3"}) {
    const Adapted a(spec);
    Batch batch = ragged(a.model.arch(), {4, 2, 5, 3});
    batch.task = {2, 0, 2, 1};
    const Array mixed = a.rows(batch);
    int at = 0;
    for (int s = 0; s < 4; ++s) {
      const Array alone =
          a.rows(ragged(a.model.arch(), {batch.length[s]}, std::uint32_t(s)), batch.task[s]);
      CHECK(difference(cut(mixed, at, at + batch.length[s]), alone) < 1e-5);
      at += batch.length[s];
    }
    batch.task.clear();
    CHECK(difference(a.rows(batch, 0), a.rows(batch, 1)) > 1e-3);
  }
}

TEST_CASE("a task's embedding learns from that task's texts alone") {
  const Adapted a(kThree);
  Batch batch = ragged(a.model.arch(), {3, 4});
  batch.task = {2, 0};
  Ctx ctx;
  const Gradients grads = backward(sum(square(a.model.forward(batch, ctx).rows)));
  for (const auto& p : a.adaptation.parameters()) {
    if (p->name != "task") continue;
    const std::vector<double> g = grads[p->value].to_vector();
    for (int k = 0; k < 4; ++k) CHECK((g[k] != 0 && g[4 + k] == 0 && g[8 + k] != 0));
  }
}

TEST_CASE("places share a generator and still differ: layer and place are in the code") {
  // With one task and no embeddings of layers or places every block would get the same adapter.
  const Arch arch = small_arch(Stack::encoder);
  Adapted a("hyperformer++:t=4,hidden=5,i=3,m=2,std=0.3,norms=no", arch);
  const Batch batch = ragged(arch, {5});
  const Array before = a.rows(batch);
  for (const char* name : {"layer", "place"}) {
    for (const auto& p : a.adaptation.parameters())
      if (p->name == name) add_noise(*p, 0.5, 8);
    CHECK(difference(a.rows(batch), before) > 1e-4);
  }
}

TEST_CASE("a new task trains its embedding alone and leaves the tasks before it bit for bit") {
  const Folder folder;
  const Arch arch = small_arch(Stack::encoder);
  const Batch batch = ragged(arch, {4, 3});
  Array first, second;
  {
    const Adapted a(kThree, arch);
    first = a.rows(batch, 0), second = a.rows(batch, 2);
    save_adapter(folder.path, kThree, a.adaptation.stored(), {});
  }
  SmallModel model(arch);
  Adaptation grown(all_methods(), std::string(kThree) + ",new=1", model);
  REQUIRE(grown.parameters().size() == 1);
  CHECK(begins_anew(*grown.parameters()[0]));
  Parameters known;
  for (const auto& p : grown.stored())
    if (!begins_anew(*p)) known.push_back(p);
  load_adapter_values(folder.path, known);
  Optimizer optimizer(grown.parameters(), {.decay = 0});
  const auto loss = [&] {  // the batch says no task, so it is of the new one
    Ctx ctx;
    return sum(square(model.forward(batch, ctx).rows));
  };
  const double before = loss().item();
  for (int step = 0; step < 20; ++step) {
    Gradients grads = backward(loss());
    optimizer.step(grads, 0.05);
  }
  CHECK(loss().item() < before);
  for (const auto& [task, was] : {std::pair{0, first}, {2, second}}) {
    Ctx ctx{.task = task};
    CHECK(same_bits(model.forward(batch, ctx).rows.value(), was));
  }
}

TEST_CASE("a described task is what the bare base makes of its texts, and files hold it") {
  const std::string spec = "hyperformer++:task=described,tasks=2,hidden=4,i=3,m=2,std=0.3";
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  Adaptation a(all_methods(), spec, model);
  jitter(a.parameters());
  const Batch one = ragged(arch, {4, 3}), other = ragged(arch, {5}, 7);
  contains(error_of([&] {
             Ctx ctx{.task = 1};
             (void)model.forward(one, ctx);
           }),
           "nothing has described task 1 yet");
  contains(error_of([&] { a.calibrate(model, {one}); }),
           "2 tasks are to be described, and there are examples of 1");
  CHECK(a.examples() == 16);
  a.calibrate(model, {one, other});
  const Array z = parameter(a.stored(), "task");
  double mean = 0, square = 0;
  for (int k = 0; k < arch.width; ++k) mean += z.at(k), square += z.at(k) * z.at(k);
  CHECK(mean / arch.width == doctest::Approx(0).epsilon(1e-5));
  CHECK(square / arch.width == doctest::Approx(1));
  // The bare base's, whatever the adapters have learned; another text is another task.
  a.calibrate(model, {one, one});
  const Array again = parameter(a.stored(), "task");
  for (int k = 0; k < arch.width; ++k) CHECK(again.at(k) == again.at(arch.width + k));
  const Folder folder;
  a.calibrate(model, {one, other});
  save_adapter(folder.path, spec, a.stored(), {});
  Ctx ctx{.task = 1};
  const Array told = model.forward(one, ctx).rows.value();
  SmallModel fresh(arch);
  const Adaptation loaded(all_methods(), spec, fresh);
  load_adapter_values(folder.path, loaded.stored());
  Ctx same{.task = 1};
  CHECK(same_bits(fresh.forward(one, same).rows.value(), told));
}

TEST_CASE("what HyperFormer cannot do it says") {
  const Adapted a(kThree);
  Batch batch = ragged(a.model.arch(), {2, 1});
  contains(error_of([&] { a.rows(batch); }),
           "tasks=3, and the batch does not say whose its texts are; give use=0..2");
  contains(error_of([&] { a.rows(batch, 3); }), "a text of task 3; the tasks are 0..2");
  batch.task = {1};
  contains(error_of([&] { a.rows(batch); }), "2 sequences, the batch says 1 tasks");
  contains(refusal("hyperformer:use=1"), "use=1; the tasks are 0..0");
  contains(refusal("hyperformer:m=25"), "m=25 in a model of width 24");
  contains(refusal("hyperformer:on=q"), "on=q; need attn, mlp or attn+mlp");
  contains(refusal("hyperformer++:sharing=code"), "unknown option 'sharing'");
  contains(refusal("hyperformer:t=8,task=described"), "unknown option 't'");
  contains(refusal("hyperformer:tasks=2,task=described,tokens=3"), "tokens= describes one task");
  contains(refusal("hyperformer:norms=no|hyperformer++:norms=no"), "two methods make a parameter");
  refuses_to_merge(kThree + std::string(",use=0"), small_arch(Stack::encoder), "cannot be merged");
}
