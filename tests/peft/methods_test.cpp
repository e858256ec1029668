// Methods: the contract on every row and on compositions, counts, LoRA's forms, specs, lifetimes.
#include "nn/files/atomic.h"
#include "peft/files.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

Tensor loss_of(const Model& model, const Batch& batch, Checkpoint checkpoint = Checkpoint::none) {
  Ctx ctx{.checkpoint = checkpoint};
  const Sequence s = model.forward(batch, ctx);
  return model.lm_loss(s, batch, ctx);
}

}  // namespace

TEST_CASE("every method of the table keeps the contract, on an encoder, a decoder and both") {
  for (const Method& method : all_methods())
    for (const Body body : kBodies) keeps_contract_on(method.example, body);
}

TEST_CASE("compositions and options keep the contract, too") {
  for (const char* spec : {"lora:r=2,on=q+v|bitfit", "houlsby:m=3,norms=no|lora:r=2,on=q+v",
                           "lora:r=3,on=down,layers=1",
                           "lora:r=2,on=q,dropout=0.3,init=kaiming,scale=rs|lora:r=1,on=k+up",
                           "houlsby:m=2,on=mlp,f=relu,layers=1-2", "layernorm|lora:r=1",
                           "full:embeddings=no", "top:k=2|lora:r=2,layers=0"})
    keeps_contract(spec);
}

TEST_CASE("a method whose few numbers start far from 0 is given a larger rate to learn at") {
  for (const Body body : kBodies) {
    const std::vector<Clause> all = run_contract(all_methods(), "qknorm:gate=one", body);
    CAPTURE(text_of(all));
    CHECK(all_kept(all));
  }
}

TEST_CASE("the top layers of stacks of unequal height are not guessed at") {
  const char* spec = "houlsby:m=2,layers=top2";
  keeps_contract_on(spec, Body::decoder);
  contains(error_of([&] { run_contract(all_methods(), spec, Body::both); }),
           "layers=top2: the encoder has 2 layers, the decoder 3; write a range");
}

TEST_CASE("attention across to an encoder has slots like any other") {
  for (const char* spec : {"lora:r=2,on=q+xq+xk+xv+xo,dropout=0.3", "lora:r=1,on=xk,layers=2",
                           "houlsby:m=2,on=attn+cross+mlp", "houlsby:m=2,on=cross,norms=no"}) {
    keeps_contract_on(spec, Body::both);
    const std::string message = error_of([&] { run_contract(all_methods(), spec, Body::decoder); });
    contains(message, std::string(spec).starts_with("lora") ? "it has q k v o up down"
                                                            : "need attn, mlp or attn+mlp");
  }
  contains(error_of([] { counted("t5-base", "lora:on=gate"); }),
           "no linear is called 'gate' in this model; it has q k v o xq xk xv xo up down");
  contains(refusal("lora:r=1,layers=top2", contract_arch(Body::both)),
           "the encoder has 2 layers, the decoder 3");
  contains(refusal("houlsby:m=2,on=cross,layers=3", contract_arch(Body::both)), "layers 0..2");
}

TEST_CASE("every method's formula is what it makes, in every known architecture") {
  for (const std::string& arch : arch_names())
    for (const Method& method : all_methods()) {
      CAPTURE(arch);
      CAPTURE(method.name);
      if (method.name == "bitfit" && !arch_named(arch).biases)
        contains(error_of([&] { counted(arch, "bitfit"); }), "no biases");
      else
        counted(arch, method.example);
    }
  for (const std::string& arch : arch_names()) {
    const Counted all = counted(arch, "full:vocabulary=yes");
    CHECK(all.trains == all.all);
  }
}

TEST_CASE("LoRA beside the product, in the weight, and merged are one function") {
  for (const Arch& arch : {small_arch(Stack::encoder), llama_like()}) {
    CAPTURE(arch.family);
    SmallModel out(arch, Dtype::f64), weight(arch, Dtype::f64);
    Adaptation adaptation(all_methods(), "lora:r=3,alpha=6,on=q+k+v+o+up+down", out);
    jitter(adaptation.parameters());
    const Batch batch = ragged(arch, {5, 1, 8});

    std::vector<Handle> handles;  // W' = W + (alpha / r) B A
    std::vector<Tensor> leaves;
    const auto linears =
        weight.linears({{Part::q, Part::k, Part::v, Part::o, Part::up, Part::down}});
    for (std::size_t i = 0; i < linears.size(); ++i) {
      const Tensor a = Tensor::leaf(adaptation.parameters()[2 * i]->value.value());
      const Tensor b = Tensor::leaf(adaptation.parameters()[2 * i + 1]->value.value());
      leaves.insert(leaves.end(), {a, b});
      handles.push_back(linears[i]->weight.add(
          "lora", [=](Tensor w, const Ctx&) { return w + 2.0 * matmul(b, a); }));
    }
    const Tensor beside = loss_of(out, batch), inside = loss_of(weight, batch);
    CHECK(difference(rows_of(out, batch).value(), rows_of(weight, batch).value()) < 1e-12);
    const Gradients ga = backward(beside), gb = backward(inside);
    for (std::size_t i = 0; i < leaves.size(); ++i)
      CHECK(difference(ga[adaptation.parameters()[i]->value], gb[leaves[i]]) < 1e-10);

    const Array before = rows_of(out, batch).value();
    adaptation.merge();
    CHECK(difference(rows_of(out, batch).value(), before) < 1e-12);
    CHECK_FALSE(loss_of(out, batch).needs_grad());
    contains(error_of([&] { adaptation.merge(); }), "merged already");
    adaptation.unmerge();
    CHECK(same_bits(rows_of(out, batch).value(), before));
    contains(error_of([&] { adaptation.unmerge(); }), "not merged");
  }
}

