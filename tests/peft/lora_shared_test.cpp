// share=qkv: q, k and v of one attention read one A, as where PEFT adapts the three as one module.
#include "peft/combine.h"
#include "peft/part_shapes.h"
#include "tests/peft/method_cases.h"
#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::map<std::string, Tensor> by_label(const Parameters& all) {
  std::map<std::string, Tensor> tensors;
  for (const auto& p : all) tensors[p->label()] = p->value;
  return tensors;
}

std::set<std::string> labels(const std::string& spec, const Arch& arch) {
  Model model(arch, {.storage = false});
  const Adaptation adaptation(all_methods(), spec, model);
  CHECK(adaptation.count() == adaptation.formula());
  std::set<std::string> all;
  for (const auto& p : adaptation.parameters()) all.insert(p->label());
  return all;
}

// Three steps of SGD on the fixture's texts, as adapters.py steps takes them.
void take_steps(const Model& model, const Parameters& parameters, const Batch& batch) {
  Optimizer sgd(parameters, {.kind = OptimSpec::Kind::sgd, .decay = 0, .momentum = 0, .clip = 0});
  for (int step = 0; step < 3; ++step) {
    const Tensor logits = logits_of(model, batch);
    Gradients g = backward(squared_error(logits, Array::full(logits.shape(), 1), 100));
    sgd.step(g, 0.05);
  }
}

std::map<std::string, Array> tensors_of(const fs::path& file) {
  const SafetensorsReader reader(file);
  std::map<std::string, Array> all;
  for (const auto& [name, info] : reader.tensors()) {
    all[name] = Array::empty(info.shape);
    reader.read_f32(name, all[name]);
  }
  return all;
}

// What is written of a model's adapter.
std::map<std::string, Array> written(const Model& model, const std::string& spec,
                                     const Parameters& parameters, const fs::path& folder) {
  write_peft_folder(folder, {model.arch(), spec, parameters, "", "", true, "gpt2", nullptr});
  return tensors_of(folder / "adapter_model.safetensors");
}

std::vector<std::string> notes_of(const char* base, const char* spec) {
  const Ours ours(base, spec);
  const Folder folder;
  return ours.write(folder.path, base == std::string("gpt2"));
}

}  // namespace

TEST_CASE("LoRA with one A for q, k and v keeps the contract") {
  for (const char* spec : {"lora:r=2,alpha=4,on=q+k+v,share=qkv,dropout=0.2",
                           "lora:r=2,on=all,share=qkv,ranks=q+k+v:3;v+k+q.1:1;up:1,scale=rs",
                           "lora:r=1,on=v+k+down,share=qkv,layers=1,bias=all,init=kaiming",
                           "lora:r=2,on=q+v,share=qkv|lora:r=1,on=k"})
    keeps_contract(spec);
}

TEST_CASE("the first of q, k and v has the A, in each attention to itself; others have their own") {
  const Arch gpt2 = load_arch(fixture("gpt2"));
  CHECK(labels("lora:r=1,on=v+k+o,share=qkv,layers=1", gpt2) ==
        std::set<std::string>{"decoder 1 k lora_A", "decoder 1 k lora_B", "decoder 1 v lora_B",
                              "decoder 1 o lora_A", "decoder 1 o lora_B"});
  const auto across = labels("lora:r=1,on=q+k+v+xq+xk+xv,share=qkv", contract_arch(Body::both));
  for (const char* own : {"encoder 0 q", "decoder 1 q", "decoder 0 xq", "decoder 0 xk"})
    CHECK(across.contains(std::string(own) + " lora_A"));
  for (const char* none : {"encoder 0 k", "decoder 1 v"}) {
    CHECK_FALSE(across.contains(std::string(none) + " lora_A"));
    CHECK(across.contains(std::string(none) + " lora_B"));
  }
}

