// Prompts, prefixes and gated prompts: what they do to a text, identities with other forms, and
// what a cache may not change.
#include <doctest/doctest.h>

#include <cmath>

#include "peft/ptuning.h"
#include "peft/routed.h"
#include "tests/peft/method_cases.h"
#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

// The sequence that the blocks get of a batch.
Sequence embedded(const Model& model, const Batch& batch) {
  Ctx ctx;
  return model.embed(batch, ctx);
}

using Ints = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("options of prompts, and prompts among other methods, keep the contract") {
  for (const char* spec :
       {"prompt:length=3,init=vocab,top=10", "prompt:length=2,init=text,tokens=3-4,pooled=yes",
        "prefix:length=2,layers=1", "prefix:length=3,init=text,tokens=5-6",
        "ptuning:template=2+a,encoder=mlp,hidden=3", "ptuning:template=2+a,encoder=none",
        "llama_adapter:length=2,gate=linear,layers=1", "llama_adapter:length=2,init=random",
        "llama_adapter:length=2,gate=none", "lora:r=2|prompt:length=2",
        "prompt:length=2|prefix:length=2|llama_adapter:length=2",
        "prompt:length=2|prefix:length=3,init=text,tokens=5-6",
        "prefix:length=2|houlsby:m=2,norms=no"})
    keeps_contract(spec);
  for (const char* spec : {"prompt:length=2,in=both", "prompt:length=2,in=decoder",
                           "prefix:length=2,on=cross,layers=1", "prefix:length=2,in=decoder",
                           "ptuning:template=2+a,in=both,encoder=mlp2,hidden=2"})
    keeps_contract_on(spec, Body::both);
  keeps_contract_on("prefix:length=2,positions=stay", Body::decoder);
}

TEST_CASE("a prompt's rows stand first, without a token, and move positions up") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  const Batch batch = ragged(arch, {2, 1});
  const Adaptation prompt(all_methods(), "prompt:length=2", model);
  const Sequence s = embedded(model, batch);
  CHECK(s.source == Ints{-1, -1, 0, 1, -1, -1, 2});
  CHECK(s.position == Ints{0, 1, 2, 3, 0, 1, 2});
  CHECK(s.example == Ints{0, 0, 0, 0, 1, 1, 1});
  CHECK(s.length == std::vector<int>{4, 3});
  const Adaptation prefix(all_methods(), "prefix:length=3", model);
  CHECK(embedded(model, batch).position == Ints{3, 4, 5, 6, 3, 4, 5});
}

TEST_CASE("heads read over a prompt's rows, unless they are to be pooled") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  const Batch batch = ragged(arch, {3});
  const auto picked = [&](const char* spec, Pool pool) {
    const Adaptation adaptation(all_methods(), spec, model);
    Sequence s = embedded(model, batch);
    s.rows = Tensor(Array::of<float>({0, 1, 2, 3, 4}, {5, 1}));
    return pooled(s, pool).value().to_vector()[0];
  };
  CHECK(picked("prompt:length=2", Pool::cls) == 2);
  CHECK(picked("prompt:length=2", Pool::mean) == 3);
  CHECK(picked("prompt:length=2,pooled=yes", Pool::cls) == 0);
  CHECK(picked("prompt:length=2,pooled=yes", Pool::mean) == 2);
  CHECK(picked("ptuning:template=t1+2+a,pooled=yes", Pool::last) == 4);
}

TEST_CASE("a template's rows stand where it says") {
  Arch arch = small_arch(Stack::encoder);
  arch.sep = 9;
  SmallModel model(arch);
  Batch batch = ragged(arch, {6, 5});
  batch.token = {1, 2, 9, 9, 4, 9, 1, 4, 9, 7, 9};  // the mask is 4
  const auto sources = [&](const std::string& place) {
    const Adaptation adaptation(all_methods(), "ptuning:encoder=none,template=" + place, model);
    const Sequence s = embedded(model, batch);
    for (std::size_t i = 0, row = 0; i < s.length.size(); ++i)
      for (int j = 0; j < s.length[i]; ++j) CHECK(s.position[row++] == j);
    return s.source;
  };
  CHECK(sources("1+a") == Ints{-1, 0, 1, 2, 3, 4, 5, -1, 6, 7, 8, 9, 10});
  CHECK(sources("t1+2+a+1") == Ints{0, -1, -1, 1, 2, 3, 4, 5, -1, 6, -1, -1, 7, 8, 9, 10, -1});
  CHECK(sources("m+1+t1+1+a") == Ints{0, 1, 2, 3, -1, 4, -1, 5, 6, -1, 7, -1, 8, 9, 10});
  CHECK(sources("1+a+1+b") == Ints{-1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10});
  batch.length = {6}, batch.example = {0}, batch.token.resize(6);
  const auto error = [&](const char* place) { return error_of([&] { sources(place); }); };
  contains(error("t7+1+a"), "template=t7+1+a: t7, but a text has only 6 tokens");
  batch.token[4] = 5;
  contains(error("m+1+a"), "a text has no mask token left; need head=cloze");
  batch.token = {1, 2, 3, 5, 5, 9};
  contains(error("1+a+1+b"), "a text has no second one after a separator (9)");
}