TEST_CASE("with B = 0 LoRA is the base, bit for bit, in training and with dropout, too") {
  for (Arch arch : {small_arch(Stack::encoder), small_arch(Stack::decoder), llama_like()}) {
    arch.dropout = 0.1;
    SmallModel model(arch);
    const Batch batch = ragged(arch, {5, 1, 8});
    const auto rows = [&] {
      Ctx ctx{.train = true, .key = {1, 2}};
      return model.forward(batch, ctx).rows.value();
    };
    const Array before = rows();
    const Adaptation adaptation(all_methods(), "lora:r=4,on=q+k+v+o+up+down,dropout=0.2", model);
    CHECK(same_bits(before, rows()));
  }
}

TEST_CASE("a composition that cannot be merged whole stays unmerged, bit for bit") {
  refuses_to_merge("lora:r=2|houlsby:m=3", small_arch(Stack::encoder),
                   "houlsby: it cannot be merged");
}

TEST_CASE("what a spec gets wrong is one clear error, and the model stays as it was") {
  contains(refusal("lora:rank=8"), "lora: unknown option 'rank'; it takes alpha, alphas, bias");
  contains(refusal("lora:r=8,r=4"), "'r' is given twice");
  contains(refusal("lra:r=8"), "method 'lra' is unknown; there are head, full");
  contains(refusal("lora:r=0"), "lora: r=0; need a whole number of at least 1");
  contains(refusal("lora:r=-1"), "r=-1");
  contains(refusal("lora:r=3000000000"), "need a whole number of at least 1, at most 2147483647");
  contains(refusal("lora:r=1.5"), "r=1.5");
  contains(refusal("lora:r=25"), "need r <= 24");
  contains(refusal("lora:r"), "'r' is not key=value");
  contains(refusal("lora:r="), "not key=value");
  contains(refusal("lora:"), "not key=value");
  contains(refusal(""), "no name");
  contains(refusal("lora:r=1||bitfit"), "no name");
  contains(refusal("lora:alpha=x"), "alpha=x; need a number");
  contains(refusal("lora:dropout=1"), "dropout=1");
  contains(refusal("lora:init=zeros"), "need one of gaussian, kaiming");
  contains(refusal("lora:on=w"), "no part is called 'w'");
  contains(refusal("lora:on=q+q"), "'q' is named twice");
  contains(refusal("lora:on=gate"),
           "no linear is called 'gate' in this model; it has q k v o up down");
  contains(refusal("lora:on=norm1"), "no linear is called 'norm1'");
  contains(refusal("lora:layers=2"), "layers 0..1");
  contains(refusal("lora:layers=1-0"), "layers=1-0");
  contains(refusal("bitfit:layers=0-2"), "bitfit: layers=0-2");
  contains(refusal("houlsby:m=25"), "need m <= 24");
  contains(refusal("houlsby:m=0"), "m=0");
  contains(refusal("houlsby:on=q"), "need attn, mlp");
  contains(refusal("houlsby:f=sine"), "need one of gelu, relu, tanh");
  contains(refusal("houlsby:std=-1"), "std=-1");
  contains(refusal("top:k=3"), "the model has 2 layers");
  contains(refusal("full:embeddings=maybe"), "need one of yes, no");
  contains(refusal("head:k=1"), "head: unknown option 'k'; it takes none");
  contains(refusal("bitfit", llama_like()), "no biases");
}

TEST_CASE("two methods that train one base parameter are refused") {
  contains(refusal("full|bitfit"), "already trains by a method before it");
  contains(refusal("bitfit|layernorm"), "already trains");
  contains(refusal("lora:r=1|houlsby:m=2|layernorm"), "layernorm: 'encoder");
  CHECK(refusal("houlsby:m=2,norms=no|layernorm") == "(no error)");
}

