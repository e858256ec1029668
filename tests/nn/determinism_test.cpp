// What the plan promises of every model's bits, tried on random shapes: (i) any number of threads,
// (ii) any neighbours and place in a batch, (iii) any cut of a batch into micro-batches.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/nn/random_arch.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr int kTrials = 36;

std::vector<int> random_lengths(int trial) {
  std::vector<int> length(static_cast<std::size_t>(draw(trial, "sequences", 2, 12)));
  for (std::size_t i = 0; i < length.size(); ++i)
    length[i] = draw(100 * trial + static_cast<int>(i), "length", 1, 64);
  return length;
}

// The loss of a batch: language modelling or, in every other trial, classification.
Tensor loss_of(const Model& model, const Batch& batch, int trial,
               Checkpoint checkpoint = Checkpoint::none) {
  Ctx ctx{.train = true, .key = {9, 8}, .checkpoint = checkpoint};
  const Sequence s = model.forward(batch, ctx);
  if (trial / 2 % 2) return model.lm_loss(s, batch, ctx);
  const Pool pool =
      std::array{Pool::mean, Pool::cls, Pool::last}[static_cast<std::size_t>(trial % 3)];
  const LinearHead head(model.build(), model.arch(), 3, pool);
  return head.loss(head.scores(model, s, batch, ctx), batch);
}

// Some of the examples `picked` from a batch, in that order.
Batch pick(const Batch& from, const std::vector<int>& picked) {
  Batch b;
  b.divisor = 40;  // one for all cuts
  for (int p : picked) {
    const auto i = static_cast<std::size_t>(p);
    std::size_t start = 0;
    for (std::size_t j = 0; j < i; ++j) start += static_cast<std::size_t>(from.length[j]);
    for (std::size_t t = start; t < start + static_cast<std::size_t>(from.length[i]); ++t) {
      b.token.push_back(from.token[t]);
      b.token_label.push_back(from.token_label[t]);
    }
    b.length.push_back(from.length[i]);
    b.example.push_back(from.example[i]);
    b.label.push_back(from.label[i]);
  }
  return b;
}

std::vector<int> range(int begin, int end) {
  std::vector<int> all;
  for (int i = begin; i < end; ++i) all.push_back(i);
  return all;
}

// Rows after the last block, and the gradients of the embedded rows, of each example by itself.
struct PerExample {
  std::vector<std::uint32_t> example;
  std::vector<Array> rows, gradient;
};

PerExample per_example(Model& model, const Batch& batch, int trial) {
  Tensor leaf;
  const Handle edit = model.embedding.out.add("leaf", [&](Sequence s, const Ctx&) {
    leaf = s.rows = Tensor::leaf(s.rows.value());
    return s;
  });
  Tensor last;
  const Handle see = model.blocks.back()->out.add("see", [&](Tensor y, const Ctx&) {
    last = y;
    return y;
  });
  const Gradients grads = backward(loss_of(model, batch, trial));
  PerExample out;
  std::int64_t at = 0;
  for (std::size_t i = 0; i < batch.length.size(); at += batch.length[i++]) {
    out.example.push_back(batch.example[i]);
    out.rows.push_back(last.value().slice(0, at, at + batch.length[i]));
    out.gradient.push_back(grads[leaf].slice(0, at, at + batch.length[i]));
  }
  return out;
}

}  // namespace

TEST_CASE("any number of threads gives the same rows, loss and gradients, bit for bit") {
  for (int trial = 0; trial < kTrials / 2; ++trial) {
    CAPTURE(trial);
    SmallModel model(random_arch(trial));
    const std::vector<Tensor> leaves = train_all(model);
    const Batch batch = ragged(model.arch(), random_lengths(trial));
    std::vector<Array> first;
    for (const int threads : {1, 2, 3}) {
      CAPTURE(threads);
      const Threads limit(threads);
      const Tensor loss = loss_of(model, batch, trial);
      const Gradients grads = backward(loss);
      std::vector<Array> got{loss.value(), rows_of(model, batch).value()};
      for (const Tensor& leaf : leaves)
        if (grads.has(leaf)) got.push_back(grads[leaf]);
      if (first.empty()) first = got;
      REQUIRE(first.size() == got.size());
      for (std::size_t i = 0; i < got.size(); ++i) CHECK(same_bits(first[i], got[i]));
    }
  }
}

TEST_CASE("an example's rows and input gradients depend on no neighbour and on no place") {
  const Threads one(1);  // any other number gives the same bits: the case above
  for (int trial = 0; trial < kTrials; ++trial) {
    CAPTURE(trial);
    SmallModel model(random_arch(trial));
    const std::vector<Tensor> leaves = train_all(model);
    const Batch batch = ragged(model.arch(), random_lengths(trial));
    const int n = batch.sequences();
    const PerExample whole = per_example(model, pick(batch, range(0, n)), trial);
    std::vector<int> mixed = range(0, n);
    std::reverse(mixed.begin(), mixed.end());
    std::rotate(mixed.begin(), mixed.begin() + n / 2, mixed.end());
    const std::vector<std::vector<int>> others{mixed, {n - 1}, {n / 2, 0}, range(1, n)};
    for (const auto& picked : others) {
      const PerExample part = per_example(model, pick(batch, picked), trial);
      for (std::size_t i = 0; i < picked.size(); ++i) {
        const auto at = static_cast<std::size_t>(picked[i]);
        REQUIRE(part.example[i] == whole.example[at]);
        CHECK(same_bits(part.rows[i], whole.rows[at]));
        CHECK(same_bits(part.gradient[i], whole.gradient[at]));
      }
    }
  }
}

TEST_CASE("parameter gradients are the same bits for any micro-batches, checkpointed or not") {
  const Threads one(1);
  for (int trial = 0; trial < kTrials; ++trial) {
    CAPTURE(trial);
    SmallModel model(random_arch(trial));
    const std::vector<Tensor> leaves = train_all(model);
    const Batch batch = ragged(model.arch(), random_lengths(trial));
    const int n = batch.sequences();
    const auto through = [&](const std::vector<int>& cuts, Checkpoint checkpoint) {
      Gradients grads;
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
        backward(loss_of(model, pick(batch, range(cuts[i], cuts[i + 1])), trial, checkpoint),
                 grads);
      return grads;
    };
    const Gradients whole = through({0, n}, Checkpoint::none);
    const std::vector<std::pair<std::vector<int>, Checkpoint>> ways{
        {{0, 1, n}, Checkpoint::inner},
        {{0, n / 2, n}, Checkpoint::blocks},
        {{0, n - 1, n}, Checkpoint::none},
        {range(0, n + 1), Checkpoint::none}};
    for (const auto& way : ways) {
      CAPTURE(way.first);
      const Gradients parts = through(way.first, way.second);
      for (const Tensor& leaf : leaves) {
        CAPTURE(leaf.node()->op);
        REQUIRE(whole.has(leaf) == parts.has(leaf));
        if (whole.has(leaf)) CHECK(same_bits(whole[leaf], parts[leaf]));
      }
    }
  }
}

TEST_CASE("one walk and many give gradients that agree within rounding") {
  SmallModel model(small_arch(Stack::decoder));
  const std::vector<Tensor> leaves = train_all(model);
  const Batch batch = ragged(model.arch(), {7, 3, 12});
  const Tensor loss = loss_of(model, batch, 2);  // the tied embedding is used twice
  Gradients added;
  backward(loss, added);
  const Gradients once = backward(loss);
  for (const Tensor& leaf : leaves) CHECK(difference(added[leaf], once[leaf]) < 1e-5);
}
