// What the modules promise: ragged batches, causality, banks, virtual rows, heads.
#include <doctest/doctest.h>

#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

Array rows(const Array& a, std::int64_t begin, std::int64_t end) { return a.slice(0, begin, end); }

// Inserts n virtual rows into each sequence, before its tokens or behind them.
Handle insert_rows(Model& model, int n, bool before) {
  return model.embedding.out.add("virtual rows", [n, before](Sequence s, const Ctx&) {
    Sequence out;
    std::vector<std::int32_t> from;  // rows of [prompt; tokens]
    int at = 0;
    for (int l : s.length) {
      for (int i = 0; i < n + l; ++i) {
        const int token = before ? i - n : i < l ? i : -1;
        from.push_back(token >= 0 ? n + at + token : before ? i : i - l);
        out.source.push_back(token >= 0 ? s.source[at + token] : -1);
        out.position.push_back(before ? i : std::min(i, 23));
        out.example.push_back(s.example[at]);
      }
      out.length.push_back(n + l);
      at += l;
    }
    const Tensor prompt = random_array({n, s.rows.dim(1)}, 5, s.rows.dtype());
    out.rows = gather(concat({prompt, s.rows}, 0), Array::of(from));
    return out;
  });
}

std::vector<Arch> families() {
  Arch post = small_arch(Stack::encoder);
  post.pre_norm = post.final_norm = false;
  return {small_arch(Stack::encoder), small_arch(Stack::decoder), llama_like(), post};
}

}  // namespace

TEST_CASE("a ragged batch gives each sequence the bits that it has alone") {
  for (const Arch& arch : families()) {
    CAPTURE(arch.family);
    CAPTURE(arch.pre_norm);
    SmallModel model(arch);
    const std::vector<int> length{5, 1, 24, 9, 2};
    const Array together = rows_of(model, ragged(arch, length)).value();
    std::int64_t at = 0;
    for (std::size_t i = 0; i < length.size(); ++i) {
      const Array alone =
          rows_of(model, ragged(arch, {length[i]}, static_cast<std::uint32_t>(i))).value();
      CHECK(same_bits(alone, rows(together, at, at + length[i])));
      at += length[i];
    }
  }
}

TEST_CASE("a decoder's rows do not depend on the tokens after them; an encoder's do") {
  for (const Arch& arch : families()) {
    CAPTURE(arch.family);
    SmallModel model(arch);
    Batch batch = ragged(arch, {12});
    const Array before = rows_of(model, batch).value();
    for (std::size_t i = 7; i < 12; ++i) batch.token[i] = (batch.token[i] + 1) % arch.vocab;
    const Array after = rows_of(model, batch).value();
    CHECK(same_bits(rows(before, 0, 7), rows(after, 0, 7)) == arch.causal);
    CHECK_FALSE(same_bits(rows(before, 7, 8), rows(after, 7, 8)));
  }
}

TEST_CASE("grouped heads equal full heads whose keys and values are repeated") {
  Arch grouped = llama_like(24, 1);
  grouped.layers = 1;
  Arch full = grouped;
  full.kv_heads = full.heads;
  SmallModel a(grouped, Dtype::f64), b(full, Dtype::f64);
  std::vector<Array> from = arrays_of(a);
  std::size_t i = 0;
  b.each([&](Weight& w) {
    Array& to = w.parameter().value.value();
    const Array source = from[i++];
    if (source.shape() == to.shape()) return to.copy_from(source);
    const int dh = grouped.head_width();
    for (int h = 0; h < full.heads; ++h) {  // head h reads key head h / 3
      Array part = to.slice(0, h * dh, (h + 1) * dh);
      part.copy_from(source.slice(0, h / 3 * dh, (h / 3 + 1) * dh));
    }
  });
  const Batch batch = ragged(grouped, {7, 3});
  CHECK(difference(rows_of(a, batch).value(), rows_of(b, batch).value()) < 1e-13);
}

TEST_CASE("rotary attention sees distances, not positions") {
  const Arch arch = llama_like();
  SmallModel model(arch, Dtype::f64);
  const Batch batch = ragged(arch, {9, 4});
  const Array before = rows_of(model, batch).value();
  const Handle shift = model.embedding.out.add("shift", [](Sequence s, const Ctx&) {
    for (std::int32_t& p : s.position) p += 5;
    return s;
  });
  const Array after = rows_of(model, batch).value();
  CHECK(difference(after, before) < 1e-12);
  CHECK_FALSE(same_bits(after, before));
}