TEST_CASE("adapter and model may be dropped in any order, also between forward and backward") {
  const Arch arch = small_arch(Stack::decoder);
  const Batch batch = ragged(arch, {5, 1, 8});
  for (const char* spec : {"lora:r=2,on=q+v+down", "houlsby:m=3", "full"}) {
    CAPTURE(spec);
    auto model = std::make_unique<SmallModel>(arch);
    const Array bare = rows_of(*model, batch).value();
    auto adaptation = std::make_unique<Adaptation>(all_methods(), spec, *model);
    jitter(adaptation->parameters());
    const Parameters trained = adaptation->parameters();
    const Gradients want = backward(loss_of(*model, batch));

    const Tensor loss = loss_of(*model, batch);
    adaptation.reset();
    CHECK(same_bits(bare, rows_of(*model, batch).value()));
    const Gradients got = backward(loss);
    for (const auto& p : trained) CHECK(same_bits(want[p->value], got[p->value]));

    adaptation = std::make_unique<Adaptation>(all_methods(), spec, *model);
    const Tensor again = loss_of(*model, batch),
                 forgotten = loss_of(*model, batch, Checkpoint::blocks);
    model.reset();
    backward(again);
    backward(forgotten);  // runs the blocks again
    adaptation.reset();
    backward(again);
  }
}

TEST_CASE("an adapter dropped before a checkpointed backward is an error, not a wrong gradient") {
  const Arch arch = small_arch(Stack::decoder);
  const Batch batch = ragged(arch, {5, 3});
  for (const char* spec : {"lora:r=2", "houlsby:m=3", "full"}) {
    SmallModel model(arch);
    auto adaptation = std::make_unique<Adaptation>(all_methods(), spec, model);
    const Tensor loss = loss_of(model, batch, Checkpoint::blocks);
    adaptation.reset();
    contains(error_of([&] { backward(loss); }), "same leaves");
  }
}

TEST_CASE("switching all edits off leaves the bare model, by layers") {
  const Arch arch = small_arch(Stack::encoder, 24, 3);
  SmallModel model(arch);
  const Batch batch = ragged(arch, {5, 1, 8});
  const Array bare = rows_of(model, batch).value();
  Adaptation adaptation(all_methods(), "lora:r=2,on=q|houlsby:m=3,norms=no", model);
  jitter(adaptation.parameters());
  const Array adapted = rows_of(model, batch).value();
  adaptation.enable(0, 2, false);
  CHECK(same_bits(bare, rows_of(model, batch).value()));
  adaptation.enable(1, 1, true);
  for (const auto& a : adaptation.adapters())
    for (const auto& f : a->fired()) CHECK(f.calls == 1);
  CHECK_FALSE(same_bits(bare, rows_of(model, batch).value()));
  adaptation.enable(0, 2, true);
  CHECK(same_bits(adapted, rows_of(model, batch).value()));
}

TEST_CASE("a head's parameters train with any method, and are new for every task") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  CHECK(train_head(model).empty());
  model.set_head(std::make_unique<LinearHead>(model.build(), arch, 3, Pool::mean, true));
  const Parameters head = train_head(model);
  CHECK(head.size() == 4);
  CHECK(model.head().parameters() == 24 * 24 + 24 + 3 * 24 + 3);
  for (const auto& p : head) CHECK(p->trains());
}

TEST_CASE("an adapter's file that does not fit is one error that lists all, and changes nothing") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  const Folder folder;
  {
    const Adaptation saved(all_methods(), "lora:r=2,on=q+k", model);
    save_adapter(folder.path, saved.spec(), saved.parameters(), {{"task", "none"}});
  }
  const AdapterFile file = read_adapter_config(folder.path);
  CHECK(file.spec == "lora:r=2,on=q+k");
  CHECK(file.more.at("task") == "none");
  const Adaptation other(all_methods(), "lora:r=3,on=q+v", model);
  std::vector<Array> before;
  for (const auto& p : other.parameters()) before.push_back(p->value.value().clone());
  const std::string message =
      error_of([&] { load_adapter_values(folder.path, other.parameters()); });
  contains(message, "missing: encoder 0 v lora_A");
  contains(message, "unexpected: encoder 1 k lora_B");
  contains(message, "encoder 0 q lora_A: the file has [2, 24], the model needs [3, 24]");
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(same_bits(before[i], other.parameters()[i]->value.value()));
  for (const auto& [bad, as] :
       {std::pair{NAN, "NaN at [1, 3]"}, {-INFINITY, "infinite at [1, 3]"}}) {
    AdapterValues values = read_adapter_values(folder.path);
    values["encoder 0 q lora_A"].data<float>()[values["encoder 0 q lora_A"].dim(1) + 3] = bad;
    const Adaptation same(all_methods(), file.spec, model);
    const Array was = same.parameters()[0]->value.value().clone();
    contains(error_of([&] { set_adapter_values(values, same.parameters(), "spoilt"); }),
             fmt::format("encoder 0 q lora_A [2, 24]: {}; the run that wrote it went astray", as));
    CHECK(same_bits(was, same.parameters()[0]->value.value()));
  }
  write_file_atomically(folder / "adapter_config.json", "{\"format\": 1}");
  contains(error_of([&] { read_adapter_config(folder.path); }), "adapter_config.json");
}
