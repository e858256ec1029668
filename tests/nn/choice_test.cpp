// Answers scored by their likelihood, against transformers' losses (tests/fixtures/models).
#include "nn/choice.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Tokens = std::vector<std::int32_t>;

Batch batch_of(const std::vector<Tokens>& sequences) {
  Batch b;
  for (const Tokens& one : sequences) {
    b.token.insert(b.token.end(), one.begin(), one.end());
    b.length.push_back(static_cast<int>(one.size()));
    b.example.push_back(static_cast<std::uint32_t>(b.example.size()));
  }
  return b;
}

// Both sides as training has them: what the decoder reads is the target, one token late.
Batch both(const Arch& arch, const std::vector<Tokens>& sources,
           const std::vector<Tokens>& targets) {
  std::vector<Tokens> late;
  for (const Tokens& target : targets) {
    late.push_back({arch.start});
    late.back().insert(late.back().end(), target.begin(), target.end() - 1);
  }
  Batch b = batch_of(late);
  for (const Tokens& target : targets)
    b.token_label.insert(b.token_label.end(), target.begin(), target.end());
  b.source = std::make_shared<Batch>(batch_of(sources));
  return b;
}

double loss_of(const Model& model, const Batch& batch) {
  Ctx ctx;
  return model.lm_loss(model.forward(batch, ctx), batch, ctx).item();
}

Arch small_both() {
  Arch a = small_arch(Stack::decoder);
  a.family = "t5";
  a.encoder_layers = 2, a.layers = 3, a.start = 0;
  a.learned_positions = a.scaled_scores = a.biases = false;
  a.rms = true;
  a.relative_buckets = 8, a.relative_distance = 12;
  return a;
}

}  // namespace

TEST_CASE("answers' losses and likelihoods are those of transformers' loss on labels") {
  for (const std::string family : {"t5", "t5-gated"}) {
    CAPTURE(family);
    const auto model = load_model(testing::fixture(family));
    const auto theirs = ordered_json::parse(read_file(testing::fixture(family) / "losses.json"));
    const std::vector<Tokens> sources = theirs.at("sources"), targets = theirs.at("targets");
    const std::vector<std::vector<double>> loss = theirs.at("loss");
    const double batch_loss = theirs.at("batch_loss");
    CHECK(std::abs(loss_of(*model, both(model->arch(), sources, targets)) - batch_loss) <=
          1e-5 * batch_loss);
    const auto scores = log_likelihoods(*model, batch_of(sources), targets);
    REQUIRE(scores.size() == sources.size());
    double worst = 0;
    for (std::size_t s = 0; s < sources.size(); ++s)
      for (std::size_t t = 0; t < targets.size(); ++t) {
        const double own = loss_of(*model, both(model->arch(), {sources[s]}, {targets[t]})),
                     tokens = static_cast<double>(targets[t].size());
        worst = std::max({worst, std::abs(own - loss[s][t]) / loss[s][t],
                          std::abs(-scores[s][t] / tokens - loss[s][t]) / loss[s][t]});
      }
    CHECK(worst <= 1e-5);
  }
}

TEST_CASE("an answer's likelihood does not depend on the other answers or the other texts") {
  const SmallModel model(small_both());
  std::vector<Tokens> sources, targets;
  for (int i = 0; i < 9; ++i) sources.push_back(Tokens(static_cast<std::size_t>(i % 4 + 1), i + 2));
  for (int i = 0; i < 60; ++i) targets.push_back({i % 5 + 3, i / 5 + 3, 1});  // not all at once
  targets.push_back({3, 1});
  const auto all = log_likelihoods(model, batch_of(sources), targets);
  for (const std::size_t s : {0, 4, 8})
    for (const std::size_t t : {0, 33, 60}) {
      Batch one = batch_of({sources[s]});
      one.example = {static_cast<std::uint32_t>(s)};
      CHECK(log_likelihoods(model, one, {targets[t]})[0][0] == all[s][t]);
      CHECK(all[s][t] ==
            doctest::Approx(-loss_of(model, both(model.arch(), {sources[s]}, {targets[t]})) *
                            static_cast<double>(targets[t].size()))
                .epsilon(1e-5));
    }
}

TEST_CASE("the likelihoods of all one-token answers add up to one") {
  const SmallModel model(small_both(), Dtype::f64);
  std::vector<Tokens> targets;
  for (int i = 0; i < model.arch().vocab; ++i) targets.push_back({i});
  double sum = 0;
  const auto scores = log_likelihoods(model, batch_of({{4, 9, 1}}), targets);
  for (const double x : scores[0]) sum += std::exp(x);
  CHECK(sum == doctest::Approx(1).epsilon(1e-12));
}

TEST_CASE("answers that cannot be scored are refused in words that say why") {
  const SmallModel model(small_both());
  const Batch source = batch_of({{4, 1}});
  const auto refused = [&](const Model& m, const std::vector<Tokens>& targets) {
    return error_of([&] { log_likelihoods(m, source, targets); });
  };
  contains(refused(model, {}), "no targets");
  contains(refused(model, {{3}, {}}), "target 1 has no tokens");
  contains(refused(model, {{3}, {29}}), "target 1 has token 29; the model has 0..28");
  contains(refused(model, {{3, 1}, {4}, {3, 1}}), "two of the 3 targets are the same");
  contains(refused(SmallModel(small_arch(Stack::decoder)), {{3}}), "by an encoder-decoder");
}
