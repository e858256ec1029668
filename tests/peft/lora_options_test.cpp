// LoRA beyond its matrices' one rank: patterns, embeddings, biases, modules that train whole.
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::map<std::string, Shape> shapes(const std::string& spec, const Arch& arch) {
  Model model(arch, {.storage = false});
  const Adaptation adaptation(all_methods(), spec, model);
  CHECK(adaptation.count() == adaptation.formula());
  std::map<std::string, Shape> all;
  for (const auto& p : adaptation.parameters()) all[p->label()] = p->value.shape();
  return all;
}

// GPT-2's shape, but for a vocabulary's matrix of its own.
Arch untied() {
  Arch a = small_arch(Stack::decoder);
  a.tied = false;
  return a;
}

}  // namespace

TEST_CASE("LoRA with biases, patterns, embeddings and whole modules keeps the contract") {
  for (const char* spec :
       {"lora:r=2,on=q+v,bias=all", "lora:r=1,on=up+q,bias=lora_only,layers=1",
        "lora:r=2,on=all,ranks=q+k:3;v.0-1:1;up.1:2,alphas=v:5;q.0:0.5,scale=rs",
        "lora:r=2,on=embed", "lora:r=2,on=q+embed,dropout=0.2,layers=1,ranks=embed:1",
        "lora:r=2,on=q,save=norm1+down+embed+norm_out,bias=all",
        "lora:r=1,on=v,bias=lora_only|lora:r=2,on=q,save=norm2"})
    keeps_contract(spec);
  keeps_contract_on("lora:r=2,on=all,ranks=xq+xv:1,save=norm_x,bias=lora_only", Body::both);
}

TEST_CASE("on=all is every linear of the blocks, and nothing else") {
  const Arch arch = llama_like();
  CHECK(shapes("lora:r=2,on=all", arch) == shapes("lora:r=2,on=q+k+v+o+gate+up+down", arch));
  CHECK(shapes("lora:r=1,on=all", contract_arch(Body::both)).size() == 2 * (2 * 7 + 3 * 11));
}

TEST_CASE("of ranks and alphas that match a matrix the last counts; the others keep r and alpha") {
  const auto made =
      shapes("lora:r=2,on=q+v+embed,ranks=q+v:3;v.1:5;embed:4", small_arch(Stack::encoder));
  CHECK(made.at("encoder 0 q lora_A") == Shape{3, 24});
  CHECK(made.at("encoder 0 v lora_A") == Shape{3, 24});
  CHECK(made.at("encoder 1 v lora_B") == Shape{24, 5});
  CHECK(made.at("encoder embed lora_embedding_A") == Shape{29, 4});
  CHECK(made.at("encoder embed lora_embedding_B") == Shape{24, 4});

  // One spec with patterns is several joined by a bar.
  const Arch arch = small_arch(Stack::decoder);
  SmallModel one(arch, Dtype::f64), several(arch, Dtype::f64);
  const Adaptation a(all_methods(), "lora:r=2,alpha=3,on=q+v,ranks=v:1,alphas=q.1:7;v:0.5", one);
  const Adaptation b(all_methods(),
                     "lora:r=2,alpha=3,on=q,layers=0|lora:r=2,alpha=7,on=q,layers=1|"
                     "lora:r=1,alpha=0.5,on=v",
                     several);
  jitter(a.parameters());
  jitter(b.parameters());
  const Batch batch = ragged(arch, {5, 1, 8});
  CHECK(same_bits(rows_of(one, batch).value(), rows_of(several, batch).value()));
}

TEST_CASE("LoRA on embeddings is a low-rank change of the table, for tokens alone") {
  const Arch arch = untied();
  SmallModel model(arch, Dtype::f64), table(arch, Dtype::f64);
  Adaptation adaptation(all_methods(), "lora:r=3,alpha=6,on=embed", model);
  const Batch batch = ragged(arch, {5, 1, 8});
  CHECK(same_bits(rows_of(model, batch).value(), rows_of(table, batch).value()));
  jitter(adaptation.parameters());
  const auto p = adaptation.parameters();
  Array& rows = table.embedding.token.parameter().value.value();
  kernels::gemm(rows, p[0]->value.value(), p[1]->value.value().transpose(), 2, 1);
  const Array before = rows_of(model, batch).value();
  CHECK(difference(before, rows_of(table, batch).value()) < 1e-12);
  adaptation.merge();
  CHECK(difference(rows_of(model, batch).value(), before) < 1e-12);
  adaptation.unmerge();
  CHECK(same_bits(rows_of(model, batch).value(), before));

  // A row that an edit after the embedding's own puts in is no token.
  SmallModel bare(arch, Dtype::f64);
  const auto virtual_row = [](Sequence s, const Ctx&) {
    s.source.back() = -1;
    return s;
  };
  const Handle first = bare.embedding.out.add("virtual", virtual_row);
  const Array plain = rows_of(bare, batch).value();
  const Adaptation beside(all_methods(), "lora:r=3,alpha=6,on=embed", bare);
  jitter(beside.parameters());
  Ctx ctx, other;
  const Array got = bare.embed(batch, ctx).rows.value();
  SmallModel none(arch, Dtype::f64);
  const Array want = none.embed(batch, other).rows.value();
  CHECK(same_bits(got.slice(0, 13, 14).clone(), want.slice(0, 13, 14).clone()));
  CHECK_FALSE(same_bits(got.slice(0, 12, 13).clone(), want.slice(0, 12, 13).clone()));
}

