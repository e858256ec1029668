// Adapters that train side by side: the same bits as each alone.
#include "peft/routed.h"

#include <cmath>

#include "peft/adapter_set.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Course {
  std::vector<std::vector<double>> losses, norms;  // by adapter
  std::vector<std::vector<Array>> values;
};

const std::vector<OptimSpec> kOptims = {
    {.decay = 0.01, .clip = 0.5}, {.kind = OptimSpec::Kind::sgd, .clip = 1}, {.clip = 0.05}};
const std::vector<double> kRates = {3e-2, 1e-2, 5e-3};
constexpr int kSteps = 4;

// Batches of seven sequences, of which each adapter has some: scattered, or one after another.
Batch batch_of(const Arch& arch, int step) {
  Batch batch = ragged(arch, {5, 3, 8, 2, 6, 4, 7}, std::uint32_t(7 * step));
  if (arch.crosses())
    batch.source = std::make_shared<Batch>(ragged(arch, {3, 4, 2, 6, 3, 5, 2}, 40));
  static const std::vector<std::int32_t> kOrders[] = {
      {2, 0, 0, 1, 1, 2, 0}, {0, 1, 2, 1, 0, 2, 1}, {1, 1, 2, 2, 2, 0, 0}};
  batch.adapter = kOrders[step % 3];
  return batch;
}

Ctx training(int step, Checkpoint checkpoint) {
  return {.train = true, .key = {3, std::uint32_t(step)}, .checkpoint = checkpoint};
}

// Some read a row of each sequence, some all.
std::unique_ptr<Head> head_for(const Model& model, int classes) {
  return std::make_unique<LinearHead>(model.build(), model.arch(), classes,
                                      classes % 2 == 0      ? Pool::mean
                                      : model.arch().causal ? Pool::last
                                                            : Pool::cls);
}

// A step of adapter i, which is in the model, on its own sequences alone.
void take_step(Course& course, std::size_t i, int step, const Model& model, Optimizer& optimizer) {
  const Batch whole = batch_of(model.arch(), step);
  std::vector<int> own;
  for (int s = 0; s < whole.sequences(); ++s)
    if (whole.adapter[std::size_t(s)] == int(i)) own.push_back(s);
  const Batch batch = some_of(whole, own);
  Ctx ctx = training(step, Checkpoint::none);
  const Sequence rows = model.forward(batch, ctx);
  const Tensor loss = model.has_head()
                          ? model.head().loss(model.head().scores(model, rows, batch, ctx), batch)
                          : model.lm_loss(rows, batch, ctx);
  course.losses[i].push_back(loss.item());
  Gradients gradients = backward(loss);
  course.norms[i].push_back(optimizer.step(gradients, kRates[i]));
}

Course of_adapters(std::size_t count) {
  Course course;
  course.losses.resize(count), course.norms.resize(count), course.values.resize(count);
  return course;
}

// Each adapter on its own, with its own head.
Course trained_alone(const Arch& arch, const std::vector<std::string>& specs, bool heads) {
  Course course = of_adapters(specs.size());
  for (std::size_t i = 0; i < specs.size(); ++i) {
    SmallModel model(arch);
    const Adaptation adaptation(all_methods(), specs[i], model);
    Parameters all = adaptation.parameters();
    if (heads) {
      model.set_head(head_for(model, 3 + int(i)));
      for (const auto& p : train_head(model)) all.push_back(p);
    }
    Optimizer optimizer(all, kOptims[i]);
    for (int step = 0; step < kSteps; ++step) take_step(course, i, step, model, optimizer);
    for (const auto& p : all) course.values[i].push_back(p->value.value());
  }
  return course;
}

