// Held-out losses, by hand: of n-gram models, and of bases beside them.
#include <doctest/doctest.h>

#include <cmath>

#include "experiments/pretrain/ngram.h"
#include "nn/models/folder.h"
#include "tests/experiments/small_bases.h"
#include "tests/experiments/small_pretraining.h"

using namespace graft;
using namespace graft::testing;

namespace {

void put_text(const fs::path& file, std::uint32_t from, std::uint32_t lines) {
  std::string text;
  for (std::uint32_t i = from; i < from + lines; ++i) text += sentence(i) + "\n";
  write_file_atomically(file, text);
}

struct ByHand {
  double per_token = 0, per_window = 0;
};

// Window by window and from logits, in f64.
ByHand loss_by_hand(const Model& model, const CorpusWindows& text, std::int64_t windows,
                    const MaskingRule& rule) {
  const NoRecord off;
  double sum = 0, tokens = 0, means = 0, asked = 0;
  for (std::int64_t w = 0; w < windows; ++w) {
    const Batch b = text.batch(0, 0, w, 1, rule);
    Ctx ctx;
    const Sequence s = model.forward(b, ctx);
    std::vector<std::int32_t> rows, labels;
    for (std::size_t i = 0; i < s.source.size(); ++i) {
      const std::int32_t label = s.source[i] < 0 ? -1 : b.token_label[s.source[i]];
      if (label >= 0) rows.push_back(static_cast<std::int32_t>(i)), labels.push_back(label);
    }
    if (rows.empty()) continue;
    const std::vector<double> logits = model.lm_logits(s, rows, ctx).value().to_vector();
    const std::size_t vocab = logits.size() / rows.size();
    double window = 0;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      double all = 0;
      for (std::size_t v = 0; v < vocab; ++v) all += std::exp(logits[r * vocab + v]);
      window += std::log(all) - logits[r * vocab + static_cast<std::size_t>(labels[r])];
    }
    sum += window, tokens += static_cast<double>(rows.size());
    means += window / static_cast<double>(rows.size()), asked += 1;
  }
  return {sum / tokens, means / asked};
}

}  // namespace

TEST_CASE("n-gram losses of a text of six tokens are those of the formula on paper") {
  // a b a b a c, of a vocabulary of four; d is in none of it. Of no context 3 kinds in 6 tokens:
  // p(a) = (3 + 3/4) / 9 = 5/12, p(b) = (2 + 3/4) / 9 = 11/36, p(c) = (1 + 3/4) / 9 = 7/36,
  // p(d) = 3/4 / 9 = 1/12. Behind a, 2 kinds in 3: p(c | a) = (1 + 2 x 7/36) / 5 = 5/18,
  // p(b | a) = (2 + 2 x 11/36) / 5 = 47/90, p(d | a) = 2 x 1/12 / 5 = 1/30. Behind c nothing came.
  const std::vector<std::int32_t> text{0, 1, 0, 1, 0, 2};
  const auto loss = [&](const std::vector<std::int32_t>& heldout, int order) {
    return ngram_loss(text, heldout, order, 4);
  };
  const auto mean = [](double first, double second) {
    return doctest::Approx(-(std::log(first) + std::log(second)) / 2).epsilon(1e-12);
  };
  CHECK(loss({0, 2}, 1) == mean(5. / 12, 7. / 36));
  CHECK(loss({0, 2}, 2) == mean(5. / 12, 5. / 18));
  CHECK(loss({0, 1}, 2) == mean(5. / 12, 47. / 90));
  CHECK(loss({0, 3}, 1) == mean(5. / 12, 1. / 12));
  CHECK(loss({0, 3}, 2) == mean(5. / 12, 1. / 30));
  CHECK(loss({2, 0}, 2) == mean(7. / 36, 5. / 12));
  CHECK(loss({0, 2}, 3) == loss({0, 2}, 2));  // two tokens have no context of two
  // Behind b a came twice, and behind "b a" once b, once c: p(a | b) = (2 + 5/12) / 3 = 29/36,
  // p(c | b a) = (1 + 2 x 5/18) / 4 = 7/18.
  CHECK(loss({1, 0, 2}, 3) ==
        doctest::Approx(-std::log(11. / 36 * 29. / 36 * 7. / 18) / 3).epsilon(1e-12));
  contains(error_of([&] { loss({0}, 0); }), "order 0");
  contains(error_of([&] { loss({}, 1); }), "0 held out");
}

TEST_CASE("the held-out loss is the mean over predicted tokens of what the logits say") {
  const Folder folder;
  put_text(folder / "text", 0, 200);
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    Arch arch = arch_of(stack);
    arch.dropout = 0.5;
    const SmallModel model(arch);
    const CorpusWindows text(folder / "text", tokenizer(), 16,
                             stack == Stack::encoder ? Objective::masked : Objective::causal);
    const MaskingRule rule{0.3, 3};
    const std::int64_t n = text.windows(0, 0);
    REQUIRE(n > 64);  // more than two batches of them
    const double loss = heldout_loss(model, text, n, rule);
    const ByHand hand = loss_by_hand(model, text, n, rule);
    CHECK(loss == doctest::Approx(hand.per_token).epsilon(1e-5));
    // Masked windows ask for more or fewer tokens: a mean of their means is another number.
    if (stack == Stack::encoder) CHECK(std::abs(hand.per_window - hand.per_token) > 1e-3);
    CHECK(heldout_loss(model, text, n + 1000, rule) == loss);
    CHECK(heldout_loss(model, text, 3, rule) ==
          doctest::Approx(loss_by_hand(model, text, 3, rule).per_token).epsilon(1e-5));
    arch.dropout = 0;
    CHECK(heldout_loss(SmallModel(arch), text, n, rule) == loss);
  }
}

TEST_CASE("graft ngram says the corpus's losses, and a base's on all of the held-out text") {
  const Bases b({"esm", "gpt2"});
  const fs::path data = b.folder / "data";
  fs::create_directories(data);
  tokenizer().save(data / "tokenizer.json");
  put_text(data / "corpus.train.txt", 0, 150);
  put_text(data / "corpus.heldout.txt", 150, 80);
  const std::string at = "ngram --data '" + data.string() + "'";
  const CorpusWindows train(data / "corpus.train.txt", tokenizer(), 128, Objective::causal),
      heldout(data / "corpus.heldout.txt", tokenizer(), 128, Objective::causal);
  const std::string said = b.hears(at);
  for (int order : {1, 5})
    contains(said,
             fmt::format("{}-gram  {:.4f} nats per token", order,
                         ngram_loss(train.stream(), heldout.stream(), order, tokenizer().size())));
  const auto base = [&](const char* name, int length, Objective objective, MaskingRule rule) {
    const auto model = load_model(b.folder / name);
    const CorpusWindows all(data / "corpus.heldout.txt", tokenizer(), length, objective);
    const std::int64_t n = all.windows(0, 0);
    return fmt::format("{:.4f} nats per {} token, {} windows of {} tokens",
                       heldout_loss(*model, all, n, rule), graft::name(objective), n, length);
  };
  contains(b.hears(at + " --model esm --masking 0.3"),
           base("esm", 128, Objective::masked, {.rate = 0.3, .all_masked = true}));
  contains(b.hears(at + " --model gpt2"), base("gpt2", 40, Objective::causal, {}));
  contains(b.says(at + " --model esm --masking 0").text, "0 < masking <= 1");
  contains(b.says(at + " --model none").text, "model 'none'");
}