TEST_CASE("a cloze head reads the mask among a template's rows") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch);
  model.set_head(std::make_unique<ClozeHead>(std::vector<Ints>{{3}, {5}}));
  Batch batch = ragged(arch, {4});
  batch.token[2] = arch.mask;
  Adaptation adaptation(all_methods(), "ptuning:template=2+m+1+t1+1+a,hidden=2", model);
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  const Array scores = model.head().scores(model, s, batch, ctx).value();
  const Array logits = model.lm_logits(s, {5}, ctx).value();  // P P x x P [MASK] P x
  CHECK(scores.at(0) == doctest::Approx(logits.at(3)));
  CHECK(scores.at(1) == doctest::Approx(logits.at(5)));
}

TEST_CASE("prompts begin as their start says") {
  const Arch arch = small_arch(Stack::decoder);
  SmallModel model(arch);
  const Array& table = model.embedding.table().value();
  const auto start = [&](const std::string& spec) {
    const Adaptation a(all_methods(), spec, model);
    return a.parameters()[0]->value.value().clone();
  };
  const auto row = [&](const Array& a, int i) { return a.slice(0, i, i + 1).as_contiguous(); };
  const Array text = start("prompt:length=3,init=text,tokens=7-2");
  CHECK(same_bits(row(text, 0), row(table, 7)));
  CHECK(same_bits(row(text, 1), row(table, 2)));
  CHECK(same_bits(row(text, 2), row(table, 7)));
  const Array labels = start("prompt:length=3,init=labels,tokens=7.2,top=1");
  for (int c = 0; c < arch.width; ++c)
    CHECK(labels.at(c) ==
          doctest::Approx((table.at(7 * arch.width + c) + table.at(2 * arch.width + c)) / 2));
  CHECK(same_bits(row(labels, 1), row(table, 0)));  // drawn from one id
  const Array random = start("prompt:length=50");
  double most = 0;
  for (const double x : random.to_vector()) most = std::max(most, std::abs(x));
  CHECK(most <= 0.5);
  CHECK(most > 0.45);
  const Array vocab = start("prompt:length=9,init=vocab,top=4");
  for (int i = 0; i < 9; ++i) {
    bool any = false;
    for (int id = 0; id < 4; ++id) any |= same_bits(row(vocab, i), row(table, id));
    CHECK(any);
  }
}

TEST_CASE("a prefix of words is what the model has for them as a past") {
  for (const Arch& arch : {small_arch(Stack::decoder), llama_like()}) {
    SmallModel model(arch, Dtype::f64);
    Batch whole = ragged(arch, {5}), text = whole;
    text.token.erase(text.token.begin(), text.token.begin() + 2), text.length = {3};
    const Array before = rows_of(model, whole).value().slice(0, 2, 5).as_contiguous();
    const std::string spec =
        fmt::format("prefix:length=2,init=text,tokens={}-{}", whole.token[0], whole.token[1]);
    const Adaptation prefix(all_methods(), spec, model);
    CHECK(difference(rows_of(model, text).value(), before) < 1e-12);
  }
}

TEST_CASE("a prefix of words is read from the bare base, whatever is attached before it") {
  const Arch arch = small_arch(Stack::decoder);
  const std::string spec = "prefix:length=3,init=text,tokens=5-6",
                    other = "prefix:length=2,init=text,tokens=7";
  const auto start = [](const Parameters& parameters) {
    std::vector<Array> all;
    for (const auto& p : parameters)
      if (p->name.starts_with("prefix.")) all.push_back(p->value.value().clone());
    return all;
  };
  const auto same = [](const std::vector<Array>& a, const std::vector<Array>& b) {
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(same_bits(a[i], b[i]));
  };
  const auto alone = [&](const std::string& one) {
    SmallModel model(arch);
    return start(Adaptation(all_methods(), one, model).parameters());
  };
  const std::vector<Array> want = alone(spec);
  CHECK(want.size() == 4);
  for (const char* before :
       {"prompt:length=2", "hyperformer++:tasks=2,t=3,hidden=4,i=3,m=2", "bitfit|lora:r=2",
        "ptuning:template=2+a,encoder=mlp,hidden=3", "houlsby:m=2,std=0.3"}) {
    CAPTURE(before);
    same(alone(std::string(before) + "|" + spec), want);
  }
  SmallModel model(arch);
  const Routed routed(all_methods(), {{"a", other}, {"b", spec}, {"c", "prompt:length=2"}}, model);
  same(start(routed.at(0).parameters()), alone(other));
  same(start(routed.at(1).parameters()), want);
  Batch batch = ragged(arch, {4, 2, 3});
  batch.adapter = {1, -1, 0};
  CHECK_FALSE(same_bits(rows_of(model, batch).value(),
                        rows_of(SmallModel(arch), ragged(arch, {4, 2, 3})).value()));
}

