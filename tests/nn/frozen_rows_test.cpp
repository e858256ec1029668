// Rows of frozen blocks that were kept are those that a whole forward pass computes, and what ends
// the frozen blocks is seen.
#include <doctest/doctest.h>

#include "nn/frozen_rows.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr std::size_t kMuch = 1 << 20;

std::vector<Arch> archs() {
  Arch t5 = small_arch(Stack::decoder, 24, 2);
  t5.family = "t5";
  t5.encoder_layers = 4, t5.relative_buckets = 8, t5.relative_distance = 16;
  t5.learned_positions = t5.biases = t5.scaled_scores = false;
  t5.rms = true;
  Arch bert = small_arch(Stack::encoder, 24, 4);
  bert.pre_norm = bert.final_norm = false;
  bert.token_types = 2;
  return {small_arch(Stack::encoder, 24, 4), small_arch(Stack::decoder, 24, 4), llama_like(24, 4),
          bert, t5};
}

// The stack whose blocks may be frozen.
Model& reader(Model& m) { return m.encoder ? *m.encoder : m; }

void train_weight(Weight& w) {
  auto p = std::make_shared<Parameter>(w.parameter());
  p->value = Tensor::leaf(p->value.value().clone(), p->label());
  w.put(p);
}

Batch batch_of(const Arch& a, const std::vector<int>& length, std::uint32_t first) {
  Batch b = ragged(a, length, first);
  if (a.token_types > 0)
    for (std::size_t i = 0; i < b.token.size(); ++i) b.token_type.push_back(i % 5 == 1);
  if (a.crosses()) b.source = std::make_shared<Batch>(ragged(a, length, first));
  return b;
}

Array forward(const Model& m, const Batch& b, FrozenRows* frozen, bool train = true) {
  Ctx ctx{.train = train, .key = {3, 1}, .frozen = frozen};
  return m.forward(b, ctx).rows.value();
}

}  // namespace

TEST_CASE("rows of frozen blocks, kept, are those of the whole pass bit for bit, in any batch") {
  for (const Arch& a : archs()) {
    CAPTURE(a.family);
    SmallModel m(a);
    train_weight(reader(m).blocks[2]->mlp.up.w);
    FrozenRows frozen(m, kMuch);
    REQUIRE(frozen.blocks() == 2);
    // Lengths follow the examples' numbers: 0 and 1, 2 .. 4 and some of both, all of them again.
    const std::vector<std::pair<std::uint32_t, std::vector<int>>> batches{
        {0, {5, 3}}, {2, {7, 1, 4}}, {1, {3, 7, 1}}, {4, {4, 6}}, {0, {5, 3, 7, 1, 4, 6}}};
    std::size_t bytes = 0;
    for (const auto& [first, length] : batches) {
      const Batch b = batch_of(a, length, first);
      for (const bool train : {true, false}) {
        CHECK(same_bits(forward(m, b, &frozen, train), forward(m, b, nullptr, train)));
        CHECK(frozen.bytes() >= bytes);
        bytes = frozen.bytes();
      }
    }
    CHECK(bytes == (5 + 3 + 7 + 1 + 4 + 6) * 24 * sizeof(float));
  }
}

TEST_CASE("a gradient above frozen blocks has the bits that it has without kept rows") {
  SmallModel m(small_arch(Stack::encoder, 24, 3));
  train_weight(m.blocks[1]->attention.v.w);
  FrozenRows frozen(m, kMuch);
  REQUIRE(frozen.blocks() == 1);
  const Batch b = ragged(m.arch(), {4, 6, 2});
  const Tensor& leaf = m.blocks[1]->attention.v.w.value();
  const auto gradient = [&](FrozenRows* from, Checkpoint checkpoint) {
    Ctx ctx{.train = true, .checkpoint = checkpoint, .frozen = from};
    return backward(m.lm_loss(m.forward(b, ctx), b, ctx))[leaf].clone();
  };
  const Array plain = gradient(nullptr, Checkpoint::none);
  for (const Checkpoint checkpoint : {Checkpoint::none, Checkpoint::inner, Checkpoint::blocks})
    for (int pass = 0; pass < 2; ++pass) CHECK(same_bits(gradient(&frozen, checkpoint), plain));
}

TEST_CASE("rows beyond the limit are not kept, and computed each time") {
  SmallModel m(small_arch(Stack::encoder, 24, 2));
  train_weight(m.blocks[1]->mlp.down.w);
  FrozenRows frozen(m, 9 * 24 * sizeof(float));
  const Batch b = ragged(m.arch(), {5, 6, 4});
  for (int pass = 0; pass < 3; ++pass) {
    CHECK(same_bits(forward(m, b, &frozen), forward(m, b, nullptr)));
    CHECK(frozen.bytes() == 9 * 24 * sizeof(float));  // the first and the third
  }
  CHECK(FrozenRows(m, 0).blocks() == 0);
}

