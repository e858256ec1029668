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
      const std::int64_t step = b.tokens() >= 1280 && length >= 64  ? 64
                                : b.tokens() >= 640 && length >= 32 ? 32
                                                                    : 1;
      CHECK(more.tokens() % step == 0);
      CHECK(more.label.back() == -1);
      CHECK(more.token_label.size() == more.token.size());
      CHECK(filled_up(more, arch).sequences() == more.sequences());  // once is enough
    }
  }
  Batch regression = ragged(arch, {3});
  CHECK(filled_up(regression, arch).sequences() == 1);
}

TEST_CASE("a filler is no longer than the longest text: edits may put rows before it") {
  Arch arch = small_arch(Stack::encoder);
  for (const int length : {1, 7, 24}) {
    const Batch b = without_targets(arch, std::vector<int>(200, length));
    CHECK(filled_up(b, arch).length.back() <= length);
  }
}

namespace {

enum class Asked { words, first_row, mean, cloze };

std::vector<Array> loss_and_gradients(const Model& model, const Adaptation& adaptation,
                                      const Batch& batch, Asked asked) {
  Ctx ctx{.train = true, .key = {3, 5}};
  const Tensor loss = asked == Asked::words ? model.lm_loss(batch, ctx)
                                            : model.head().loss(model.scores(batch, ctx), batch);
  Gradients grads;
  backward(loss, grads);
  std::vector<Array> all{loss.value()};
  for (const auto& p : adaptation.parameters()) all.push_back(grads[p->value]);
  return all;
}

void learns_the_same(const Arch& arch, const std::string& method, Batch batch, Asked asked) {
  CAPTURE(method);
  CAPTURE(static_cast<int>(asked));
  CAPTURE(batch.tokens());
  SmallModel model(arch);
  if (asked == Asked::cloze) {
    (void)model.set_head(
        std::make_unique<ClozeHead>(std::vector<std::vector<std::int32_t>>{{5}, {6}, {7, 8}}));
    for (std::size_t s = 0, at = 0; s < batch.length.size(); at += std::size_t(batch.length[s++]))
      batch.token[at] = arch.mask;
  } else if (asked != Asked::words) {
    (void)model.set_head(std::make_unique<LinearHead>(
        model.build(), arch, 3, asked == Asked::mean ? Pool::mean : Pool::cls));
  }
  Adaptation adaptation(all_methods(), method, model);
  if (adaptation.parameters().empty()) return;  // such as the head alone
  adaptation.calibrate(model, {batch});
  for (const auto& p : adaptation.parameters()) add_noise(*p, 0.1, 3);
  const auto want = loss_and_gradients(model, adaptation, batch, asked),
             got = loss_and_gradients(model, adaptation, filled_up(batch, arch), asked);
  REQUIRE(want.size() == got.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(same_bits(got[i], want[i]));
}

}  // namespace

TEST_CASE("losses and gradients of a filled up batch are those of the batch, bit for bit") {
  std::vector<int> many;
  for (int i = 0; i < 60; ++i) many.push_back(5 + i * 7 % 15);
  for (const Asked asked : {Asked::words, Asked::first_row, Asked::mean, Asked::cloze})
    for (const std::vector<int>& length : {std::vector{7, 20, 3, 13}, many}) {
      const Arch encoder = small_arch(Stack::encoder);
      learns_the_same(encoder, "lora:r=2,on=q+v,dropout=0.3|prompt:length=2",
                      without_targets(encoder, length), asked);
      if (asked == Asked::cloze) continue;
      const Arch decoder = small_arch(Stack::decoder);
      learns_the_same(decoder, "lora:r=2,on=q+v,dropout=0.3|prefix:length=2",
                      without_targets(decoder, length), asked);
    }
}

TEST_CASE("no method takes a filler for a text") {
  const Arch encoder = small_arch(Stack::encoder);
  for (const Method& method : all_methods())
    learns_the_same(encoder, method.example, without_targets(encoder, {9, 4, 15}), Asked::mean);
  for (const char* spec : {"ptuning:template=1+t2+1+a", "ptuning:template=2+a"})
    learns_the_same(encoder, spec, without_targets(encoder, {9, 4, 15}), Asked::mean);
  Arch pairs = encoder;
  pairs.sep = 3;
  Batch batch = without_targets(pairs, {9, 4, 15});
  for (int at : {3, 10, 20}) batch.token[std::size_t(at)] = pairs.sep;
  learns_the_same(pairs, "ptuning:template=1+a+1+b", batch, Asked::mean);
}
