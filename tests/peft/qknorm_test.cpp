// QKNorm: its start, the bound of its scores, and attention by hand.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("every form of QKNorm keeps the contract") {
  for (const char* spec :
       {"qknorm:gate=one,length=3", "qknorm:length=data", "qknorm:learn=no,layers=1",
        "lora:r=2|qknorm", "qknorm:gate=one|prefix:length=2"})
    keeps_contract(spec);
  keeps_contract_on("qknorm:on=attn+cross", Body::both);
  keeps_contract_on("qknorm:on=cross,gate=one,length=3", Body::both);
}

TEST_CASE("g starts at log2(L^2 - L): 12.32 for the paper's 72 tokens") {
  SmallModel model(small_arch(Stack::encoder));
  const auto g_of = [&](const Adaptation& a) { return a.parameters()[0]->value.value().at(0); };
  {
    const Adaptation standard(all_methods(), "qknorm", model);
    CHECK(standard.parameters()[0]->name == "g");
    CHECK(g_of(standard) == doctest::Approx(12.3197).epsilon(1e-4));
  }
  {
    const Adaptation other(all_methods(), "qknorm:length=9", model);
    CHECK(g_of(other) == doctest::Approx(std::log2(72)));
  }
  Adaptation data(all_methods(), "qknorm:length=data", model);
  std::vector<int> lengths(40, 3);
  lengths[5] = 9, lengths[6] = 12;  // 97.5 % of 40 texts are 39: the longest but one
  data.calibrate(model, {ragged(model.arch(), lengths)});
  CHECK(g_of(data) == doctest::Approx(std::log2(72)));
}

TEST_CASE("scores do not change with the length of queries or keys, and g bounds them") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  const Adaptation a(all_methods(), "qknorm:gate=one", model);
  const Batch batch = ragged(arch, {5, 3});
  const Array before = rows_of(model, batch).value();
  for (auto& block : model.blocks)
    for (Linear* l : {&block->attention.q, &block->attention.k})
      l->each([](Weight& w) {
        Array& x = w.parameter().value.value();
        kernels::scale(x, x, 7);
      });
  CHECK(difference(rows_of(model, batch).value(), before) < 1e-5);
  // g = 0: every score is 0, attention the mean of the values, whatever the queries are.
  for (const auto& p : a.parameters()) p->value.value().fill(0);
  const Array flat = rows_of(model, batch).value();
  for (auto& block : model.blocks)
    block->attention.q.each([](Weight& w) { add_noise(w.parameter(), 1, 4); });
  CHECK(difference(rows_of(model, batch).value(), flat) < 1e-6);
}

TEST_CASE("attention of unit queries and keys, by hand") {
  // One head of width 2; q = (3, 4), keys (5, 0) and (0, 2): cosines 0.6 and 0.8.
  Arch arch = small_arch(Stack::encoder, 2, 1, 1);
  Model model(arch, {Dtype::f64, true, 1});
  const Adaptation a(all_methods(), "qknorm:gate=one,length=3", model);
  const double g = std::log2(6);
  Attention& attention = model.blocks[0]->attention;
  const auto set = [](Weight& w, const std::vector<double>& v) {
    Array& x = w.parameter().value.value();
    x.copy_from(Array::of(v, x.shape()).to(Dtype::f64));
  };
  set(attention.q.w, {0, 0, 0, 0}), set(attention.q.b, {3, 4});
  set(attention.k.w, {5, 0, 0, 2}), set(attention.k.b, {0, 0});
  set(attention.v.w, {1, 0, 0, 1}), set(attention.v.b, {0, 0});
  set(attention.o.w, {1, 0, 0, 1}), set(attention.o.b, {0, 0});
  Batch batch;
  batch.length = {2}, batch.token = {1, 2}, batch.example = {0};
  Sequence s;
  s.length = {2}, s.position = {0, 1}, s.source = {0, 1}, s.example = {0, 0};
  Ctx ctx;
  ctx.batch = &batch, ctx.sequence = &s, ctx.address = s.address();
  const Tensor x(Array::of(std::vector<double>{1, 0, 0, 1}, {2, 2}).to(Dtype::f64));
  const Array y = attention(x, x, ctx).value();
  const double p = 1 / (1 + std::exp(g * (0.8 - 0.6)));
  CHECK(y.at(0) == doctest::Approx(p));
  CHECK(y.at(1) == doctest::Approx(1 - p));
}

TEST_CASE("a cached step of QKNorm is the whole text's") {
  const Arch arch = small_arch(Stack::decoder);
  SmallModel model(arch);
  const Adaptation a(all_methods(), "qknorm", model);
  jitter(a.parameters());
  const Batch whole = ragged(arch, {6});
  const Array all = rows_of(model, whole).value();
  KvCache cache(arch.layers, 1);
  Array last;
  const NoRecord off;
  for (int i = 0; i < 6; ++i) {
    Batch one;
    one.length = {1}, one.token = {whole.token[i]}, one.example = whole.example;
    Ctx ctx;
    ctx.cache = &cache;
    last = model.forward(one, ctx).rows.value();
  }
  CHECK(difference(last, slice(Tensor(all), 0, 5, 6).value()) < 1e-5);
}

TEST_CASE("QKNorm counts 2 numbers for each attention, and says what it cannot do") {
  CHECK(counted("bert-base", "qknorm").trains == 24);
  CHECK(counted("bert-base", "qknorm:gate=one").trains == 12);
  CHECK(counted("t5-base", "qknorm:on=attn+cross").trains == 72);
  contains(refusal("qknorm:on=mlp"), "on=mlp; need attn");
  contains(refusal("qknorm:length=1"), "need a whole number of at least 2");
  contains(refusal("qknorm:gate=one,learn=no"), "nothing to train");
  refuses_to_merge("qknorm", small_arch(Stack::encoder), "cannot be merged");
}