// He et al. 2022 (2110.04366), equation 4.
TEST_CASE("prefix tuning is its gated parallel adapter") {
  for (const Arch& arch : {llama_like(24, 1), small_arch(Stack::encoder, 24, 1)}) {
    SmallModel model(arch, Dtype::f64);
    const Adaptation prefix(all_methods(), "prefix:length=3,mlp=yes,mid=4", model);
    jitter(prefix.parameters());
    Attention& attention = model.blocks[0]->attention;
    Attn seen{};
    Array got;
    const Handle a = attention.banks.add("probe", [&](Attn x, const Ctx&) { return seen = x; });
    const Handle b = attention.o.out.add("probe", [&](Tensor y, const Tensor& x, const Ctx&) {
      got = x.value();
      return y;
    });
    const Batch batch = ragged(arch, {5, 2});
    rows_of(model, batch);
    const int heads = arch.heads, dh = arch.head_width(), group = heads / arch.kv_heads;
    const auto at = [&](const Tensor& t, int row, int head, int i) {
      return t.value().at((std::int64_t{row} * t.dim(1)) + head * dh + i);
    };
    const Bank& bank = seen.banks.at(0);
    double worst = 0;
    for (int s = 0, first = 0; s < 2; first += batch.length[s++])
      for (int i = 0; i < batch.length[s]; ++i)
        for (int h = 0; h < heads; ++h) {
          const int kv = h / group, row = first + i;
          const auto weigh = [&](const Tensor& k, int from, int to) {
            std::vector<double> e;
            for (int j = from; j < to; ++j) {
              double dot = 0;
              for (int c = 0; c < dh; ++c) dot += at(seen.q, row, h, c) * at(k, j, kv, c);
              e.push_back(std::exp(dot * seen.scale));
            }
            return e;
          };
          const auto own = weigh(bank.k, 0, 3);
          const auto text = weigh(seen.k, first, arch.causal ? row + 1 : first + batch.length[s]);
          double z = 0, zp = 0;
          for (const double e : text) z += e;
          for (const double e : own) zp += e;
          const double gate = zp / (zp + z);
          for (int c = 0; c < dh; ++c) {
            double of_text = 0, of_bank = 0;
            for (std::size_t j = 0; j < text.size(); ++j)
              of_text += text[j] / z * at(seen.v, first + static_cast<int>(j), kv, c);
            for (int j = 0; j < 3; ++j) of_bank += own[j] / zp * at(bank.v, j, kv, c);
            const double y = (1 - gate) * of_text + gate * of_bank;
            worst = std::max(worst, std::abs(y - at(Tensor(got), row, h, c)));
          }
        }
    CHECK(worst < 1e-12);
  }
}

TEST_CASE("LLaMA-Adapter at gate 0 is the base, bit for bit, in training with dropout, too") {
  for (Arch arch : {llama_like(), small_arch(Stack::encoder), contract_arch(Body::both)}) {
    arch.dropout = arch.attention_dropout = 0.1;
    SmallModel model(arch);
    const Batch batch = some_batch(model);
    const auto rows = [&] {
      Ctx ctx{.train = true, .key = {1, 2}};
      return model.forward(batch, ctx).rows.value();
    };
    const Array before = rows();
    for (const char* gate : {"tanh", "linear"}) {
      const Adaptation a(all_methods(), fmt::format("llama_adapter:length=3,gate={}", gate), model);
      CHECK(same_bits(before, rows()));
      for (const auto& p : a.parameters())
        if (p->name == "gate") p->value.value().fill(0.5);
      CHECK_FALSE(same_bits(before, rows()));
    }
  }
}

