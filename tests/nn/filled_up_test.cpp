// Batches that are filled up to a common size: what is learned from them stays the same.
#include <doctest/doctest.h>

#include "nn/head.h"
#include "peft/methods.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

Batch without_targets(const Arch& arch, const std::vector<int>& length) {
  Batch b = ragged(arch, length);
  b.target.clear();
  return b;
}

}  // namespace

TEST_CASE("a filled up batch is a multiple of a power of two, with a twentieth more at most") {
  Arch arch = small_arch(Stack::encoder);
  arch.positions = 512;
  for (const int length : {1, 39, 40, 41, 128, 500}) {
    for (const int sequences : {1, 3, 40}) {
      CAPTURE(length * sequences);
      const Batch b = without_targets(arch, std::vector<int>(std::size_t(sequences), length));
      const Batch more = filled_up(b, arch);
      const std::int64_t added = more.tokens() - b.tokens();
      CHECK(more.sequences() == sequences + 1);
      CHECK(more.filler == 1);
      CHECK(more.length.back() == added);
      CHECK((added == 1 || 20 * added <= b.tokens()));
      const std::int64_t step = b.tokens() >= 1280 ? 64 : b.tokens() >= 640 ? 32 : 1;
      CHECK(more.tokens() % step == 0);
      CHECK(more.label.back() == -1);
      CHECK(more.token_label.size() == more.token.size());
      CHECK(filled_up(more, arch).sequences() == more.sequences());  // once is enough
    }
  }
  arch.positions = 8;  // a longer sequence has no place
  CHECK(filled_up(without_targets(arch, std::vector<int>(300, 7)), arch).length.back() <= 8);
  Batch regression = ragged(arch, {3});
  CHECK(filled_up(regression, arch).sequences() == 1);
}

TEST_CASE("losses and gradients of a filled up batch are those of the batch, bit for bit") {
  for (const bool causal : {true, false})
    for (const bool words : {true, false}) {
      CAPTURE(causal);
      CAPTURE(words);
      const Arch arch = small_arch(causal ? Stack::decoder : Stack::encoder);
      SmallModel model(arch);
      (void)model.set_head(std::make_unique<LinearHead>(model.build(), arch, 3, Pool::mean));
      const Adaptation adaptation(all_methods(), "lora:r=2,on=q+v,dropout=0.3|prompt:length=2",
                                  model);
      const auto gradients = [&](const Batch& batch) {
        Ctx ctx{.train = true, .key = {3, 5}};
        const Tensor loss =
            words ? model.lm_loss(batch, ctx) : model.head().loss(model.scores(batch, ctx), batch);
        Gradients grads = backward(loss);
        std::vector<Array> all{loss.value()};
        for (const auto& p : adaptation.parameters()) all.push_back(grads[p->value]);
        return all;
      };
      const Batch batch = without_targets(arch, {7, 20, 3, 13});
      const auto want = gradients(batch), got = gradients(filled_up(batch, arch));
      REQUIRE(want.size() == got.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        CAPTURE(i);
        CAPTURE(difference(got[i], want[i]));
        CHECK(same_bits(got[i], want[i]));
      }
    }
}