TEST_CASE("a gate of zero leaves attention exactly unchanged") {
  for (const Arch& arch : families()) {
    CAPTURE(arch.family);
    SmallModel model(arch);
    const Batch batch = ragged(arch, {6, 1, 11});
    const Array before = rows_of(model, batch).value();
    const std::int64_t width = arch.kv_heads * arch.head_width();
    double gate = 0;
    std::vector<Handle> handles;
    for (auto& block : model.blocks)
      handles.push_back(block->attention.banks.add("bank", [&, width](Attn a, const Ctx&) {
        a.banks.push_back({random_array({4, width}, 1), random_array({4, width}, 2),
                           Tensor(Array::full({1}, gate))});
        return a;
      }));
    CHECK(same_bits(before, rows_of(model, batch).value()));
    gate = 0.5;
    CHECK(difference(rows_of(model, batch).value(), before) > 1e-3);
    handles.clear();
    CHECK(same_bits(before, rows_of(model, batch).value()));
  }
}

TEST_CASE("ungated banks are attention over the concatenated keys, for causal queries, too") {
  for (const bool causal : {false, true}) {
    Arch arch = small_arch(causal ? Stack::decoder : Stack::encoder, 12, 1, 2);
    SmallModel model(arch, Dtype::f64);
    Attention& attention = model.blocks[0]->attention;
    Sequence s;
    s.length = {4, 1, 6};
    for (int l : s.length)
      for (int i = 0; i < l; ++i) s.position.push_back(i);
    const Ctx ctx{.sequence = &s};
    const Tensor x = random_array({11, 12}, 1, Dtype::f64), none;
    const Tensor k1 = random_array({2, 12}, 2, Dtype::f64),
                 v1 = random_array({2, 12}, 3, Dtype::f64);
    const Tensor k2 = random_array({3, 12}, 4, Dtype::f64),
                 v2 = random_array({3, 12}, 5, Dtype::f64);
    const auto both = [&](Attn a, const Ctx&) {
      a.banks.push_back({k1, v1, none});
      a.banks.push_back({k2, v2, none});
      return a;
    };
    const Handle handle = attention.banks.add("banks", both);
    const Tensor y = attention(x, x, ctx);
    const Tensor q = attention.q(x, ctx), k = attention.k(x, ctx), v = attention.v(x, ctx);
    std::vector<Tensor> parts;
    int at = 0;
    for (int l : s.length)  // each sequence by itself, its keys written out
      for (int i = 0; i < l; ++i) {
        const int begin = at, end = begin + (causal ? i + 1 : l);
        const Tensor keys = concat({k2, k1, slice(k, 0, begin, end)}, 0);
        const Tensor values = concat({v2, v1, slice(v, 0, begin, end)}, 0);
        const AttentionShape one{false, 1 / std::sqrt(6.0), {1}, {static_cast<int>(keys.dim(0))}};
        parts.push_back(sdpa(slice(q, 0, at + i, at + i + 1), keys, values, 2, 2, one));
        if (i + 1 == l) at += l;
      }
    CHECK(difference(y.value(), attention.o(concat(parts, 0), ctx).value()) < 1e-13);
  }
}

TEST_CASE("a gated bank is a second attention, times its gate, added") {
  const Arch arch = small_arch(Stack::decoder, 12, 1, 2);
  SmallModel model(arch, Dtype::f64);
  Attention& attention = model.blocks[0]->attention;
  Sequence s;
  s.length = {3, 2};
  s.position = {0, 1, 2, 0, 1};
  const Ctx ctx{.sequence = &s};
  const Tensor x = random_array({5, 12}, 1, Dtype::f64), gate = random_array({12}, 6, Dtype::f64);
  const Tensor k = random_array({3, 12}, 2, Dtype::f64), v = random_array({3, 12}, 3, Dtype::f64);
  Tensor without;  // what `o` consumes
  const Handle see = attention.o.out.add("see", [&](Tensor y, const Tensor& in, const Ctx&) {
    without = in;
    return y;
  });
  attention(x, x, ctx);
  const AttentionShape own{false, 1 / std::sqrt(6.0), {5}, {3}};  // every query sees the bank alone
  const Tensor expected = without + gate * sdpa(attention.q(x, ctx), k, v, 2, 2, own);
  const Handle handle = attention.banks.add("bank", [&](Attn a, const Ctx&) {
    a.banks.push_back({k, v, gate});
    return a;
  });
  attention(x, x, ctx);
  CHECK(difference(without.value(), expected.value()) < 1e-13);
}

