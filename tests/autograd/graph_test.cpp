// The graph: what it records and keeps, walking it, checkpoints, what it says of itself.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "peft/methods.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

Tensor constant(Shape shape, std::uint32_t stream = 1) {
  return random_array(std::move(shape), stream);
}
Tensor leaf(Shape shape, std::uint32_t stream = 2) {
  return Tensor::leaf(random_array(std::move(shape), stream), "w");
}

std::size_t kept(const Tensor& y, const std::vector<Tensor>& own) {
  std::vector<Array> arrays;
  for (const Tensor& t : own) arrays.push_back(t.value());
  return explain(y, arrays).kept_bytes;
}

constexpr std::size_t kF32 = sizeof(float);

// A transformer with a method attached, its loss, and what the graph of the loss keeps.
struct Adapted {
  Adapted(const Arch& arch, const std::string& method, bool language = false)
      : model(arch), adaptation(all_methods(), method, model), lm(language) {
    model.set_head(std::make_unique<LinearHead>(model.build(), arch, 3, Pool::mean));
    own = arrays_of(model);
    for (const auto& p : adaptation.parameters()) own.push_back(p->value.value());
    model.head().each([&](Weight& w) { own.push_back(w.value().value()); });
  }
  Tensor loss(const Batch& batch, bool train = true) const {
    Ctx ctx{.train = train, .key = {3, 4}};
    const Sequence s = model.forward(batch, ctx);
    if (lm) return model.lm_loss(s, batch, ctx);
    return model.head().loss(model.head().scores(model, s, batch, ctx), batch);
  }
  SmallModel model;
  Adaptation adaptation;
  bool lm;
  std::vector<Array> own;  // parameters: not the graph's
};

}  // namespace

TEST_CASE("branches in which nothing learns are not recorded") {
  const Tensor x = constant({4, 3}), w = constant({5, 3}), a = leaf({2, 5});
  const Tensor frozen = gelu(linear(x, w));
  CHECK_FALSE(frozen.needs_grad());
  const Tensor y = sum(linear(frozen, a) + linear(x, constant({2, 3})));
  std::vector<std::string> ops;
  for (const auto& row : explain(y).rows) ops.push_back(row.op);
  CHECK(ops == std::vector<std::string>{"linear", "add", "sum"});
  const NoRecord off;
  CHECK_FALSE(linear(x, leaf({2, 3})).needs_grad());
}

TEST_CASE("a product keeps an input only if the other one learns") {
  const Tensor x = constant({40, 8}), w = constant({6, 8}), b = leaf({6});
  const Tensor learns = leaf({6, 8}), below = leaf({40, 8});
  CHECK(kept(linear(x, w, b), {}) == 0);
  CHECK(kept(linear(x, learns), {}) == 40 * 8 * kF32);
  CHECK(kept(linear(below, w), {}) == 6 * 8 * kF32);
  CHECK(kept(linear(below, w), {w}) == 0);
  CHECK(kept(linear(below, learns), {below, learns}) == 0);
  CHECK(kept(x * below, {}) == 40 * 8 * kF32);
  CHECK(kept(x + below, {}) == 0);
}

TEST_CASE("after a norm its input is kept, once, and its output is not") {
  const Tensor x = 1.0 * leaf({40, 8}), gain = constant({8}), bias = constant({8});
  const Tensor w1 = leaf({6, 8}), w2 = leaf({6, 8});
  const Tensor h = layer_norm(x, gain, bias, 1e-5);
  CHECK(kept(linear(h, w1) + linear(h, w2), {gain, bias, w1, w2}) == 40 * 8 * kF32);
}

TEST_CASE("a bias alone keeps nothing of a norm's input") {
  const Tensor x = constant({40, 8}), bias = leaf({8}), gain = constant({8});
  const Tensor y = layer_norm(x, gain, bias, 1e-5);
  CHECK(kept(y, {gain, bias}) == 0);
}

TEST_CASE("a graph may be walked twice, and gives the same bits") {
  const Tensor w = leaf({5, 5}), x = constant({7, 5});
  const Tensor y = sum(square(linear(tanh(linear(x, w)), w)));
  const Gradients a = backward(y), b = backward(y);
  CHECK(same_bits(a[w], b[w]));
}

TEST_CASE("backward adds to the gradients that it is given, also after they were read") {
  const Tensor w = leaf({5, 5}), x = constant({7, 5});
  const Tensor y = sum(square(linear(x, w)));
  const Array once = backward(y)[w].clone();
  Gradients grads;
  for (int i = 1; i <= 3; ++i) {
    backward(y, grads);
    CHECK(difference(grads[w], (static_cast<double>(i) * Tensor(once)).value()) < 1e-6);
  }
  CHECK(same_bits(once, backward(y)[w]));
}