TEST_CASE("one A is three copies of it in one pass, and its gradient is the sum of theirs") {
  const Arch arch = small_arch(Stack::decoder);
  SmallModel one(arch, Dtype::f64), three(arch, Dtype::f64);
  const Adaptation shared(all_methods(), "lora:r=2,alpha=3,on=q+k+v,share=qkv", one);
  const Adaptation apart(all_methods(), "lora:r=2,alpha=3,on=q+k+v", three);
  const auto of_one = by_label(shared.parameters()), of_three = by_label(apart.parameters());
  // It starts as the first one's own does.
  CHECK(same_bits(of_one.at("decoder 0 q lora_A").value(),
                  of_three.at("decoder 0 q lora_A").value()));
  jitter(shared.parameters());
  for (const auto& p : apart.parameters()) {
    const Site at{p->site.stack, p->site.layer, p->name == "lora_A" ? Part::q : p->site.part};
    p->value.value().copy_from(of_one.at(to_string(at) + " " + p->name).value());
  }
  const Batch batch = ragged(arch, {5, 1, 8});
  const Tensor y = rows_of(one, batch), z = rows_of(three, batch);
  CHECK(same_bits(y.value(), z.value()));
  const Array target = random_array(y.shape(), 4, Dtype::f64);
  const Gradients got = backward(squared_error(y, target, 10)),
                  want = backward(squared_error(z, target, 10));
  for (int layer = 0; layer < arch.layers; ++layer) {
    const std::string site = fmt::format("decoder {} ", layer);
    Array sum = want[of_three.at(site + "q lora_A")].own_copy();
    for (const char* part : {"k", "v"}) {
      const Array& more = want[of_three.at(site + part + " lora_A")];
      CHECK(difference(more, Array::zeros(more.shape(), Dtype::f64)) > 1e-3);
      sum = (Tensor(sum) + Tensor(more)).value();
    }
    CHECK(difference(got[of_one.at(site + "q lora_A")], sum) < 1e-13);
    for (const char* part : {"q", "k", "v"})
      CHECK(difference(got[of_one.at(site + part + " lora_B")],
                       want[of_three.at(site + part + " lora_B")]) < 1e-13);
  }
}

TEST_CASE("what reads one A reads its input through one mask of dropout") {
  const Arch arch = small_arch(Stack::decoder);
  const auto apart = [&](const char* spec) {
    SmallModel model(arch, Dtype::f64);
    const Adaptation adaptation(all_methods(), spec, model);
    auto p = by_label(adaptation.parameters());
    jitter(adaptation.parameters());
    p.at("decoder 0 k lora_B").value().copy_from(p.at("decoder 0 q lora_B").value());
    if (p.contains("decoder 0 k lora_A"))
      p.at("decoder 0 k lora_A").value().copy_from(p.at("decoder 0 q lora_A").value());
    const Array x = random_array({3, arch.width}, 5, Dtype::f64);
    const Ctx ctx{.train = true,
                  .key = {1, 2},
                  .address = {Array::of(std::vector<std::int32_t>{0, 0, 1}),
                              Array::of(std::vector<std::int32_t>{0, 1, 0})}};
    const auto change = [&](const Linear& l) {
      return (l(Tensor(x), ctx) - linear(Tensor(x), l.w.value(), l.b.value())).value();
    };
    const Attention& a = model.blocks[0]->attention;
    return difference(change(a.q), change(a.k));
  };
  CHECK(apart("lora:r=2,on=q+k+v,dropout=0.5,share=qkv") < 1e-13);
  CHECK(apart("lora:r=2,on=q+k+v,dropout=0.5") > 1e-3);
}

TEST_CASE("an adapter of PEFT's on c_attn is read without copies and written as it was") {
  const Adapted adapted(peft_fixture("gpt2-fused"), "gpt2");
  CHECK(adapted.read.notes.empty());
  CHECK_FALSE(adapted.read.values.contains("decoder 0 k lora_A"));
  const Folder folder;
  const auto again = written(*adapted.model, adapted.read.spec, adapted.adaptation->parameters(),
                             folder / "again");
  const auto before = tensors_of(peft_fixture("gpt2-fused") / "adapter_model.safetensors");
  CHECK(again.size() == before.size());
  for (const auto& [name, value] : before) CHECK(same_bits(again.at(name), value));
  const auto config = ordered_json::parse(read_file(folder / "again" / "adapter_config.json"));
  CHECK(config["r"] == 3);
  CHECK(config["lora_alpha"] == 6);
  CHECK(config["rank_pattern"].empty());
}

TEST_CASE("an adapter of PEFT's on c_attn trains on as it does in PEFT") {
  const fs::path theirs = peft_fixture("gpt2-fused");
  const auto before = tensors_of(theirs / "adapter_model.safetensors"),
             after = tensors_of(theirs / "steps.safetensors");
  Adapted adapted(theirs, "gpt2");
  const Batch batch = batch_of(SafetensorsReader(theirs / "outputs.safetensors"));
  take_steps(*adapted.model, adapted.adaptation->parameters(), batch);
  const Folder folder;
  const auto got =
      written(*adapted.model, adapted.read.spec, adapted.adaptation->parameters(), folder / "x");
  CHECK(got.size() == after.size());
  for (const auto& tensor : after) {
    const auto& [name, value] = tensor;
    CAPTURE(tensor.first);
    CHECK(difference(before.at(name), value) > 5e-3);
    CHECK(difference(got.at(name), value) < 2e-6);
  }

  // Copies of A go apart: another model.
  const auto model = load_model(fixture("gpt2"));
  const Adaptation copies(all_methods(), "lora:r=3,alpha=6,on=q+k+v+down", *model);
  for (const auto& p : copies.parameters()) {
    const auto own = adapted.read.values.find(p->label());
    const Site q{p->site.stack, p->site.layer, Part::q};
    p->value.value().copy_from(own != adapted.read.values.end()
                                   ? own->second
                                   : adapted.read.values.at(to_string(q) + " lora_A"));
  }
  take_steps(*model, copies.parameters(), batch);
  const auto p = by_label(copies.parameters());
  const std::string a = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight";
  for (const char* part : {"q", "k", "v"})
    CHECK(difference(p.at(std::string("decoder 0 ") + part + " lora_A").value(), after.at(a)) >
          1e-3);
}