// A step of each adapter after the other, again and again, in one base.
Course trained_by_turns(const Arch& arch, const std::vector<std::string>& specs) {
  SmallModel model(arch);
  AdapterSet set(all_methods(), model);
  std::vector<Optimizer> optimizers;
  for (std::size_t i = 0; i < specs.size(); ++i)
    optimizers.emplace_back(set.add(fmt::format("{}", i), specs[i]).parameters(), kOptims[i]);
  Course course = of_adapters(specs.size());
  for (int step = 0; step < kSteps; ++step)
    for (std::size_t i = 0; i < specs.size(); ++i) {
      set.activate({fmt::format("{}", i)});
      take_step(course, i, step, model, optimizers[i]);
    }
  for (std::size_t i = 0; i < specs.size(); ++i)
    for (const auto& p : set.at(fmt::format("{}", i)).parameters())
      course.values[i].push_back(p->value.value());
  return course;
}

Course trained_together(const Arch& arch, const std::vector<std::string>& specs, bool heads,
                        Checkpoint checkpoint) {
  SmallModel model(arch);
  std::vector<Routed::Route> routes;
  for (std::size_t i = 0; i < specs.size(); ++i) routes.push_back({fmt::format("{}", i), specs[i]});
  Routed routed(all_methods(), routes, model);
  for (int i = 0; heads && i < routed.size(); ++i) routed.set_head(i, head_for(model, 3 + i));
  RoutedTraining training_of(routed, model, kOptims);
  Course course = of_adapters(specs.size());
  for (int step = 0; step < kSteps; ++step) {
    const auto steps = training_of.step(batch_of(arch, step), training(step, checkpoint), kRates);
    for (std::size_t i = 0; i < specs.size(); ++i) {
      course.losses[i].push_back(steps[i].loss);
      course.norms[i].push_back(steps[i].norm);
    }
  }
  for (std::size_t i = 0; i < specs.size(); ++i)
    for (const auto& p : routed.parameters(int(i))) course.values[i].push_back(p->value.value());
  return course;
}

void same_course(const Course& got, const Course& want, const std::vector<std::string>& specs) {
  CHECK(got.losses == want.losses);
  CHECK(got.norms == want.norms);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    CAPTURE(specs[i]);
    REQUIRE(got.values[i].size() == want.values[i].size());
    for (std::size_t p = 0; p < want.values[i].size(); ++p)
      CHECK(same_bits(got.values[i][p], want.values[i][p]));
  }
}

void trains_as_alone(const Arch& arch, const std::vector<std::string>& specs, bool heads = false,
                     Checkpoint checkpoint = Checkpoint::none) {
  CAPTURE(arch.family);
  same_course(trained_together(arch, specs, heads, checkpoint), trained_alone(arch, specs, heads),
              specs);
}

}  // namespace

TEST_CASE("an adapter trained beside others ends with the bits of training it alone") {
  const Threads one(1);
  std::vector<Arch> archs = {small_arch(Stack::decoder), llama_like(), small_arch(Stack::encoder),
                             contract_arch(Body::both)};
  for (Arch& arch : archs) {
    arch.dropout = arch.attention_dropout = 0.1;
    trains_as_alone(arch, {"lora:r=2,on=q+k+v+o+up+down,dropout=0.2", "prefix:length=2",
                           "houlsby:m=3,norms=no,dropout=0.1"});
    trains_as_alone(arch, {"prompt:length=2", "lora:r=1,on=embed+q", "ia3"});
    trains_as_alone(
        arch,
        {"llama_adapter:length=2,init=random", "prefix:length=3,mlp=yes,mid=3", "parallel:m=2"},
        false, Checkpoint::blocks);
  }
}

TEST_CASE("adapters that train by turns in one base end with the bits of training each alone") {
  const Threads one(1);
  for (Arch arch : {small_arch(Stack::decoder), llama_like(), contract_arch(Body::both)}) {
    CAPTURE(arch.family);
    arch.dropout = arch.attention_dropout = 0.1;
    for (const std::vector<std::string>& specs :
         {std::vector<std::string>{"lora:r=2,on=q+v,dropout=0.2", "prefix:length=2", "houlsby:m=3"},
          std::vector<std::string>{"layernorm", "full", "lora:r=1|layernorm"}})
      same_course(trained_by_turns(arch, specs), trained_alone(arch, specs, false), specs);
  }
}