TEST_CASE("a tied vocabulary is not adapted with the embeddings, so they do not merge") {
  refuses_to_merge("lora:r=2,on=embed+q", small_arch(Stack::decoder),
                   "lora: it cannot be merged: its matrix of embeddings is the vocabulary's, too");
}

TEST_CASE("biases and whole modules are counted, trained in copies, and once each") {
  const Arch arch = small_arch(Stack::encoder);
  const auto names = shapes("lora:r=1,on=q,bias=lora_only,layers=1,save=norm_embed", arch);
  CHECK(names.size() == 5);
  CHECK(names.contains("encoder 1 q bias"));
  CHECK(names.contains("encoder norm_embed weight"));
  const std::int64_t lora = 12 * 8 * 2 * 768;
  CHECK(counted("bert-base", "lora:r=8,on=q,bias=all").trains == lora + 102912 - 768);
  CHECK(counted("bert-base", "lora:r=8,on=q,bias=lora_only").trains == lora + 12 * 768);
  CHECK(counted("bert-base", "lora:r=8,on=q,save=norm1,bias=all").trains ==
        lora + 102912 - 768 + 12 * 768);
  CHECK(counted("bert-base", "lora:r=8,on=embed").trains == 8 * (30522 + 768));
  CHECK(counted("gpt2", "lora:r=8,on=q,save=embed+position").trains ==
        lora + 50257 * 768 + 1024 * 768);
  CHECK(counted("llama-7b", "lora:r=8,on=q,save=lm_head+norm_out").trains ==
        32 * 8 * 2 * 4096 + 32000 * 4096 + 4096);
  CHECK(counted("bert-base", "lora:r=8,on=q,save=lm_dense+lm_norm+lm_head").trains ==
        lora + 768 * 768 + 768 + 2 * 768 + 30522);
  CHECK(counted("llama-7b", "lora:r=8,on=all").trains == 32 * 8 * (4 * 8192 + 3 * (4096 + 11008)));
}

TEST_CASE("what a pattern, a bias or a module to save gets wrong is one clear error") {
  contains(refusal("lora:ranks=q"), "lora: ranks=q: 'q' is not part:number");
  contains(refusal("lora:ranks=q:4;"), "lora: ranks=q:4;: '' is not part:number");
  contains(refusal("lora:ranks=q:x"), "'q:x' is not part:number or part.layers:number");
  contains(refusal("lora:ranks=q:1.5"), "need whole numbers of at least 1");
  contains(refusal("lora:ranks=q:0"), "need whole numbers of at least 1");
  contains(refusal("lora:ranks=q:25"), "lora: r=25 on encoder 0 q, a 24 x 24 matrix");
  contains(refusal("lora:ranks=up:4"), "nothing that is adapted matches 'up:4'; on=q+v in layers");
  contains(refusal("lora:ranks=q.1:4,layers=0"), "matches 'q.1:4'");
  contains(refusal("lora:ranks=q.2:4"), "layers=2: the model has layers 0..1");
  contains(refusal("lora:ranks=w:4"), "no part is called 'w'");
  contains(refusal("lora:alphas=embed:4"), "nothing that is adapted matches 'embed:4'");
  contains(refusal("lora:on=embed,ranks=embed.0:4"), "matches 'embed.0:4'");
  contains(refusal("lora:bias=some"), "need one of none, all, lora_only");
  contains(refusal("lora:bias=lora_only", llama_like()), "there are none in this model");
  contains(refusal("lora:bias=all", llama_like()), "lora: bias=all; there are none in this model");
  contains(refusal("lora:save=q"), "save=q: q is adapted by on=");
  contains(refusal("lora:on=embed,save=embed"), "embed is adapted by on=");
  contains(refusal("lora:save=gate"), "this model has no gate to train");
  contains(refusal("lora:save=head"), "this model has no head to train");
  contains(refusal("lora:save=norm"), "lora: save=norm: site: no part is called 'norm'");
  contains(refusal("lora:on=embed,r=25"), "lora: r=25 on the embedding, a 29 x 24 matrix");
  contains(refusal("lora:on=q+all"), "no part is called 'all'");
  contains(refusal("lora:r=2,save=norm1|layernorm"), "already trains by a method before it");
}