TEST_CASE("what PEFT trains otherwise is said when one A for q, k and v is written") {
  CHECK(notes_of("gpt2", "lora:r=2,on=q+k+v,share=qkv").empty());
  const auto two = notes_of("gpt2", "lora:r=2,on=q+v,share=qkv");
  CHECK(two.size() == 1);
  contains(two[0], "rows of lora_B that do not train here are 0 there, and train");
  const auto copies = notes_of("bert", "lora:r=2,on=q+v,share=qkv");
  CHECK(std::ranges::count_if(copies, [](const std::string& n) {
          return n.find("one lora_A of q, k and v is copied for each") != std::string::npos;
        }) == 1);
  const auto mixed = notes_of("gpt2", "lora:r=2,on=q+v,share=qkv|lora:r=2,on=k");
  CHECK(mixed.size() == 1);
  contains(mixed[0], "their lora_As stand in one, of as many ranks");
}

TEST_CASE("adapters with one A for q, k and v are combined as those with copies of it") {
  const Arch arch = small_arch(Stack::decoder);
  const std::string one = "lora:r=2,alpha=3,on=q+k+v,share=qkv",
                    three = "lora:r=2,alpha=3,on=q+k+v";
  SmallModel model(arch);
  const Adaptation adaptation(all_methods(), one, model);
  jitter(adaptation.parameters());
  LoraValues shared{"one", one, {}}, copies{"one", three, {}};
  for (const auto& p : adaptation.parameters())
    shared.values[p->label()] = copies.values[p->label()] = p->value.value();
  for (int layer = 0; layer < arch.layers; ++layer)
    for (const char* part : {"k", "v"})
      copies.values[fmt::format("decoder {} {} lora_A", layer, part)] =
          shared.values.at(fmt::format("decoder {} q lora_A", layer));
  const CombineSpec spec{.how = "linear", .weights = {0.5}};
  const CombinedLora a = combine({shared}, spec, arch), b = combine({copies}, spec, arch);
  CHECK(a.spec == "lora:r=2,on=q+k+v,share=qkv");
  CHECK(b.spec == "lora:r=2,on=q+k+v");
  CHECK(a.parameters.size() == 4 * 2);
  CHECK(b.parameters.size() == 6 * 2);
  for (const auto& p : b.parameters) {
    Site at = p->site;
    if (p->name == "lora_A") at.part = Part::q;  // where the one A lies
    const auto same = std::ranges::find_if(a.parameters, [&](const auto& other) {
      return other->site == at && other->name == p->name;
    });
    REQUIRE(same != a.parameters.end());
    CHECK(same_bits((*same)->value.value(), p->value.value()));
  }
}

TEST_CASE("what cannot share an A is one clear error") {
  contains(refusal("lora:on=up,share=qkv"), "of q, k and v none is adapted; need at least two");
  contains(refusal("lora:on=v+o,share=qkv"), "of q, k and v only v is adapted; need at least two");
  contains(refusal("lora:share=all"), "need one of none, qkv");
  contains(refusal("lora:r=2,share=qkv,ranks=v:3"),
           "lora: share=qkv: in layer 0 q has r=2, alpha=2 and v r=3, alpha=3; what reads one A "
           "needs the same in ranks= and alphas=");
  contains(refusal("lora:r=2,on=q+k+v,share=qkv,alphas=k.1:5"),
           "in layer 1 q has r=2, alpha=2 and k r=2, alpha=5");
  contains(refusal("lora:r=25,on=q+v,share=qkv"),
           "r=25 on encoder 0 q, a 48 x 24 matrix; need r <= 24");
  // A rank may exceed the rows of one of them, as in a module that is all three.
  const int rows = static_cast<int>(shape_of(llama_like(), Part::k).out);
  const std::string spec = fmt::format("lora:r={},on=q+k", rows + 1);
  contains(refusal(spec, llama_like()), fmt::format("r={} on decoder 0 k", rows + 1));
  CHECK(labels(spec + ",share=qkv", llama_like()).contains("decoder 0 k lora_B"));
}