TEST_CASE("with a cache prompts give the bits of reading everything again") {
  for (const char* spec :
       {"prompt:length=3", "prefix:length=3", "prefix:length=2,mlp=yes,mid=3,layers=1",
        "ptuning:template=2+t1+1+a,hidden=3", "llama_adapter:length=3,init=random",
        "llama_adapter:length=3,gate=none", "prompt:length=2|prefix:length=2"})
    for (const Arch& arch : {small_arch(Stack::decoder), llama_like(), contract_arch(Body::both)}) {
      CAPTURE(spec);
      CAPTURE(arch.family);
      SmallModel model(arch);
      const Adaptation adaptation(all_methods(), spec, model);
      jitter(adaptation.parameters());
      const NoRecord off;
      const Batch whole = ragged(arch, {6, 4});
      const auto source = arch.crosses() ? std::make_shared<Batch>(ragged(arch, {3, 5})) : nullptr;
      Batch all = whole;
      all.source = source;
      const Array want = logits_of(model, all).value();
      KvCache cache(arch.layers, 2);
      const auto step = [&](int from, int to, const std::shared_ptr<Batch>& read) {
        Batch part;  // tokens [from, to) before the ends of the two
        part.source = read, part.example = whole.example, part.length = {};
        for (const int end : {6, 10}) {
          const int begin = from < 0 ? (end == 6 ? 0 : 6) : end - from;
          part.token.insert(part.token.end(), whole.token.begin() + begin,
                            whole.token.begin() + end - to);
          part.length.push_back(end - to - begin);
        }
        Ctx ctx;
        ctx.cache = &cache;
        const Sequence s = model.forward(part, ctx);
        Ints rows;
        std::int32_t row = -1;
        for (const int l : s.length) rows.push_back(row += l);
        const Array got = model.lm_logits(s, rows, ctx).value();
        for (const int i : {0, 1})
          CHECK(same_bits(
              got.slice(0, i, i + 1).as_contiguous(),
              want.slice(0, (i == 0 ? 6 : 10) - to - 1, (i == 0 ? 6 : 10) - to).as_contiguous()));
      };
      step(-1, 2, source);
      step(2, 1, nullptr);
      step(1, 0, nullptr);
    }
}

TEST_CASE("an infix is seen by what is written alone, and with a cache as without") {
  for (const Arch& arch : {small_arch(Stack::decoder), llama_like()}) {
    CAPTURE(arch.family);
    SmallModel model(arch);
    Batch batch = ragged(arch, {6});
    batch.token_label = {-1, -1, -1, 5, 6, 7};  // three tokens are given, and one that begins
    const Array bare = logits_of(model, batch).value();
    const Adaptation infix(all_methods(), "prefix:length=2,place=infix,mlp=yes,mid=3", model);
    jitter(infix.parameters());
    const Sequence s = embedded(model, batch);
    CHECK(s.source == Ints{0, 1, 2, -3, -3, 3, 4, 5});
    CHECK(s.position == Ints{0, 1, 2, 3, 4, 5, 6, 7});
    const Array adapted = logits_of(model, batch).value();
    const auto rows = [](const Array& a, int from, int to) {
      return a.slice(0, from, to).as_contiguous();
    };
    CHECK(same_bits(rows(adapted, 0, 3), rows(bare, 0, 3)));
    CHECK(difference(rows(adapted, 3, 6), rows(bare, 3, 6)) > 1e-3);
    Ctx training{.train = true};
    const Gradients gradients =
        backward(model.lm_loss(model.forward(batch, training), batch, training));
    for (const auto& p : infix.parameters()) CHECK(gradients.has(p->value));

    const NoRecord off;
    KvCache cache(arch.layers, 1);
    for (const auto& [from, to] : {std::pair{0, 4}, std::pair{4, 5}, std::pair{5, 6}}) {
      Batch part;
      part.token = {batch.token.begin() + from, batch.token.begin() + to};
      part.length = {to - from}, part.example = {0};
      Ctx ctx;
      ctx.cache = &cache;
      const Sequence t = model.forward(part, ctx);
      const Ints last{static_cast<std::int32_t>(t.source.size()) - 1};
      CHECK(same_bits(model.lm_logits(t, last, ctx).value(), rows(adapted, to - 1, to)));
    }
    batch.token_label.clear();
    contains(error_of([&] { rows_of(model, batch); }), "reads a text without labels");
  }
}

TEST_CASE("an infix before all of a text is a prefix") {
  const Arch arch = small_arch(Stack::decoder);
  SmallModel model(arch, Dtype::f64);
  Batch batch = ragged(arch, {4, 3});
  const auto logits = [&](const char* spec) {
    const Adaptation adaptation(all_methods(), spec, model);
    return logits_of(model, batch).value();
  };
  CHECK(difference(logits("prefix:length=2,place=infix"), logits("prefix:length=2")) < 1e-12);
}
