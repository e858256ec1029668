// The family of bottleneck adapters: options, placements, starts, and what is refused.
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

// The rows after one block, and before it, of a model with the adapter.
struct OneBlock {
  OneBlock(const Arch& arch, const std::string& spec) : model(arch, Dtype::f64) {
    adaptation.emplace(all_methods(), spec, model);
    jitter(adaptation->parameters());
    batch = ragged(arch, {5, 1, 8});
    before = model.embed(batch, ctx);
    after = model.run_blocks(before, ctx, 0, 1).rows.value();
  }
  Tensor at(const std::string& label) const {
    for (const auto& p : adaptation->parameters())
      if (p->label() == label) return p->value;
    FAIL("no parameter " << label);
    return {};
  }
  SmallModel model;
  std::optional<Adaptation> adaptation;
  Batch batch;
  Ctx ctx;
  Sequence before;
  Array after;
};

Arch post_norm() {
  Arch a = small_arch(Stack::encoder, 24, 1);
  a.family = "bert";
  a.pre_norm = a.final_norm = false;
  return a;
}

}  // namespace

TEST_CASE("bottleneck adapters keep the contract in every place, form and start") {
  for (const char* spec :
       {"pfeiffer:m=2,on=attn+mlp,norm=before,f=tanh", "parallel:m=2,s=learned,on=attn,dropout=0.3",
        "parallel:m=2,init=truncated,std=0.02,place=residual",
        "houlsby:m=2,init=mam,f=silu,bias=no",
        "houlsby:m=2,norm=after,gamma=0,f=gelu_tanh,norms=no",
        "series:m=2,on=up,place=before|series:m=2,on=down",
        "parallel:m=2,on=q+v+down,s=1,norm=after,layers=1",
        "pfeiffer:m=2|lora:r=2,on=up|ia3:on=k+v", "ia3|parallel:m=2,norms=yes"})
    keeps_contract(spec);
  for (const char* spec : {"pfeiffer:m=2,on=cross+mlp", "series:m=2,on=xk+gate,place=before",
                           "parallel:m=2,on=cross+xv"})
    keeps_contract_on(spec, Body::both);
}

TEST_CASE("an adapter of zeros leaves the base, bit for bit, whatever else is chosen") {
  for (const Arch& arch : {small_arch(Stack::encoder), llama_like()}) {
    SmallModel model(arch);
    const Batch batch = ragged(arch, {5, 1, 8});
    const Array bare = rows_of(model, batch).value();
    for (const char* spec :
         {"parallel:m=3", "houlsby:m=3,init=mam", "houlsby:m=3,norm=after,gamma=0",
          "series:m=3,on=up+down,init=mam", "series:m=3,on=up,place=before,init=mam,s=2.5"}) {
      CAPTURE(spec);
      const Adaptation adaptation(all_methods(), spec, model);
      CHECK(adaptation.adapters()[0]->starts_as_base());
      CHECK(same_bits(rows_of(model, batch).value(), bare));
    }
    const Adaptation near(all_methods(), "houlsby:m=3", model);
    CHECK_FALSE(near.adapters()[0]->starts_as_base());
    CHECK_FALSE(same_bits(rows_of(model, batch).value(), bare));
    CHECK(difference(rows_of(model, batch).value(), bare) < 0.02);
  }
}

TEST_CASE("joined reads what the block's norm gives of both, and adds to the sub-layer alone") {
  const OneBlock post(post_norm(), "pfeiffer:m=3");
  SmallModel bare(post_norm(), Dtype::f64);
  const Block& block = *bare.blocks[0];
  Ctx ctx;
  const Sequence before = bare.embed(post.batch, ctx);
  ctx.sequence = &before;
  const Tensor h = block.norm1(before.rows + block.attention(before.rows, before.rows, ctx), ctx);
  const Tensor y = block.mlp(h, h, ctx);
  const std::string at = "encoder 0 mlp ";
  const auto update = [&](const OneBlock& of, const Tensor& z) {
    return linear(relu(linear(z, of.at(at + "down.weight"), of.at(at + "down.bias"))),
                  of.at(at + "up.weight"), of.at(at + "up.bias"));
  };
  const Tensor want = block.norm2(h + y + update(post, block.norm2(h + y, ctx)), ctx);
  CHECK(difference(post.after, want.value()) < 1e-12);

  Arch arch = post_norm();
  arch.pre_norm = true;
  const OneBlock pre(arch, "pfeiffer:m=3");
  SmallModel plain(arch, Dtype::f64);
  const Block& b = *plain.blocks[0];
  const Tensor x = before.rows;  // the same embedding
  const Tensor g = x + b.attention(b.norm1(x, ctx), x, ctx);
  const Tensor z = b.mlp(b.norm2(g, ctx), g, ctx);
  CHECK(difference(pre.after, (g + z + update(pre, g + z)).value()) < 1e-12);
}

