// Sites, parts and layer ranges as text, and what a model refuses to be built from.
#include <doctest/doctest.h>

#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("sites and parts print as a spec writes them") {
  CHECK(to_string(Site{Stack::decoder, 3, Part::q}) == "decoder 3 q");
  CHECK(to_string(Site{Stack::encoder, -1, Part::embed}) == "encoder embed");
  CHECK(to_string(parts_named("q+xq+down")) == "q+xq+down");
  for (const char* name : {"embed", "norm1", "o", "attn", "mlp", "norm_out", "head"})
    CHECK(graft::name(part_named(name)) == std::string(name));
}

TEST_CASE("an unknown or repeated part is an error that lists the parts") {
  const std::string unknown = error_of([] { parts_named("q+w"); });
  contains(unknown, "'w'");
  contains(unknown, "gate up down");
  contains(error_of([] { parts_named("q+v+q"); }), "'q' is named twice");
  contains(error_of([] { parts_named(""); }), "''");
  contains(error_of([] { parts_named("q+"); }), "''");
}

TEST_CASE("layer ranges: all, one, a span, the top; nothing outside the model") {
  const auto range = [](const char* text) {
    Where w;
    parse_layers(text, 12, w);
    return std::pair{w.first, w.last};
  };
  CHECK(range("all") == std::pair{0, 11});
  CHECK(range("7") == std::pair{7, 7});
  CHECK(range("4-11") == std::pair{4, 11});
  CHECK(range("top3") == std::pair{9, 11});
  CHECK(range("top12") == std::pair{0, 11});
  for (const char* outside : {"12", "4-12", "top13", "top0"})
    contains(error_of([&] { range(outside); }),
             std::string(outside).starts_with("top") ? "12 layers" : "0..11");
  contains(error_of([&] { range("5-4"); }), "layers=5-4");
  for (const char* wrong : {"", "x", "3-", "-3", "1-2-3", "top", "+1", "1.5", "99999999999"})
    contains(error_of([&] { range(wrong); }), "is not a range");
}

TEST_CASE("a Where has the sites of its parts and layers") {
  const Where w{{Part::q, Part::v}, 1, 2};
  CHECK(w.has(Site{Stack::encoder, 1, Part::q}, 4));
  CHECK_FALSE(w.has(Site{Stack::encoder, 0, Part::q}, 4));
  CHECK_FALSE(w.has(Site{Stack::encoder, 3, Part::v}, 4));
  CHECK_FALSE(w.has(Site{Stack::encoder, 1, Part::k}, 4));
  CHECK(Where{{Part::q}}.has(Site{Stack::encoder, 3, Part::q}, 4));
}

TEST_CASE("linears that match nothing are an error that says what there is") {
  SmallModel encoder(small_arch(Stack::encoder)), llama(llama_like());
  CHECK(encoder.linears({{Part::q, Part::down}, 0, 1}).size() == 4);
  CHECK(llama.linears({{Part::gate}}).size() == 2);
  contains(error_of([&] { encoder.linears({{Part::q, Part::gate}}); }), "q k v o up down");
  contains(error_of([&] { llama.linears({{Part::norm1}}); }), "gate up down");
  contains(error_of([&] { encoder.linears({{Part::q}, 5, 6}); }), "layers 5..6");
}

TEST_CASE("a model that cannot be is refused before it is built") {
  const auto refusal = [](auto change) {
    Arch a = small_arch(Stack::encoder);
    change(a);
    return error_of([&] { Model(a, {}); });
  };
  contains(refusal([](Arch& a) { a.vocab = -1; }), "vocabulary -1");
  contains(refusal([](Arch& a) { a.layers = 0; }), "layers 0");
  contains(refusal([](Arch& a) { a.heads = 0; }), "heads 0");
  contains(refusal([](Arch& a) { a.heads = 5; }), "width 24 does not split into 5 heads");
  contains(refusal([](Arch& a) { a.kv_heads = 2; }), "2 key heads");
  contains(refusal([](Arch& a) { a.hidden = 0; }), "hidden 0");
  contains(refusal([](Arch& a) { a.positions = 0; }), "0 positions");
  contains(refusal([](Arch& a) { a.heads = a.kv_heads = 8, a.rope_theta = 10; }), "width 3");
}

TEST_CASE("a batch that does not fit together is refused") {
  const Arch arch = small_arch(Stack::decoder);
  SmallModel model(arch);
  const auto refusal = [&](auto change) {
    Batch b = ragged(arch, {3, 2});
    change(b);
    return error_of([&] {
      Ctx ctx;
      const Sequence s = model.forward(b, ctx);
      model.lm_loss(s, b, ctx);
    });
  };
  contains(refusal([](Batch& b) { b.token.push_back(1); }), "5, the batch has 6 tokens");
  contains(refusal([](Batch& b) { b.length.push_back(1); }), "3 sequences, 2 example numbers");
  contains(refusal([](Batch& b) { b.token[1] = 29; }), "index 29");
  contains(refusal([](Batch& b) { b.token_label.pop_back(); }), "4 token labels for 5 tokens");
  contains(refusal([](Batch& b) { b.token_label.assign(5, -1); }),
           "no token of the batch has a label");
  contains(refusal([](Batch& b) { b.token_label[0] = 29; }), "label 29");
  contains(error_of([&] { model.head(); }), "it has no head");
}

TEST_CASE("a model without storage has the shapes of one with it, and counts the same") {
  for (const Arch& arch : {small_arch(Stack::encoder), small_arch(Stack::decoder), llama_like()}) {
    Model with(arch, {}), without(arch, {.storage = false});
    CHECK(with.parameters() == without.parameters());
    std::vector<Shape> shapes;
    with.each([&](Weight& w) { shapes.push_back(w.value().shape()); });
    std::size_t i = 0;
    without.each([&](Weight& w) {
      CHECK(w.value().shape() == shapes[i++]);
      CHECK_FALSE(w.value().value().has_storage());
    });
  }
}

TEST_CASE("parameters start the same whatever else was built, and otherwise with another seed") {
  const Arch small = small_arch(Stack::encoder, 24, 1), large = small_arch(Stack::encoder, 24, 3);
  Model a(small, {.seed = 4}), b(large, {.seed = 4}), c(small, {.seed = 5});
  const auto q = [](Model& m) { return m.blocks[0]->attention.q.w.value().value(); };
  const auto k = [](Model& m) { return m.blocks[0]->attention.k.w.value().value(); };
  CHECK(same_bits(q(a), q(b)));
  CHECK_FALSE(same_bits(q(a), q(c)));
  CHECK_FALSE(same_bits(q(a), k(a)));
}