TEST_CASE("with a head of its own, too, each adapter trains as if alone") {
  const Threads one(1);
  const Arch arch = small_arch(Stack::encoder);
  trains_as_alone(arch, {"lora:r=2", "prompt:length=2,pooled=yes", "prefix:length=1|ia3"}, true);
  trains_as_alone(arch, {"lora:r=2", "lora:r=2", "lora:r=2"}, true, Checkpoint::inner);
  trains_as_alone(arch, {"prompt:length=2", "ia3", "houlsby:m=2,norms=no"}, true,
                  Checkpoint::blocks);
  for (const Arch& causal : {small_arch(Stack::decoder), contract_arch(Body::both)})
    trains_as_alone(causal, {"prefix:length=2", "lora:r=2,on=q+o", "parallel:m=2"}, true,
                    Checkpoint::blocks);

  SmallModel model(arch);
  Routed routed(all_methods(), {{"a", "lora:r=1"}, {"b", "lora:r=1"}}, model);
  routed.set_head(0, head_for(model, 2));
  Batch batch = ragged(arch, {3, 2, 4});
  batch.adapter = {0, 1, 0};
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  contains(error_of([&] { routed.scores(s, batch, ctx); }), "b has no head");
  routed.set_head(1, head_for(model, 4));
  const auto scores = routed.scores(s, batch, ctx);
  CHECK(scores[0].size() == 2);
  CHECK(scores[1].size() == 4);
  CHECK(scores[2].size() == 2);
}

TEST_CASE("an adapter that has become NaN does not touch those beside it") {
  const Threads one(1);
  const Arch arch = small_arch(Stack::decoder);
  Batch batch = ragged(arch, {4, 3, 6, 2});
  batch.adapter = {0, 1, 0, 1};
  std::vector<std::vector<Array>> ends;
  for (const bool broken : {false, true}) {
    SmallModel model(arch);
    Routed routed(all_methods(), {{"a", "lora:r=1"}, {"b", "lora:r=1"}}, model);
    for (int i = 0; i < 2; ++i) jitter(routed.at(i).parameters());
    if (broken) routed.at(1).parameters()[1]->value.value().data<float>()[0] = NAN;
    RoutedTraining training_of(routed, model, {{}, {}});
    const std::string said = error_of([&] { training_of.step(batch, {}, {1e-2, 1e-2}); });
    if (broken) contains(said, "all others did:\n  b: ");
    if (!broken) CHECK(said == "(no error)");
    ends.emplace_back();
    for (const auto& p : routed.parameters(0)) ends.back().push_back(p->value.value());
  }
  for (std::size_t p = 0; p < ends[0].size(); ++p) CHECK(same_bits(ends[0][p], ends[1][p]));
}

TEST_CASE("an adapter that a batch has nothing for stays as it is, and so does its optimizer") {
  SmallModel model(small_arch(Stack::decoder));
  Routed routed(all_methods(), {{"a", "lora:r=1"}, {"b", "lora:r=1"}}, model);
  for (int i = 0; i < 2; ++i) jitter(routed.at(i).parameters());
  RoutedTraining training_of(routed, model, {{}, {}});
  const Array before = routed.at(1).parameters()[0]->value.value().clone();
  Batch batch = ragged(model.arch(), {4, 3});
  batch.adapter = {0, 0};
  const auto steps = training_of.step(batch, {}, {1e-2, 1e-2});
  CHECK(steps[0].sequences == 2);
  CHECK(steps[1].sequences == 0);
  CHECK(training_of.optimizer(0).steps() == 1);
  CHECK(training_of.optimizer(1).steps() == 0);
  CHECK(same_bits(before, routed.at(1).parameters()[0]->value.value()));
  batch.adapter = {0, -1};
  contains(error_of([&] { training_of.step(batch, {}, {1e-2, 1e-2}); }), "of no adapter");
  batch.adapter = {0, 1}, batch.divisor = 2;
  contains(error_of([&] { training_of.step(batch, {}, {1e-2, 1e-2}); }), "micro-batches");
  contains(error_of([&] { training_of.step(batch, {}, {1e-2}); }), "rates for 1 of 2");
}
