// What trains nothing, on the device: writing with a cache, texts as vectors, adapters side by
// side.
#include "nn/embed.h"
#include "nn/generate.h"
#include "nn/half_precision.h"
#include "nn/text/bpe_trainer.h"
#include "peft/routed.h"
#include "tests/cuda/device_cases.h"
#include "tests/nn/model_fixtures.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::vector<std::vector<std::int32_t>> answers(const Model& model, const GenerateSpec& spec) {
  std::vector<std::vector<std::int32_t>> out;
  for (const Generated& g : generate(model, {{5, 9, 2, 7}, {3, 4}, {8, 1, 6, 2, 2, 11}}, spec))
    out.push_back(g.tokens);
  return out;
}

// Wherever the parameter lies.
void add_noise_there(Parameter& p, std::uint32_t seed) {
  Array& value = p.value.value();
  Parameter on_host = p;
  on_host.value = Tensor(value.to(Device::cpu).clone());
  add_noise(on_host, 0.2, seed);
  value.copy_from(on_host.value.value().to(value.device()));
}

}  // namespace

TEST_CASE("a model on the device writes the host's tokens, greedily and by beams") {
  if (!device_is_there()) return;
  for (const std::string family : {"gpt2", "llama", "t5"}) {
    CAPTURE(family);
#ifdef GRAFT_SANITIZED
    if (family == "llama") continue;
#endif
    GenerateSpec greedy, beams;
    greedy.max_tokens = 5, beams.max_tokens = 4, beams.beams = 2;
    const auto model = load_model(fixture(family));
    const auto want = answers(*model, greedy), wider = answers(*model, beams);
    model->move_to(Device::cuda);
    CHECK(answers(*model, greedy) == want);
    CHECK(answers(*model, beams) == wider);
    // Where two tokens are nearly as likely, half precision may take the other one.
    const HalfPrecision half(*model, Dtype::bf16);
    const auto rounded = answers(*model, greedy);
    REQUIRE(rounded.size() == want.size());
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(rounded[i].size() == want[i].size());
  }
}

TEST_CASE("texts become the host's vectors on the device, in half precision nearly so") {
  if (!device_is_there()) return;
  const std::vector<std::string> texts{"the cat", "a dog and a cat sat", "the the", "sat"};
  const std::string_view words = "the cat and a dog sat on the mat";
  const Tokenizer tokenizer =
      train_bpe(std::span(&words, 1), {.vocab_size = 270, .specials = {"[PAD]"}});
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    Arch arch = small_arch(stack);
    arch.vocab = tokenizer.size();
    SmallModel model(arch);
    for (const Pool pool : {Pool::mean, Pool::cls, Pool::last}) {
      const EmbedSpec spec{.pool = pool, .batch = 3};
      const Array want = embed_texts(model, tokenizer, texts, spec).rows;
      SmallModel there(arch);
      there.move_to(Device::cuda);
      const Array got = embed_texts(there, tokenizer, texts, spec).rows;
      CHECK(got.device() == Device::cpu);
      CHECK(apart(got, want) < 1e-5);
      const HalfPrecision half(there, Dtype::f16);
      const Array rounded = embed_texts(there, tokenizer, texts, spec).rows;
      CHECK(rounded.dtype() == Dtype::f32);
      CHECK(apart(rounded, want) < 1e-2);
      CHECK(apart(rounded, want) > 0);
    }
  }
}

TEST_CASE("adapters side by side on the device give what they give on the host") {
  if (!device_is_there()) return;
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    const Arch arch = small_arch(stack);
    const auto scores_on = [&](Device device, Dtype compute) {
      SmallModel model(arch);
      model.move_to(device);
      Routed routed(all_methods(),
                    {{"a", "lora:r=2,on=q+o+down"},
                     {"b", "parallel:m=2|prefix:length=2"},
                     {"c", "ia3|prompt:length=2"}},
                    model);
      for (int i = 0; i < routed.size(); ++i) {
        routed.set_head(
            i, std::make_unique<LinearHead>(model.build(), arch, 2 + i,
                                            stack == Stack::encoder ? Pool::cls : Pool::last));
        for (const auto& p : routed.at(i).stored()) add_noise_there(*p, std::uint32_t(i));
      }
      std::unique_ptr<HalfPrecision> half;
      if (is_half(compute)) half = std::make_unique<HalfPrecision>(model, compute, routed.stored());
      Batch batch = ragged(arch, {4, 6, 2, 5, 3});
      batch.adapter = {2, 0, 1, 1, 0};
      NoRecord off;
      Ctx ctx;
      return routed.scores(routed.forward(batch, ctx), batch, ctx);
    };
    const auto want = scores_on(Device::cpu, Dtype::f32);
    for (const Dtype compute : {Dtype::f32, Dtype::bf16}) {
      const auto got = scores_on(Device::cuda, compute);
      REQUIRE(got.size() == want.size());
      for (std::size_t i = 0; i < want.size(); ++i)
        CHECK(apart(Array::of(got[i]), Array::of(want[i])) < (is_half(compute) ? 4e-2 : 1e-5));
    }
  }
}

TEST_CASE(
    "on the device each prompt is answered by its own adapter, with a cache, as on the host") {
  if (!device_is_there()) return;
  const auto answers_on = [&](Device device, Dtype compute) {
    const auto model = load_model(fixture("gpt2"));
    model->move_to(device);
    const Routed routed(all_methods(), {{"a", "prefix:length=2"}, {"b", "lora:r=2|ia3"}}, *model);
    for (int i = 0; i < routed.size(); ++i)
      for (const auto& p : routed.at(i).stored()) add_noise_there(*p, std::uint32_t(i));
    std::unique_ptr<HalfPrecision> half;
    if (is_half(compute)) half = std::make_unique<HalfPrecision>(*model, compute, routed.stored());
    GenerateSpec spec;
    spec.max_tokens = 5, spec.adapter = {1, 0, -1};
    return answers(*model, spec);
  };
  const auto want = answers_on(Device::cpu, Dtype::f32);
  CHECK(answers_on(Device::cuda, Dtype::f32) == want);
  const auto rounded = answers_on(Device::cuda, Dtype::bf16);
  REQUIRE(rounded.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(rounded[i].size() == want[i].size());
}