TEST_CASE("the last walk adds up a leaf's uses with the bits that they have when they are read") {
  const Tensor w = leaf({5, 5}), b = leaf({5}, 3);
  const auto loss = [&](std::int64_t from, std::int64_t to) {
    Tensor h = constant({9, 5}, 4);
    h = Tensor(h.value().slice(0, from, to));
    for (int i = 0; i < 4; ++i) h = tanh(linear(h, w, b)) * b + h;
    const auto inner = [&](const Tensor& x) { return linear(linear(x, w), w * w); };
    return sum(square(checkpoint(inner, h))) + sum(w) + sum(w);
  };
  const auto gradients = [&](const std::vector<std::int64_t>& cuts, bool last) {
    Gradients grads;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
      backward(loss(cuts[i], cuts[i + 1]), grads, {}, last && i + 2 == cuts.size());
    return std::pair{grads[w].clone(), grads[b].clone()};
  };
  for (const std::vector<std::int64_t>& cuts :
       std::vector<std::vector<std::int64_t>>{{0, 9}, {0, 4, 9}, {0, 1, 2, 9}}) {
    const auto read = gradients(cuts, false), walked = gradients(cuts, true);
    CHECK(same_bits(read.first, walked.first));
    CHECK(same_bits(read.second, walked.second));
  }
}

TEST_CASE("in the last walk a leaf that every layer reads does not take room for every layer") {
  const Tensor w = leaf({200, 200}), x = constant({1, 200});
  Tensor h = x;
  for (int i = 0; i < 20; ++i) h = tanh(linear(h, w));
  const Tensor y = sum(h);
  const auto most = [&](bool last) {
    const std::size_t before = pool::live_bytes();
    pool::reset_peak();
    Gradients grads;
    backward(y, grads, {}, last);
    (void)grads[w];
    return static_cast<double>(pool::peak_bytes() - before) /
           static_cast<double>(w.value().bytes());
  };
  CHECK(most(false) >= 20);
  CHECK(most(true) < 3);
}

TEST_CASE("a product that begins a gradient has the bits of adding to zeros") {
  const Tensor w = leaf({5, 4}), x1 = constant({7, 4}, 3), x2 = constant({6, 4}, 4);
  const Tensor y1 = linear(x1, w), y2 = linear(x2, w);
  const Array d1 = random_array({7, 5}, 5), d2 = random_array({6, 5}, 6);
  for (int i = 0; i < 3; ++i) Array::full({5, 4}, std::nan("")).fill(std::nan(""));  // leaves NaN
  Gradients grads;
  backward(y1, grads, d1);
  backward(y2, grads, d2);
  Array want = Array::zeros({5, 4});
  kernels::gemm(want, d1.transpose(), x1.value(), 1, 1);
  kernels::gemm(want, d2.transpose(), x2.value(), 1, 1);
  CHECK(same_bits(grads[w], want));
}

TEST_CASE("two leaves whose gradients are one array do not disturb each other") {
  const Tensor a = leaf({3, 2}, 1), b = leaf({3, 2}, 2);
  Gradients grads;
  const Tensor y = a + b;
  backward(y, grads, Array::full({3, 2}, 1));
  backward(1.0 * a, grads, Array::full({3, 2}, 5));
  CHECK(grads[a].to_vector() == std::vector<double>(6, 6));
  CHECK(grads[b].to_vector() == std::vector<double>(6, 1));
}

TEST_CASE("a chain of 200,000 nodes is walked and destroyed without recursion") {
  const Tensor w = leaf({1});
  Tensor y = w;
  for (int i = 0; i < 200000; ++i) y = y + w;
  CHECK(backward(y)[w].item() == 200001);
  y = w;
  for (int i = 0; i < 200000; ++i) y = checkpoint([](const Tensor& x) { return -x; }, y);
  CHECK(backward(y)[w].item() == 1);
}

TEST_CASE("a checkpoint trains what it captured though its input needs no gradient") {
  const Tensor w = leaf({4, 3}), x = constant({5, 3});
  const auto f = [&](const Tensor& in) { return square(linear(in, w)); };
  const Tensor plain = sum(f(x)), again = sum(checkpoint(f, x));
  REQUIRE(again.needs_grad());
  CHECK(same_bits(backward(plain)[w], backward(again)[w]));
  CHECK_FALSE(checkpoint([](const Tensor& in) { return square(in); }, x).needs_grad());
}

