// Where few rows of the result are read, the last block computes these alone: the same loss and the
// same gradients, bit for bit, as when it computes all.
#include <doctest/doctest.h>

#include "nn/models/heads.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::vector<Arch> archs() {
  Arch bert = small_arch(Stack::encoder, 24, 3);
  bert.pre_norm = bert.final_norm = false;
  Arch t5 = small_arch(Stack::decoder, 24, 3);
  t5.family = "t5";
  t5.encoder_layers = 2, t5.relative_buckets = 8, t5.relative_distance = 16;
  t5.learned_positions = t5.biases = t5.scaled_scores = false;
  t5.rms = t5.inner_dropout = true;
  std::vector<Arch> all{small_arch(Stack::encoder, 24, 3), bert, small_arch(Stack::decoder, 24, 3),
                        llama_like(24, 3), t5};
  for (Arch& a : all) a.dropout = a.attention_dropout = 0.1, a.pad = 0;
  return all;
}

// Rows that entered the last block's second matrix, at the latest pass.
struct Watch {
  explicit Watch(Model& m)
      : handle(m.blocks.back()->mlp.hidden.add("watch", [this](Tensor h, const Ctx&) {
          rows = h.dim(0);
          return h;
        })) {}
  std::int64_t rows = 0;
  Handle handle;
};

Batch batch_of(const Arch& a) {
  const std::vector<int> length{5, 1, 9, 4};
  Batch b = ragged(a, length);
  if (a.crosses()) b.source = std::make_shared<Batch>(ragged(a, {3, 6, 2, 5}, 30));
  int row = 0;
  for (const int l : length) {
    for (int i = 0; i < l; ++i, ++row) {
      if (b.token[row] == a.mask || b.token[row] == a.pad) b.token[row] = 7;
      if (i < (2 * l) / 3) b.token_label[row] = -1;
    }
    b.token[row - 1] = l == 4 ? a.pad : a.mask;
    if (l == 4) b.token[row - 2] = a.mask;  // what comes last of it is padding
  }
  for (int i = 0; i < 5; ++i) b.token_label[i] = -1;  // the first sequence has no label at all
  return b;
}

struct Outcome {
  Array loss;
  std::vector<Array> gradients;
  std::vector<std::string> labels;
};

// Which of its arrays are others; empty: none.
std::string others(const Outcome& a, const Outcome& b) {
  std::string text;
  if (!same_bits(a.loss, b.loss)) text += " loss";
  if (a.labels != b.labels) return text + " other gradients";
  for (std::size_t i = 0; i < a.gradients.size(); ++i)
    if (!same_bits(a.gradients[i], b.gradients[i]))
      text += fmt::format(" {} by {:.2g}", a.labels[i], difference(a.gradients[i], b.gradients[i]));
  return text;
}

enum class Read { labels, head };

Outcome outcome(const Model& m, const std::vector<Tensor>& leaves, const Batch& b, Read read,
                bool all_rows, Checkpoint checkpoint) {
  Ctx ctx{.train = true, .key = {3, 1}, .checkpoint = checkpoint};
  Tensor loss;
  if (read == Read::labels)
    loss = all_rows ? m.lm_loss(m.forward(b, ctx), b, ctx) : m.lm_loss(b, ctx);
  else
    loss = m.head().loss(
        all_rows ? m.head().scores(m, m.forward(b, ctx), b, ctx) : m.scores(b, ctx), b);
  const Gradients grads = backward(loss);
  Outcome out{loss.value(), {}, {}};
  for (const Tensor& leaf : leaves)
    if (grads.has(leaf))
      out.gradients.push_back(grads[leaf].clone()), out.labels.push_back(leaf.node()->op);
  return out;
}

// With dropout, checkpointed and not; `rows`: what the last block then computes.
void same_as_all(Model& m, const std::vector<Tensor>& leaves, const Batch& b, Read read,
                 std::int64_t rows) {
  const Outcome want = outcome(m, leaves, b, read, true, Checkpoint::none);
  CHECK(want.gradients.size() > 20);
  Watch watch(m);
  for (const Checkpoint checkpoint : {Checkpoint::none, Checkpoint::inner, Checkpoint::blocks}) {
    CAPTURE(std::string(name(checkpoint)));
    CHECK(others(outcome(m, leaves, b, read, false, checkpoint), want) == "");
    CHECK(watch.rows == rows);
  }
}

