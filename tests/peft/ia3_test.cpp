// (IA)3 and selective tuning: what is scaled or trained, merging, counts by parts, refusals.
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::set<std::string> labels(const std::string& spec, const Arch& arch) {
  Model model(arch, {.storage = false});
  const Adaptation adaptation(all_methods(), spec, model);
  CHECK(adaptation.count() == adaptation.formula());
  std::set<std::string> all;
  for (const auto& p : adaptation.parameters()) all.insert(p->label());
  return all;
}

}  // namespace

TEST_CASE("(IA)3 keeps the contract on other parts and layers, and beside other methods") {
  for (const char* spec : {"ia3:on=q+o+up", "ia3:on=down,layers=1", "lora:r=2,on=k+down|ia3",
                           "ia3:on=k+v|lora:r=2,on=k+down", "bitfit|ia3", "ia3|layernorm"})
    keeps_contract(spec);
  keeps_contract_on("ia3:on=xk+xv+gate", Body::both);
}

TEST_CASE("(IA)3 merges into matrices and biases, and comes out again bit for bit") {
  for (const Arch& arch : {small_arch(Stack::encoder), llama_like()}) {
    CAPTURE(arch.family);
    SmallModel model(arch, Dtype::f64);
    const Batch batch = ragged(arch, {5, 1, 8});
    const Array bare = rows_of(model, batch).value();
    const Array key = model.blocks[0]->attention.k.w.value().value().clone();
    Adaptation adaptation(all_methods(), "ia3", model);
    CHECK(same_bits(rows_of(model, batch).value(), bare));
    jitter(adaptation.parameters());
    const Array before = rows_of(model, batch).value();
    CHECK(difference(before, bare) > 1e-3);
    adaptation.merge();
    CHECK(difference(rows_of(model, batch).value(), before) < 1e-12);
    const Array merged = model.blocks[0]->attention.k.w.value().value();
    const double l = adaptation.parameters()[0]->value.value().at(1);
    const std::int64_t at = merged.dim(1) + 2;  // row 1, column 2
    CHECK(merged.at(at) == doctest::Approx(key.at(at) * l).epsilon(1e-14));
    contains(error_of([&] { adaptation.merge(); }), "ia3: it is merged already");
    adaptation.unmerge();
    CHECK(same_bits(rows_of(model, batch).value(), before));
    contains(error_of([&] { adaptation.unmerge(); }), "ia3: it is not merged");
  }
}

TEST_CASE("what reads an input that (IA)3 scales must be merged before it") {
  refuses_to_merge(
      "ia3|lora:r=2,on=down,layers=1", small_arch(Stack::encoder),
      "ia3: it cannot be merged under lora, which reads what it scales at encoder 1 down; "
      "write lora first");
  contains(refusal("ia3:on=norm1"), "no linear is called 'norm1'");
  contains(refusal("ia3:on=down,layers=2"), "layers 0..1");
  contains(refusal("ia3|ia3"), "two methods make a parameter");
}

TEST_CASE("the biases of queries and of the intermediate layer are BitFit's small subset") {
  const Arch arch = small_arch(Stack::encoder);
  CHECK(labels("bitfit:on=q+up", arch) ==
        std::set<std::string>{"encoder 0 q bias", "encoder 0 up bias", "encoder 1 q bias",
                              "encoder 1 up bias"});
  CHECK(labels("bitfit:on=norm1+norm_out+norm_embed,layers=1", arch) ==
        std::set<std::string>{"encoder 1 norm1 bias", "encoder norm_out bias"});
  CHECK(labels("layernorm:on=norm2+norm_embed,layers=0", arch) ==
        std::set<std::string>{"encoder 0 norm2 weight", "encoder 0 norm2 bias",
                              "encoder norm_embed weight", "encoder norm_embed bias"});
  for (const char* spec :
       {"bitfit:on=q+up", "bitfit:on=norm1+o,layers=1", "layernorm:on=norm1+norm_out,layers=0-1"})
    keeps_contract(spec);
  for (const char* spec : {"bitfit:on=xq+norm_x", "layernorm:on=norm_x"})
    keeps_contract_on(spec, Body::both);
  contains(refusal("bitfit:on=xq"), "bitfit: on=xq: this model has q+k+v+o+up+down+norm_embed");
  contains(refusal("layernorm:on=q"), "layernorm: on=q: this model has norm_embed+norm1+norm2");
  contains(refusal("layernorm:on=norm"), "layernorm: on=norm: site: no part is called 'norm'");
  contains(refusal("bitfit:on=q", llama_like()), "no biases");
}