TEST_CASE("checkpoints nest, and forget what lies inside") {
  const Tensor w = leaf({6, 6}), v = leaf({6, 6}, 9), x = constant({50, 6});
  const auto inner = [&](const Tensor& in) {
    return tanh(linear(layer_norm(in, {}, {}, 1e-5), w));
  };
  const auto outer = [&](const Tensor& in) {
    return linear(checkpoint(inner, gelu(linear(in, v))), v) + checkpoint(inner, in);
  };
  const auto plain = [&](const Tensor& in) {
    return linear(inner(gelu(linear(in, v))), v) + inner(in);
  };
  const Tensor a = sum(square(plain(plain(x))));
  const Tensor b = sum(square(checkpoint(outer, checkpoint(outer, x))));
  CHECK(same_bits(a.value(), b.value()));
  const Gradients ga = backward(a), gb = backward(b);
  CHECK(same_bits(ga[w], gb[w]));
  CHECK(same_bits(ga[v], gb[v]));
  CHECK(kept(b, {w, v}) < kept(a, {w, v}) / 3);
}

TEST_CASE("checkpointed segments do not take each other's norms for their own") {
  // Their recipes die during the walk, and the next one may come to lie at the same address.
  std::vector<Tensor> w;
  for (std::uint32_t i = 0; i < 6; ++i) w.push_back(leaf({8, 8}, i));
  const auto through = [&](bool forget) {
    Tensor h = constant({9, 8}, 77);
    for (const Tensor& one : w) {
      const auto f = [one](const Tensor& x) {
        return x + linear(rms_norm(x, constant({8}), 1e-5), one);
      };
      h = forget ? checkpoint(f, h) : f(h);
    }
    return backward(sum(square(h)));
  };
  const Gradients a = through(false), b = through(true);
  for (const Tensor& one : w) CHECK(same_bits(a[one], b[one]));
}

TEST_CASE("a checkpoint that cannot be made again from the same leaves says so") {
  const Tensor w = leaf({3, 3}), x = leaf({2, 3});
  bool there = true;
  const Tensor y =
      checkpoint([&](const Tensor& in) { return there ? linear(in, w) : 2.0 * in; }, x);
  there = false;
  contains(error_of([&] { backward(sum(y)); }), "same leaves");
  there = true;
  CHECK(backward(sum(y)).has(w));
}

TEST_CASE("explain's sum is what the pool holds after the forward pass") {
  const Arch encoder = small_arch(Stack::encoder), decoder = small_arch(Stack::decoder);
  Arch post = encoder;
  post.pre_norm = post.final_norm = false;
  Arch transform = encoder;
  transform.lm_transform = transform.lm_bias = true;
  for (const Arch& arch : {encoder, decoder, llama_like(), post, transform})
    for (const char* method : {"lora:r=2,on=q+v,dropout=0.1", "lora:r=2,on=k+o+up+down,layers=1",
                               "houlsby:m=3", "full", "houlsby:m=2,norms=no|lora:r=1", "layernorm"})
      for (const double dropout : {0.0, 0.2})
        for (const bool language : {false, true}) {
          CAPTURE(arch.family);
          CAPTURE(method);
          CAPTURE(dropout);
          CAPTURE(language);
          Arch a = arch;
          a.dropout = dropout;
          const Adapted adapted(a, method, language);
          const Batch batch = ragged(a, {5, 1, 9, 3});
          const std::size_t before = pool::live_bytes();
          const Tensor loss = adapted.loss(batch);
          const std::size_t gained = pool::live_bytes() - before - loss.value().bytes();
          const Explanation said = explain(loss, adapted.own);
          CHECK(said.kept_bytes == gained);
          std::size_t sum = 0;
          for (const auto& row : said.rows) sum += row.kept_bytes;
          CHECK(sum == said.kept_bytes);
        }
}

TEST_CASE("one block with LoRA on q and v keeps (6d + F) numbers for each token") {
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    std::vector<std::size_t> bytes;
    for (const int layers : {2, 3}) {
      Arch a = small_arch(stack, 64, layers, 2);
      a.hidden = 256;
      const Adapted adapted(a, "lora:r=1,on=q+v");
      bytes.push_back(explain(adapted.loss(ragged(a, {20, 7, 24, 13})), adapted.own).kept_bytes);
    }
    const double each = static_cast<double>(bytes[1] - bytes[0]) / 64;
    const double expected = (6 * 64 + 256) * 4;
    CHECK(each >= expected);
    CHECK(each <= 1.02 * expected);
  }
}

