// Methods on a base that is stored in half precision: the bits of training on its widened copy.
#include <doctest/doctest.h>

#include "nn/models/folder.h"
#include "peft/methods.h"
#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

// A small model of random weights, saved in half precision.
struct Base : Folder {
  Arch arch;
  Base(const Arch& a, FileDtype dtype) : arch(a) {
    SmallModel model(arch);
    save_model(model, path, dtype);
  }
  std::unique_ptr<Model> narrow() const { return load_model(path); }
  std::unique_ptr<Model> wide() const {
    auto model = load_model(path);
    model->each([](Weight& w) { w.parameter().value = Tensor(w.value().value().own_copy()); });
    return model;
  }
};

Arch encoder() {
  Arch a = small_arch(Stack::encoder);
  a.lm_transform = a.lm_bias = true;
  a.position_offset = 2, a.pad = 1, a.token_types = 1;
  return a;
}

Array logits(const Model& model, const Batch& batch) { return logits_of(model, batch).value(); }

// The trained parameters after three steps.
std::vector<Array> trained(Model& model, const std::string& spec) {
  const Adaptation adaptation(all_methods(), spec, model);
  Optimizer optimizer(adaptation.parameters(), {});
  for (int step = 0; step < 3; ++step) {
    const Batch batch = ragged(model.arch(), {7, 3, 5}, static_cast<std::uint32_t>(3 * step));
    Ctx ctx{.train = true, .key = {1, static_cast<std::uint32_t>(step)}};
    Gradients gradients;
    backward(model.lm_loss(model.forward(batch, ctx), batch, ctx), gradients);
    optimizer.step(gradients, 0.01);
  }
  std::vector<Array> values;
  for (const auto& p : adaptation.parameters()) values.push_back(p->value.value().clone());
  return values;
}

}  // namespace

TEST_CASE("every method trains on a half-precision base to the bits of its widened copy") {
  const Threads one(1);
  for (const FileDtype dtype : {FileDtype::f16, FileDtype::bf16})
    for (const Arch& arch : {small_arch(Stack::decoder), llama_like(), encoder()}) {
      const Base base(arch, dtype);
      for (const char* spec :
           {"lora:r=2,on=q+v+up+down", "houlsby:m=3", "full", "top:k=1", "layernorm",
            "lora:r=2,on=o,dropout=0.2|layernorm", "intrinsic:d=40"}) {
        CAPTURE(arch.family);
        CAPTURE(spec);
        const auto narrow = base.narrow(), wide = base.wide();
        const std::uint64_t before = narrow->hash();
        const std::vector<Array> a = trained(*narrow, spec), b = trained(*wide, spec);
        REQUIRE(a.size() == b.size());
        REQUIRE(!a.empty());
        for (std::size_t i = 0; i < a.size(); ++i) {
          CHECK(a[i].dtype() == Dtype::f32);
          CHECK(same_bits(a[i], b[i]));
        }
        CHECK(narrow->hash() == before);
        CHECK(is_half(narrow->blocks[0]->attention.q.w.value().dtype()));
      }
    }
}

TEST_CASE("merging into a half-precision base puts f32 in its place; unmerging the file's bits") {
  const Base base(small_arch(Stack::decoder), FileDtype::f16);
  const auto narrow = base.narrow(), wide = base.wide();
  const Batch batch = ragged(base.arch, {6, 4});
  const Array bare = logits(*narrow, batch);
  const std::uint64_t before = narrow->hash();
  const Array stored = narrow->blocks[1]->attention.q.w.value().value();
  std::vector<Array> merged;
  for (Model* model : {narrow.get(), wide.get()}) {
    Adaptation adaptation(all_methods(), "lora:r=2,on=q+up", *model);
    for (const auto& p : adaptation.parameters()) add_noise(*p, 0.2, 3);
    const Array beside = logits(*model, batch);
    adaptation.merge();
    CHECK(model->blocks[1]->attention.q.w.value().dtype() == Dtype::f32);
    merged.push_back(logits(*model, batch));
    CHECK(difference(merged.back(), beside) < 1e-5);
    CHECK(difference(merged.back(), bare) > 1e-2);
    adaptation.unmerge();
    CHECK(same_bits(logits(*model, batch), beside));
  }
  CHECK(same_bits(merged[0], merged[1]));
  CHECK(narrow->hash() == before);
  CHECK(same_bits(narrow->blocks[1]->attention.q.w.value().value(), stored));
  CHECK(same_bits(logits(*narrow, batch), bare));
}

TEST_CASE("a model merged on a half-precision base is saved as it computes") {
  const Base base(small_arch(Stack::decoder), FileDtype::f16);
  const auto model = base.narrow();
  const Batch batch = ragged(base.arch, {6, 4});
  Adaptation adaptation(all_methods(), "lora:r=2,on=q", *model);
  for (const auto& p : adaptation.parameters()) add_noise(*p, 0.2, 3);
  adaptation.merge();
  const Folder out;
  save_model(*model, out.path);
  CHECK(same_bits(logits(*load_model(out.path), batch), logits(*model, batch)));
}