TEST_CASE("heads pool as told: mean, first, last; and multiply") {
  const Arch arch = small_arch(Stack::encoder, 12, 1, 2);
  SmallModel model(arch, Dtype::f64);
  const Batch batch = ragged(arch, {3, 1, 5});
  const std::vector<double> x = rows_of(model, batch).value().to_vector();
  const std::vector<std::vector<int>> mean{{0, 1, 2}, {3}, {4, 5, 6, 7, 8}}, cls{{0}, {3}, {4}},
      last{{2}, {3}, {8}};
  for (const auto& [pool, picked] :
       {std::pair{Pool::mean, mean}, {Pool::cls, cls}, {Pool::last, last}})
    for (const bool dense : {false, true}) {
      LinearHead head(model.build(), arch, 3, pool, dense);
      std::vector<std::vector<double>> w;
      head.each([&](Weight& one) {
        add_noise(one.parameter(), 0.3);
        w.push_back(one.value().value().to_vector());
      });
      Ctx ctx;
      const Sequence s = model.forward(batch, ctx);
      const std::vector<double> y = head.scores(model, s, batch, ctx).value().to_vector();
      for (int i = 0; i < 3; ++i) {
        std::vector<double> h(12), z(12);
        for (int c = 0; c < 12; ++c)
          for (int r : picked[i]) h[c] += x[r * 12 + c] / static_cast<double>(picked[i].size());
        for (int o = 0; dense && o < 12; ++o) {
          z[o] = w[1][o];
          for (int c = 0; c < 12; ++c) z[o] += w[0][o * 12 + c] * h[c];
        }
        for (int o = 0; dense && o < 12; ++o) h[o] = std::tanh(z[o]);
        for (int k = 0; k < 3; ++k) {
          double want = w[dense ? 3 : 1][k];
          for (int c = 0; c < 12; ++c) want += w[dense ? 2 : 0][k * 12 + c] * h[c];
          CHECK(y[i * 3 + k] == doctest::Approx(want).epsilon(1e-12));
        }
      }
    }
}

TEST_CASE("a regression head's loss is the mean squared error") {
  const Arch arch = small_arch(Stack::encoder, 12, 1, 2);
  SmallModel model(arch, Dtype::f64);
  LinearHead head(model.build(), arch, 0, Pool::cls);
  Batch batch = ragged(arch, {3, 1});
  batch.target = {1.5f, -2};
  const Tensor scores = Tensor(Array::of(std::vector<double>{1, 1}, {2, 1}));
  CHECK(head.loss(scores, batch).item() == doctest::Approx((0.25 + 9) / 2));
  batch.divisor = 8;
  CHECK(head.loss(scores, batch).item() == doctest::Approx((0.25 + 9) / 8));
  batch.target.pop_back();
  contains(error_of([&] { head.loss(scores, batch); }), "1 targets for 2 sequences");
}