std::unique_ptr<LinearHead> linear_head(const Model& m, Pool pool, bool skip_pad = false) {
  return std::make_unique<LinearHead>(
      Build{.seed = 3}, m.arch(), 3,
      HeadForm{.pool = pool, .dense = true, .skip_pad = skip_pad, .dropout = 0.1});
}

}  // namespace

TEST_CASE("a loss over labels: the last block computes the labelled rows, or the texts' ends") {
  for (const Arch& a : archs()) {
    CAPTURE(a.family);
    SmallModel m(a);
    const std::vector<Tensor> leaves = train_all(m);
    const Batch b = batch_of(a);
    // Labels: none of 5, 1 of 1, of 9 the places 6 and 7, of 4 the place 3.
    same_as_all(m, leaves, b, Read::labels, a.causal ? 1 + 3 + 1 : 1 + 2 + 1);
  }
}

TEST_CASE("a head for whole texts: the last block computes the row it pools") {
  for (const Arch& a : archs()) {
    if (a.crosses()) continue;
    CAPTURE(a.family);
    SmallModel m(a);
    const std::vector<Tensor> leaves = train_all(m);
    const Batch b = batch_of(a);
    const auto with = [&](std::unique_ptr<Head> head, std::int64_t rows) {
      m.set_head(std::move(head));
      same_as_all(m, leaves, b, Read::head, rows);
    };
    with(linear_head(m, Pool::last), 4);
    with(linear_head(m, Pool::last, true), a.causal ? 5 : 4);
    with(linear_head(m, Pool::cls), a.causal ? 19 : 4);
    with(linear_head(m, Pool::mean), 19);
    with(std::make_unique<ClozeHead>(std::vector<std::vector<std::int32_t>>{{3}, {8, 9}, {11}}), 4);
  }
}

TEST_CASE("edits of the last block that read one skip sum their gradients as with all rows") {
  for (const Arch& a : archs()) {
    CAPTURE(a.family);
    SmallModel m(a);
    std::vector<Tensor> leaves = train_all(m);
    std::vector<Handle> edits;
    for (const std::uint32_t i : {1u, 2u, 3u}) {
      leaves.push_back(Tensor::leaf(random_array({a.width, a.width}, i, Dtype::f32, 0.1)));
      edits.push_back(m.blocks.back()->attention.out.add(
          "edit", [w = leaves.back(), i](const Tensor& y, const Sub& sub, const Ctx&) {
            return y + linear(i == 2 ? sub.x : sub.residual, w);
          }));
    }
    same_as_all(m, leaves, batch_of(a), Read::labels, a.causal ? 1 + 3 + 1 : 1 + 2 + 1);
  }
}

TEST_CASE("a head that reads rows out of order, or that are not there, is an error") {
  struct Wrong : LinearHead {
    using LinearHead::LinearHead;
    std::vector<std::int32_t> rows;
    std::vector<std::int32_t> reads(const Model&, const Sequence&, const Batch&) const override {
      return rows;
    }
  };
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    SmallModel m(small_arch(stack));
    auto head = std::make_unique<Wrong>(m.build(), m.arch(), 3, Pool::last);
    Wrong& wrong = *head;
    m.set_head(std::move(head));
    for (const auto& rows : std::vector<std::vector<std::int32_t>>{{18, 4}, {-1, 4}, {3, 19}}) {
      wrong.rows = rows;
      Ctx ctx;
      CHECK_THROWS_WITH_AS(m.scores(batch_of(m.arch()), ctx),
                           doctest::Contains("need ascending rows of 0..18"), Error);
    }
  }
}

TEST_CASE("rows left out keep their places, and rows that are not in order are refused") {
  const Arch a = small_arch(Stack::encoder);
  const Model m(a, {});
  Ctx ctx;
  const Sequence all = m.embed(batch_of(a), ctx);
  const Sequence some = all.picked({1, 4, 5, 13}), fewer = some.picked({1, 3});
  CHECK(some.length == std::vector<int>{2, 1, 1, 0});
  CHECK(some.places() == std::vector<std::int32_t>{1, 4, 0, 7});
  CHECK(some.example == std::vector<std::int32_t>{0, 0, 1, 2});
  CHECK(fewer.length == std::vector<int>{1, 0, 1, 0});
  CHECK(fewer.places() == std::vector<std::int32_t>{4, 7});
  CHECK(fewer.source == std::vector<std::int32_t>{4, 13});
  for (const auto& rows : std::vector<std::vector<std::int32_t>>{{4, 1}, {3, 19}, {-1, 2}})
    CHECK_THROWS_AS(all.picked(rows), Error);
}
