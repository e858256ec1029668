// Properties that PEFT's own tests hold their methods to and that no clause of the contract states
// (README.md of tests/ has the table): layers, names, what is targeted, how methods start.
#include <cmath>
#include <set>

#include "peft/files.h"
#include "peft/part_shapes.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Moments {
  double mean = 0, std = 0, most = 0;
};
Moments moments(const Array& a) {
  Moments m;
  const auto values = a.to_vector();
  for (const double v : values) m.mean += v / static_cast<double>(values.size());
  for (const double v : values) {
    m.std += (v - m.mean) * (v - m.mean) / static_cast<double>(values.size());
    m.most = std::max(m.most, std::abs(v));
  }
  m.std = std::sqrt(m.std);
  return m;
}

// What one parameter of a wide model starts as.
Moments start_of(const std::string& spec, const std::string& label) {
  Model model(small_arch(Stack::encoder, 96, 2, 2), {.seed = 5});
  const Adaptation a(all_methods(), spec, model);
  for (const auto& p : a.parameters())
    if (p->label() == label) return moments(p->value.value());
  FAIL("no parameter ", label);
  return {};
}

}  // namespace

TEST_CASE("of methods that take layers only those asked for train, and get gradients") {
  std::set<std::string> choosy;
  for (const Body body : kBodies)
    for (const Method& method : all_methods()) {
      CAPTURE(method.name);
      Model model(contract_arch(body), {.seed = 7});
      std::unique_ptr<Adaptation> one;
      std::string spec = method.example;
      spec += (spec.find(':') == std::string::npos ? ":" : ",") + std::string("layers=1");
      try {
        one = std::make_unique<Adaptation>(all_methods(), spec, model);
      } catch (const Error& e) {
        contains(e.what(), "unknown option 'layers'");
        continue;
      }
      choosy.insert(method.name);
      for (const auto& p : one->parameters()) {
        // Norms beside adapters train in all layers.
        if (is_norm(p->site.part) && method.name != "layernorm") continue;
        CHECK((p->site.layer == 1 || p->site.layer < 0));
      }
      for (const auto& a : one->adapters())
        for (const auto& f : a->fired()) CHECK((f.site.layer == 1 || f.site.layer < 0));
      Model whole(contract_arch(body), {.seed = 7});
      const std::int64_t everywhere = Adaptation(all_methods(), method.example, whole).count();
      if (method.name == "intrinsic")  // d numbers, however many layers they move
        CHECK(one->count() == everywhere);
      else
        CHECK(one->count() < everywhere);
    }
  for (const char* name : {"lora", "houlsby", "pfeiffer", "parallel", "series", "ia3", "bitfit",
                           "layernorm", "prefix", "llama_adapter"})
    CHECK(choosy.contains(name));
}

TEST_CASE("an adapter of layer 1 is none of layer 11, whose name begins alike") {
  const Folder folder;
  Model model(small_arch(Stack::encoder, 24, 12), {.seed = 3});
  const Adaptation first(all_methods(), "lora:r=2,on=q,layers=1", model);
  save_adapter(folder.path, first.spec(), first.parameters(), {});
  const Adaptation other(all_methods(), "lora:r=1,on=q,layers=11", model);
  const std::string message =
      error_of([&] { load_adapter_values(folder.path, other.parameters()); });
  contains(message, "missing: encoder 11 q lora_A");
  contains(message, "unexpected: encoder 1 q lora_A");
}

TEST_CASE("all linears are those of the blocks: no head of a task is adapted") {
  for (const Body body : kBodies) {
    Model model(contract_arch(body), {.seed = 3});
    model.set_head(std::make_unique<LinearHead>(model.build(), model.arch(), 3, Pool::mean, true));
    const Adaptation all(all_methods(), "lora:r=1,on=all", model);
    CHECK(all.parameters().size() > 10);
    for (const auto& p : all.parameters()) CHECK(p->site.layer >= 0);
  }
}

TEST_CASE("methods start as their papers say: spread, range and what is zero") {
  const double d = 96;
  const Moments a = start_of("lora:r=16", "encoder 0 q lora_A");
  CHECK(a.std == doctest::Approx(1 / std::sqrt(3 * d)).epsilon(0.05));
  CHECK(std::abs(a.mean) < 0.1 * a.std);
  CHECK(a.most > 2.5 * a.std);  // a Gaussian's tail
  const Moments k = start_of("lora:r=16,init=kaiming", "encoder 0 q lora_A");
  CHECK(k.most <= 1 / std::sqrt(d));
  CHECK(k.most > 0.98 / std::sqrt(d));
  CHECK(k.std == doctest::Approx(1 / std::sqrt(3 * d)).epsilon(0.05));
  CHECK(start_of("lora:r=16", "encoder 0 q lora_B").most == 0);
  const Moments table = start_of("lora:r=4,on=embed", "encoder embed lora_embedding_B");
  CHECK(table.std == doctest::Approx(1).epsilon(0.15));
  CHECK(start_of("lora:r=4,on=embed", "encoder embed lora_embedding_A").most == 0);
  CHECK(start_of("ia3", "encoder 1 v ia3_l").mean == doctest::Approx(1).epsilon(1e-12));
  CHECK(start_of("ia3", "encoder 1 v ia3_l").std < 1e-12);
  const Moments p = start_of("prompt:length=40,init=normal", "encoder embed prompt");
  CHECK(p.std == doctest::Approx(1).epsilon(0.05));
}

TEST_CASE("rank-stabilised LoRA scales by the root of its rank") {
  SmallModel model(small_arch(Stack::encoder));
  const Batch batch = ragged(model.arch(), {5, 3});
  const auto rows = [&](const std::string& spec) {
    Adaptation adaptation(all_methods(), spec, model);
    jitter(adaptation.parameters());
    return rows_of(model, batch).value();
  };
  CHECK(same_bits(rows("lora:r=4,alpha=6,on=q,scale=rs"), rows("lora:r=4,alpha=12,on=q")));
  CHECK_FALSE(same_bits(rows("lora:r=4,alpha=6,on=q"), rows("lora:r=4,alpha=12,on=q")));
}

TEST_CASE("what is merged cannot be switched on or off") {
  SmallModel model(small_arch(Stack::encoder));
  Adaptation adaptation(all_methods(), "bitfit|lora:r=2,on=q", model);
  jitter(adaptation.parameters());
  const Batch batch = ragged(model.arch(), {5, 3});
  adaptation.merge();
  const Array merged = rows_of(model, batch).value();
  contains(error_of([&] { adaptation.enable(0, 1, true); }),
           "it is merged, which cannot be switched; unmerge it first");
  contains(error_of([&] { adaptation.merge(); }), "merged already");
  CHECK(same_bits(merged, rows_of(model, batch).value()));
  adaptation.unmerge();
  adaptation.enable(0, 1, false);
  adaptation.enable(0, 1, true);
}