TEST_CASE("other tokens under a number that is known are another example") {
  SmallModel m(small_arch(Stack::encoder, 24, 2));
  FrozenRows frozen(m, kMuch);
  REQUIRE(frozen.blocks() == 2);
  Batch b = ragged(m.arch(), {5, 6});
  (void)forward(m, b, &frozen);
  b.token[7] = (b.token[7] + 1) % m.arch().vocab;
  CHECK(same_bits(forward(m, b, &frozen), forward(m, b, nullptr)));
}

TEST_CASE("an edit of any slot, any weight that trains, and dropout end the frozen blocks") {
  for (const Arch& a : archs()) {
    CAPTURE(a.family);
    SmallModel m(a);
    Model& in = reader(m);
    Block& block = *in.blocks[1];
    const auto blocks = [&] { return FrozenRows(m, kMuch).blocks(); };
    REQUIRE(blocks() == 4);
    const auto ends = [&](int at, auto& slot) {
      const Handle h = slot.add("edit", [](auto x, const auto&...) { return x; });
      CHECK(blocks() == at);
    };
    for (Linear* l : {&block.attention.q, &block.attention.k, &block.attention.v,
                      &block.attention.o, &block.mlp.up, &block.mlp.down})
      ends(1, l->out);
    if (block.mlp.gate) ends(1, block.mlp.gate->out);
    ends(1, block.attention.banks), ends(1, block.attention.out);
    ends(1, block.mlp.hidden), ends(1, block.mlp.out), ends(1, block.out);
    ends(1, block.norm1.affine), ends(1, block.norm2.affine);
    ends(0, in.embedding.out);
    if (in.embedding.norm) ends(0, in.embedding.norm->affine);
    const auto weight_ends = [&](int at) {
      return [&blocks, at](Weight& w) {
        CAPTURE(w.parameter().label());
        {
          const Handle h = w.edits.add("edit", [](Tensor x, const Ctx&) { return x; });
          CHECK(blocks() == at);
        }
        const auto before = std::make_shared<Parameter>(w.parameter());
        train_weight(w);
        CHECK(blocks() == at);
        w.put(before);
      };
    };
    block.each(weight_ends(1));
    in.embedding.each(weight_ends(0));
    if (in.relative) weight_ends(0)(in.relative->table);
    if (in.final_norm) in.final_norm->each(weight_ends(4));
    CHECK(blocks() == 4);
  }
  Arch drops = small_arch(Stack::encoder, 24, 3);
  drops.attention_dropout = 0.1;
  SmallModel m(drops);
  FrozenRows frozen(m, kMuch);
  CHECK(frozen.blocks() == 0);
  CHECK(frozen.drawing() == 3);
}

TEST_CASE("the dropout of a sub-layer's result or of the embedding alone ends the frozen blocks") {
  for (Arch a : archs()) {
    CAPTURE(a.family);
    a.dropout = 0.1;
    SmallModel m(a);
    Model& in = reader(m);
    const Block& block = *in.blocks[0];
    for (const bool train : {false, true}) {  // each of them says so by itself
      CHECK(in.embedding.fixed(train) == !train);
      CHECK(block.attention.fixed(train) == !train);
      CHECK(block.mlp.fixed(train) == !train);
      CHECK(block.fixed(train) == !train);
    }
    const FrozenRows frozen(m, kMuch);
    CHECK(frozen.blocks() == 0);
    CHECK(frozen.drawing() == static_cast<int>(in.blocks.size()));
  }
  Arch apart = small_arch(Stack::encoder, 24, 3);  // no dropout where the rows come in
  apart.dropout = 0.1, apart.embed_dropout = false;
  const SmallModel m(apart);
  CHECK(m.embedding.fixed(true));
  CHECK_FALSE(m.blocks[0]->fixed(true));
}

TEST_CASE("kept rows are refused once a block beneath them is edited or has other weights") {
  SmallModel m(small_arch(Stack::encoder, 24, 3));
  FrozenRows frozen(m, kMuch);
  const Batch b = ragged(m.arch(), {5, 6});
  (void)forward(m, b, &frozen);
  {
    const Handle h = m.blocks[1]->out.add("edit", [](Tensor x, const Ctx&) { return 2 * x; });
    CHECK_THROWS_WITH_AS((void)forward(m, b, &frozen), doctest::Contains("one of these was edited"),
                         Error);
  }
  (void)forward(m, b, &frozen);
  Weight& w = m.blocks[0]->mlp.up.w;
  const auto other = std::make_shared<Parameter>(w.parameter());
  other->value = Tensor(other->value.value().clone());
  w.put(other);
  CHECK_THROWS_WITH_AS((void)forward(m, b, &frozen), doctest::Contains("other weights"), Error);
}