TEST_CASE("parallel reads behind a pre-norm and residual before it; in post-norm they are one") {
  Arch pre = post_norm();
  pre.pre_norm = true;
  const auto gap = [](const Arch& arch) {
    const OneBlock a(arch, "parallel:m=3"), b(arch, "parallel:m=3,place=residual");
    return difference(a.after, b.after);
  };
  CHECK(gap(post_norm()) == 0);
  CHECK(gap(pre) > 1e-3);
}

TEST_CASE("in front of a linear an adapter changes what the matrix reads") {
  const Arch arch = small_arch(Stack::encoder, 24, 1);
  SmallModel model(arch, Dtype::f64);
  const Adaptation adaptation(all_methods(), "series:m=3,on=up,place=before,s=1.5", model);
  jitter(adaptation.parameters());
  const auto p = adaptation.parameters();
  const Tensor x(random_array({4, 24}, 1, Dtype::f64));
  Ctx ctx;
  const Linear& up = model.blocks[0]->mlp.up;
  const Tensor u = 1.5 * linear(tanh(linear(x, p[0]->value)), p[1]->value);
  const Tensor want = linear(x + u, up.w.value(), up.b.value());
  CHECK(difference(up(x, ctx).value(), want.value()) < 1e-12);
  CHECK(adaptation.count() == 2 * 3 * 24);
}

TEST_CASE("the trained scale of a parallel adapter starts at 1 and moves") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  const Adaptation adaptation(all_methods(), "parallel:m=3,s=learned", model);
  int scales = 0;
  for (const auto& p : adaptation.parameters())
    if (p->name == "scale") {
      CHECK(p->value.item() == 1);
      ++scales;
    }
  CHECK(scales == arch.layers);
}

TEST_CASE("what a bottleneck adapter cannot be is one clear error") {
  contains(refusal("pfeiffer:on=q"), "pfeiffer: on=q; need attn, mlp or attn+mlp");
  contains(refusal("parallel:on=norm1"), "need attn, mlp or attn+mlp, or linears such as up");
  contains(refusal("parallel:on=q,place=joined"), "beside a linear there are serial, parallel");
  contains(refusal("parallel:place=before"), "before is of linears such as up");
  contains(refusal("parallel:s=big"), "parallel: s=big; need a number");
  contains(refusal("houlsby:norm=both"), "need one of none, before, after");
  contains(refusal("houlsby:gamma=0"), "unknown option 'gamma'");
  contains(refusal("houlsby:norm=after,gamma=2"), "need one of 1, 0");
  for (const char* spec : {"parallel:norm=after,gamma=0", "houlsby:init=mam,norm=after,gamma=0"})
    contains(refusal(spec), ": init=mam with norm=after,gamma=0: W_up and the norm's gain would");
  CHECK(refusal("parallel:norm=after,m=3") == "(no error)");
  CHECK(refusal("parallel:norm=before,gamma=0,m=3") == "(no error)");
  contains(refusal("parallel:std=0.1"), "unknown option 'std'");
  contains(refusal("houlsby:init=bert"), "need one of truncated, normal, mam");
  contains(refusal("houlsby:dropout=1"), "need 0 <= dropout < 1");
  contains(refusal("series:m=256"), "series: m=256 in a model of width 24; need m <= 24");
  contains(refusal("series:on=gate,m=2"),
           "series: on=gate in layers 0..1 is nowhere in this model");
  contains(refusal("pfeiffer:m=2|pfeiffer:m=3"), "two methods make a parameter 'encoder 0 mlp");
}