TEST_CASE("a gradient is summed down to its input's shape, however that was broadcast") {
  const std::vector<Shape> shapes{{1},       {4},       {1, 1},    {1, 4},    {3, 1},
                                  {3, 4},    {2, 1, 1}, {2, 1, 4}, {2, 3, 1}, {1, 3, 4},
                                  {1, 3, 1}, {2, 3, 4}, {1, 1, 4}};
  const auto whole = [](const Shape& shape, int from) {  // small whole numbers: sums are exact
    std::vector<double> v(static_cast<std::size_t>(count(shape)));
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<double>((from + i * 3) % 7) - 3;
    return Array::of(v, shape);
  };
  for (const Shape& p : shapes)
    for (const Shape& q : shapes) {
      CAPTURE(p);
      CAPTURE(q);
      const Tensor a = Tensor::leaf(whole(p, 1)), b = Tensor::leaf(whole(q, 2));
      const Tensor y = a * b - b;
      const Array dy = whole(y.shape(), 5);
      const Gradients grads = backward(y, dy);
      const auto check_one = [&](const Tensor& t, const std::vector<double>& terms) {
        std::vector<double> index(static_cast<std::size_t>(t.numel())), sum(index.size());
        std::iota(index.begin(), index.end(), 0);
        const auto at = Array::of(index, t.shape()).expand(y.shape()).to_vector();
        for (std::size_t i = 0; i < at.size(); ++i)
          sum[static_cast<std::size_t>(at[i])] += terms[i];
        CHECK(grads[t].shape() == t.shape());
        CHECK(grads[t].to_vector() == sum);
      };
      std::vector<double> da = dy.to_vector(), db = da;
      const auto va = a.value().expand(y.shape()).to_vector(),
                 vb = b.value().expand(y.shape()).to_vector();
      for (std::size_t i = 0; i < da.size(); ++i) db[i] *= va[i] - 1, da[i] *= vb[i];
      check_one(a, da);
      check_one(b, db);
    }
}

TEST_CASE("errors name the op, what it was given and what it needs") {
  const Tensor x = leaf({4, 3});
  contains(error_of([&] { backward(constant({1})); }), "nothing that y depends on");
  contains(error_of([&] { backward(square(x)); }), "[4, 3]");
  contains(error_of([&] { backward(square(x), Array::zeros({3, 4})); }), "[3, 4]");
  contains(error_of([&] { backward(sum(x))[leaf({2})]; }), "none reached 'w'");
  const auto both = [](const std::string& text, const char* a, const char* b) {
    contains(text, a);
    contains(text, b);
  };
  both(error_of([&] { linear(x, constant({5, 4})); }), "linear: x [4, 3]", "W [5, 4]");
  both(error_of([&] { linear(x, constant({5, 3}), constant({4})); }), "b [4]", "b[out]");
  both(error_of([&] { matmul(x, x); }), "matmul: [4, 3]", "[K, N]");
  both(error_of([&] {
         add_linear(x, constant({4, 2}), constant({2, 2}), 1);
       }),
       "y [4, 3]", "W [2, 2]");
  both(error_of([&] { x + constant({4}); }), "add", "[4]");
  both(error_of([&] { layer_norm(x, constant({4}), {}, 1e-5); }), "gain [4]", "[3]");
  both(error_of([&] { rms_norm(x, constant({2}), 1e-5); }), "rms_norm", "[2]");
  both(error_of([&] { swiglu(x, constant({3, 4})); }), "swiglu", "[3, 4]");
  both(error_of([&] { sdpa(x, x, x, 2, 1, {}); }), "sdpa", "2 heads");
  both(error_of([&] { sdpa(x, x, x, 1, 1, {false, 1, {3}, {}}); }), "sdpa", "1 sequences");
  both(error_of([&] { gather(x, Array::of(std::vector<std::int32_t>{4})); }), "index 4", "4 rows");
  both(error_of([&] { prepend(constant({2, 2}), x, {4}); }), "bank [2, 2]", "x [4, 3]");
  both(error_of([&] { prepend(constant({2, 3}), x, {3}); }), "add up to 3", "4 rows");
  both(error_of([&] { segment_mean(x, {1, 2}); }), "segment_mean", "3");
  both(error_of([&] { concat({x, constant({3, 3})}, 1); }), "concat", "[3, 3]");
  both(error_of([&] { concat({x, Tensor(Array::zeros({4, 3}, Dtype::f64))}, 0); }), "f32", "f64");
  both(error_of([&] { slice(x, 0, 2, 5); }), "slice", "[2, 5)");
  both(error_of([&] { reshape(x, {5, 2}); }), "[4, 3]", "[5, 2]");
  both(error_of([&] { dropout(x, 1, {}, {}); }), "dropout", "p < 1");
  const Array labels = Array::of(std::vector<std::int32_t>{0, 1, 2, 3});
  both(error_of([&] { cross_entropy(x, labels, 4); }), "label 3", "3 classes");
  both(error_of([&] {
         linear_cross_entropy(x, constant({9, 3}), constant({8}), labels, 4);
       }),
       "W [9, 3]", "b [8]");
}