TEST_CASE("a cloze head reads label words off the vocabulary at the mask, or at the last token") {
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    const Arch arch = small_arch(stack, 12, 1, 2);
    SmallModel model(arch, Dtype::f64);
    const ClozeHead head({{7}, {8, 9, 9}, {28}});
    Batch batch = ragged(arch, {4, 6});
    for (std::int32_t& t : batch.token) t = t == arch.mask ? 1 : t;
    batch.token[2] = batch.token[5] = arch.mask;
    Ctx ctx;
    const Sequence s = model.forward(batch, ctx);
    const std::vector<std::int32_t> at = arch.causal ? std::vector{3, 9} : std::vector{2, 5};
    const std::vector<double> logits = model.lm_logits(s, at, ctx).value().to_vector();
    const std::vector<double> y = head.scores(model, s, batch, ctx).value().to_vector();
    for (int i = 0; i < 2; ++i) {
      const double* l = &logits[static_cast<std::size_t>(i * arch.vocab)];
      CHECK(y[i * 3] == doctest::Approx(l[7]));
      CHECK(y[i * 3 + 1] == doctest::Approx((l[8] + 2 * l[9]) / 3));
      CHECK(y[i * 3 + 2] == doctest::Approx(l[28]));
    }
    batch.token[2] = 0;
    if (!arch.causal)
      contains(error_of([&] { head.scores(model, s, batch, ctx); }), "4 rows has no mask token");
  }
  contains(error_of([] { ClozeHead head(std::vector<std::vector<std::int32_t>>{{7}}); }),
           "at least two");
  contains(error_of([] { ClozeHead head({{7}, {}}); }), "no tokens");
  SmallModel model(small_arch(Stack::decoder));
  Ctx ctx;
  const Batch batch = ragged(model.arch(), {3});
  const Sequence s = model.forward(batch, ctx);
  contains(error_of([&] { ClozeHead({{1}, {29}}).scores(model, s, batch, ctx); }), "token 29");
}

TEST_CASE("virtual rows behind the tokens of a decoder change no label, pooling, score or loss") {
  for (const Arch& arch : {small_arch(Stack::decoder), llama_like()}) {
    SmallModel model(arch);
    const Batch batch = ragged(arch, {5, 1, 9});
    const auto results = [&](std::int64_t rows) {
      std::vector<Array> all;
      Ctx ctx;
      const Sequence s = model.forward(batch, ctx);
      CHECK(s.rows.dim(0) == rows);
      for (const Pool pool : {Pool::mean, Pool::cls, Pool::last})
        all.push_back(
            LinearHead(model.build(), arch, 3, pool).scores(model, s, batch, ctx).value());
      all.push_back(ClozeHead({{1}, {2, 3}}).scores(model, s, batch, ctx).value());
      all.push_back(model.lm_loss(s, batch, ctx).value());
      return all;
    };
    const std::vector<Array> plain = results(15);
    const Handle edit = insert_rows(model, 4, false);
    const std::vector<Array> edited = results(27);
    for (std::size_t i = 0; i < plain.size(); ++i) CHECK(same_bits(plain[i], edited[i]));
  }
}

TEST_CASE("virtual rows before the tokens shift them; heads still read tokens alone") {
  const Arch arch = small_arch(Stack::encoder, 12, 1, 2);
  SmallModel model(arch, Dtype::f64);
  const Batch batch = ragged(arch, {3, 5});
  const Handle edit = insert_rows(model, 2, true);
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  CHECK(s.length == std::vector<int>{5, 7});
  const auto same = [&](Pool pool, const Tensor& pooled) {
    LinearHead head(model.build(), arch, 3, pool);
    Tensor w;
    head.each([&](Weight& one) { w = w.defined() ? w : one.value(); });  // its bias is 0
    CHECK(difference(head.scores(model, s, batch, ctx).value(), linear(pooled, w).value()) < 1e-12);
  };
  const auto picked = [&](std::vector<std::int32_t> rows) {
    return gather(s.rows, Array::of(rows));
  };
  same(Pool::cls, picked({2, 7}));
  same(Pool::last, picked({4, 11}));
  same(Pool::mean, segment_mean(picked({2, 3, 4, 7, 8, 9, 10, 11}), {3, 5}));
  const Tensor logits = model.lm_logits(s, {2, 3, 4, 7, 8, 9, 10, 11}, ctx);
  const Array label = Array::of(batch.token_label);
  CHECK(difference(model.lm_loss(s, batch, ctx).value(), cross_entropy(logits, label, 6).value()) <
        1e-12);
}

TEST_CASE("a sequence of virtual rows alone, or longer than the positions, is an error") {
  const Arch arch = small_arch(Stack::encoder, 12, 1, 2);
  SmallModel model(arch);
  const Handle edit = insert_rows(model, 2, true);
  contains(error_of([&] { rows_of(model, ragged(arch, {3, 23})); }), "position 24");
  const Batch batch = ragged(arch, {3, 0});
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  for (const Pool pool : {Pool::mean, Pool::cls, Pool::last})
    contains(
        error_of([&] { LinearHead(model.build(), arch, 3, pool).scores(model, s, batch, ctx); }),
        "2 rows has no token");
}
