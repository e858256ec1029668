// A batch of several adapters in a model whose last block computes few rows alone: the same bits as
// with all. (What one adapter gives is a clause of the contract.)
#include "peft/routed.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("adapters side by side: the last block's few rows are those of all, bit for bit") {
  const Threads one(1);
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    Arch arch = small_arch(stack);
    arch.dropout = arch.attention_dropout = 0.1;
    SmallModel model(arch);
    const Routed routed(all_methods(),
                        {{"a", "lora:r=2,on=q+o+down,dropout=0.2"},
                         {"b", "parallel:m=2,dropout=0.1|prefix:length=2"},
                         {"c", "ia3|prompt:length=2"}},
                        model);
    Parameters parameters;
    for (int i = 0; i < routed.size(); ++i)
      for (const auto& p : routed.at(i).parameters()) {
        add_noise(*p, 0.2, std::uint32_t(i));
        parameters.push_back(p);
      }
    model.set_head(std::make_unique<LinearHead>(Build{.seed = 3}, arch, 3,
                                                stack == Stack::encoder ? Pool::cls : Pool::last));
    Batch batch = ragged(arch, {4, 6, 2, 5, 3});
    batch.adapter = {2, 0, -1, 1, 0};
    const auto pass = [&](bool alone) {
      Ctx ctx{.train = true, .key = {4, 2}};
      return alone ? model.scores(batch, ctx)
                   : model.head().scores(model, model.forward(batch, ctx), batch, ctx);
    };
    const Tensor all = pass(false), few = pass(true);
    CHECK(same_bits(all.value(), few.value()));
    const Gradients a = backward(model.head().loss(all, batch)),
                    b = backward(model.head().loss(few, batch));
    for (const auto& p : parameters) {
      CAPTURE(p->label());
      REQUIRE(a.has(p->value));
      REQUIRE(b.has(p->value));
      CHECK(same_bits(a[p->value], b[p->value]));
    }
  }
}

TEST_CASE("side by side, the last block computes what each adapter's own head reads") {
  const Threads one(1);
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  Routed routed(all_methods(), {{"a", "lora:r=2"}, {"b", "lora:r=2"}}, model);
  for (int i = 0; i < 2; ++i)
    for (const auto& p : routed.at(i).parameters()) add_noise(*p, 0.2, std::uint32_t(i));
  Batch batch = ragged(arch, {4, 6, 2, 5, 3});
  batch.adapter = {1, 0, -1, 1, 0};
  model.set_head(std::make_unique<LinearHead>(Build{.seed = 3}, arch, 3, Pool::cls));
  routed.set_head(0, std::make_unique<LinearHead>(Build{.seed = 4}, arch, 2, Pool::cls));
  const auto rows_and_scores = [&] {
    Ctx few, all;
    const Sequence s = routed.forward(batch, few);
    CHECK(routed.scores(s, batch, few) == routed.scores(model.forward(batch, all), batch, all));
    return s.source.size();
  };
  CHECK(rows_and_scores() == 5);
  routed.set_head(1, std::make_unique<LinearHead>(Build{.seed = 5}, arch, 4, Pool::mean));
  CHECK(rows_and_scores() == 4 + 1 + 1 + 5 + 1);

  // Without a head the labelled tokens are read: here one of each sequence but the base's.
  SmallModel plain(arch);
  const Routed labels(all_methods(), {{"a", "lora:r=2"}, {"b", "lora:r=2"}}, plain);
  batch.token_label.assign(batch.token.size(), -1);
  for (const std::size_t token : {1, 5, 14, 17}) batch.token_label[token] = 3;
  Ctx ctx;
  CHECK(labels.forward(batch, ctx).source.size() == 4);
  // Of one adapter no token is labelled: nothing is computed for it, and the other sees no
  // difference.
  for (const std::size_t token : {1, 14}) batch.token_label[token] = -1;
  Ctx few, all;
  const Sequence some = labels.forward(batch, few), whole = plain.forward(batch, all);
  REQUIRE(some.source == std::vector<std::int32_t>{5, 17});
  CHECK(same_bits(some.rows.value().slice(0, 0, 1), whole.rows.value().slice(0, 5, 6)));
  CHECK(same_bits(some.rows.value().slice(0, 1, 2), whole.rows.value().slice(0, 17, 18)));

  struct Backwards : LinearHead {
    using LinearHead::LinearHead;
    std::vector<std::int32_t> reads(const Model&, const Sequence&, const Batch&) const override {
      return {3, 1};
    }
  };
  routed.set_head(1, std::make_unique<Backwards>(Build{.seed = 6}, arch, 2, Pool::cls));
  contains(error_of([&] { routed.forward(batch, ctx); }), "the head of b reads row 1 after 3");
}
