// LoRA adapters made into one: as PEFT's add_weighted_adapter does, and what holds in itself.
#include "peft/combine.h"

#include <cmath>

#include "peft/low_rank.h"
#include "tests/peft/method_cases.h"
#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

// What an adapter adds to each matrix: s B A, by site.
std::map<std::string, Matrix> deltas(const std::string& spec, const Parameters& parameters,
                                     const Arch& arch) {
  AdapterValues values;
  for (const auto& p : parameters) values[p->label()] = p->value.value();
  SmallModel model(arch);
  Adaptation adaptation(all_methods(), spec, model);
  set_adapter_values(values, adaptation.parameters(), "test");
  std::map<std::string, Matrix> before, all;
  const auto each = [&](auto f) {
    model.each([&](Weight& w) {
      if (w.parameter().name == "weight" && w.value().value().ndim() == 2)
        f(to_string(w.parameter().site), Matrix(w.value().value()));
    });
  };
  each([&](const std::string& site, Matrix m) { before.emplace(site, std::move(m)); });
  adaptation.merge();
  each([&](const std::string& site, Matrix m) {
    bool any = false;
    for (std::size_t i = 0; i < m.at.size(); ++i) any |= (m.at[i] -= before.at(site).at[i]) != 0;
    if (any) all.emplace(site, std::move(m));
  });
  return all;
}

double apart(const Matrix& a, const Matrix& b) {
  return graft::testing::difference(a.array(), b.array());
}

LoraValues from_peft(const std::string& name, const Arch& arch, const char* base = "") {
  const PeftAdapter read = read_peft_folder(peft_fixture("combined") / base / name, arch);
  LoraValues v{name, read.spec, {}};
  for (const auto& [label, value] : read.values) v.values[label] = value;
  return v;
}

LoraValues random_lora(const std::string& name, const std::string& spec, const Arch& arch,
                       std::uint32_t seed) {
  SmallModel model(arch);
  const Adaptation adaptation(all_methods(), spec, model);
  LoraValues v{name, spec, {}};
  for (const auto& p : adaptation.parameters()) {
    add_noise(*p, 0.3, seed);
    v.values[p->label()] = p->value.value();
  }
  return v;
}

Parameters parameters_of(const LoraValues& v, const Arch& arch) {
  SmallModel model(arch);
  const Adaptation adaptation(all_methods(), v.spec, model);
  set_adapter_values(v.values, adaptation.parameters(), v.name);
  return adaptation.parameters();
}

}  // namespace

TEST_CASE("adapters are combined as PEFT combines them, in every way that it has") {
  const Arch arch = load_arch(fixture("llama"));
  const SafetensorsReader theirs(peft_fixture("combined") / "combined.safetensors");
  const std::vector<std::string> equal = {"first", "second"}, all = {"first", "second", "third"};
  struct Row {
    const char* name;
    std::vector<std::string> adapters;
    CombineSpec spec;
  };
  // As in combined.py; the weights of a row stand with its options there.
  const std::vector<Row> rows = {
      {"cat", all, {"cat", {0.7, -0.3, 0.5}}},
      {"linear", equal, {"linear", {0.7, 0.3}}},
      {"linear-minus", equal, {"linear", {0.7, -0.3}}},
      {"single", {"third"}, {"svd", {0.4}}},
      {"svd", all, {"svd", {0.7, -0.3, 0.5}, {}, {}, 3}},
      {"svd-standard", all, {"svd", {1, 1, 1}}},
      {"ties", equal, {"ties", {0.7, 0.3}, 0.5}},
      {"ties-minus", equal, {"ties", {0.7, -0.6}, 0.7}},
      {"ties-frequency", equal, {"ties", {0.7, 0.3}, 0.6, "frequency"}},
      {"ties-svd", all, {"ties_svd", {0.7, -0.3, 0.5}, 0.4, "total", 4}},
      {"ties-svd-frequency", all, {"ties_svd", {0.7, 0.3, 0.5}, 0.4, "frequency", 2}},
      {"magnitude", equal, {"magnitude_prune", {0.7, 0.3}, 0.3}},
      {"magnitude-svd", all, {"magnitude_prune_svd", {0.7, 0.3, -1}, 0.3, {}, 3}},
      {"dare-linear-whole", equal, {"dare_linear", {0.7, -0.3}, 1}},
      {"dare-ties-whole", equal, {"dare_ties", {0.7, 0.3}, 1}},
      {"dare-ties-svd-whole", all, {"dare_ties_svd", {0.7, 0.3, 0.5}, 1, "total", 3}}};
  std::size_t compared = 0;
  for (const Row& row : rows) {
    CAPTURE(row.name);
    std::vector<LoraValues> adapters;
    for (const std::string& name : row.adapters) adapters.push_back(from_peft(name, arch));
    const CombinedLora made = combine(adapters, row.spec, arch);
    const auto ours = deltas(made.spec, made.parameters, arch);
    for (const auto& [key, info] : theirs.tensors()) {
      const std::string prefix = std::string(row.name) + " ";
      if (!key.starts_with(prefix)) continue;
      const std::string part = key.ends_with("q_proj")   ? "q"
                               : key.ends_with("v_proj") ? "v"
                                                         : "down";
      const std::string site =
          fmt::format("decoder {} {}", key.find("layers.0.") != std::string::npos ? 0 : 1, part);
      Array want = Array::empty(info.shape);
      theirs.read_f32(key, want);
      CAPTURE(site);
      REQUIRE(ours.contains(site));
      CHECK(apart(ours.at(site), Matrix(want)) < 2e-6);
      ++compared;
    }
  }
  CHECK(compared == theirs.tensors().size());
  CHECK(compared == rows.size() * 6 - 2);  // the third has no down
}

TEST_CASE(
    "GPT-2's q, k and v, one module of PEFT's, are combined as one, and share their A after") {
  const Arch arch = load_arch(fixture("gpt2"));
  const std::int64_t d = arch.width;
  const SafetensorsReader theirs(peft_fixture("combined") / "gpt2/combined.safetensors");
  const std::vector<std::string> equal = {"first", "second"}, all = {"first", "second", "third"};
  struct Row {
    const char* name;
    std::vector<std::string> adapters;
    CombineSpec spec;
    int rank;
  };
  const std::vector<Row> rows = {
      {"cat", all, {"cat", {0.7, -0.3, 0.5}}, 7},
      {"linear-minus", equal, {"linear", {0.7, -0.3}}, 2},
      {"svd", all, {"svd", {0.7, -0.3, 0.5}, {}, {}, 3}, 3},
      {"ties", equal, {"ties", {0.7, 0.3}, 0.5}, 2},
      {"magnitude", equal, {"magnitude_prune", {0.7, 0.3}, 0.3}, 2},
      {"ties-svd", all, {"ties_svd", {0.7, -0.3, 0.5}, 0.4, "total", 4}, 4},
      {"dare-ties-whole", equal, {"dare_ties", {0.7, 0.3}, 1}, 2}};
  for (const Row& row : rows) {
    CAPTURE(row.name);
    std::vector<LoraValues> adapters;
    for (const std::string& name : row.adapters) adapters.push_back(from_peft(name, arch, "gpt2"));
    const CombinedLora made = combine(adapters, row.spec, arch);
    CHECK(made.spec == fmt::format("lora:r={},on=q+k+v,share=qkv", row.rank));
    CHECK(made.parameters.size() == 2 * 4);
    const auto ours = deltas(made.spec, made.parameters, arch);
    for (int layer = 0; layer < 2; ++layer) {
      const std::string key = fmt::format("{} transformer.h.{}.attn.c_attn", row.name, layer);
      Array want = Array::empty(theirs.at(key).shape);
      REQUIRE(want.shape() == Shape{3 * d, d});
      theirs.read_f32(key, want);
      std::int64_t begin = 0;
      for (const char* part : {"q", "k", "v"}) {
        const std::string site = fmt::format("decoder {} {}", layer, part);
        CAPTURE(site);
        REQUIRE(ours.contains(site));
        const Array rows_of_part = want.slice(0, begin, begin + d).clone();
        CHECK(apart(ours.at(site), Matrix(rows_of_part)) < 2e-6);
        begin += d;
      }
    }
  }
  CHECK(theirs.tensors().size() == rows.size() * 2);
}

TEST_CASE("adapters that share an A and such that do not are combined matrix by matrix") {
  const Arch arch = small_arch(Stack::decoder);
  const LoraValues shared = random_lora("a", "lora:r=2,on=q+k+v,share=qkv", arch, 3),
                   own = random_lora("b", "lora:r=1,on=q+v", arch, 4),
                   two = random_lora("c", "lora:r=1,on=q+v,share=qkv", arch, 5);
  for (const LoraValues& other : {own, two}) {
    const CombinedLora made = combine({shared, other}, {"cat", {1, 1}}, arch);
    CHECK(made.spec == "lora:r=3,on=q+k+v,ranks=k:2");
    const auto sum = deltas(made.spec, made.parameters, arch),
               one = deltas(shared.spec, parameters_of(shared, arch), arch),
               more = deltas(other.spec, parameters_of(other, arch), arch);
    CHECK(sum.size() == 6);
    for (const auto& [site, m] : sum) {
      Matrix want = one.at(site);
      if (more.contains(site))
        for (std::size_t i = 0; i < want.at.size(); ++i) want.at[i] += more.at(site).at[i];
      CHECK(apart(m, want) < 1e-5);
    }
  }
}

TEST_CASE("what no adapter has at a site starts as LoRA does, so that it can train on") {
  const Arch arch = llama_like();
  const LoraValues a = random_lora("a", "lora:r=2,on=q", arch, 3),
                   b = random_lora("b", "lora:r=3,on=q+up,layers=1", arch, 4);
  const CombinedLora made = combine({a, b}, {"cat", {1, 1}}, arch),
                     again = combine({a, b}, {"cat", {1, 1}}, arch);
  CHECK(made.spec == "lora:r=5,on=q+up,ranks=up:3");
  AdapterValues values;
  for (std::size_t i = 0; i < made.parameters.size(); ++i) {
    const Array& value = made.parameters[i]->value.value();
    values[made.parameters[i]->label()] = value;
    CHECK(same_bits(value, again.parameters[i]->value.value()));
  }
  SmallModel model(arch);
  const Adaptation adaptation(all_methods(), made.spec, model);
  set_adapter_values(values, adaptation.parameters(), "test");
  const Gradients grads = backward(sum(square(rows_of(model, ragged(arch, {5, 3})))));
  for (const auto& p : adaptation.parameters()) {
    const bool q = p->label().starts_with("decoder 0 q "),
               up = p->label().starts_with("decoder 0 up ");
    if (!q && !up) continue;
    CAPTURE(p->label());
    const Array& value = p->value.value();
    const std::vector<double> at = value.to_vector(), grad = grads[p->value].to_vector();
    const std::int64_t columns = value.dim(1), there = q ? 2 : 0;
    double square = 0, n = 0;
    for (std::size_t i = 0; i < at.size(); ++i) {
      const auto k = static_cast<std::int64_t>(i);
      const bool b_of_it = p->name == "lora_B";
      if ((b_of_it ? k % columns : k / columns) < there) continue;
      if (b_of_it) CHECK((at[i] == 0 && grad[i] != 0));
      square += at[i] * at[i], n += 1;
    }
    if (p->name == "lora_A")
      CHECK(std::sqrt(square / n) == doctest::Approx(1 / std::sqrt(3.0 * 24)).epsilon(0.25));
  }
}

TEST_CASE("cat is the weighted sum of what the adapters add, whatever their ranks and places") {
  for (const Arch& arch : {small_arch(Stack::decoder, 24, 3), contract_arch(Body::both)}) {
    CAPTURE(arch.family);
    const LoraValues a = random_lora("a", "lora:r=2,alpha=3,on=q+v+embed", arch, 3),
                     b = random_lora("b", "lora:r=3,alpha=5,on=q+up,layers=1", arch, 4),
                     c = random_lora("c", "lora:r=1,on=down,layers=0|lora:r=2,scale=rs,on=o", arch,
                                     5);
    const CombinedLora made = combine({a, b, c}, {"cat", {0.7, -0.4, 2}}, arch);
    CHECK(made.how == "cat");
    CHECK(made.cut == 0);
    // the embedding of a tied model cannot be merged: compare what the models compute
    SmallModel one(arch), many(arch);
    const Adaptation whole(all_methods(), made.spec, one);
    AdapterValues values;
    for (const auto& p : made.parameters) values[p->label()] = p->value.value();
    set_adapter_values(values, whole.parameters(), "test");
    // the same with each adapter's B times its weight, one after another
    std::vector<std::unique_ptr<Adaptation>> each;
    for (const auto& [v, weight] : {std::pair{&a, 0.7}, {&b, -0.4}, {&c, 2.0}}) {
      each.push_back(std::make_unique<Adaptation>(all_methods(), v->spec, many));
      set_adapter_values(v->values, each.back()->parameters(), v->name);
      for (const auto& p : each.back()->parameters())
        if (p->name.ends_with("_B"))
          p->value.value().copy_from((weight * p->value.detach()).value());
    }
    Batch batch = ragged(arch, {5, 1, 8});
    if (arch.crosses()) batch.source = std::make_shared<Batch>(ragged(arch, {4, 2, 3}, 9));
    CHECK(difference(rows_of(one, batch).value(), rows_of(many, batch).value()) < 1e-5);
  }
}

TEST_CASE("svd keeps all at the full rank, and says what it cuts off below") {
  const Arch arch = llama_like();
  const LoraValues a = random_lora("a", "lora:r=2,on=q+v", arch, 3),
                   b = random_lora("b", "lora:r=3,on=q+down", arch, 4);
  const CombinedLora exact = combine({a, b}, {"cat", {0.7, 0.3}}, arch),
                     full = combine({a, b}, {"svd", {0.7, 0.3}, {}, {}, 5}, arch),
                     less = combine({a, b}, {"svd", {0.7, 0.3}, {}, {}, 2}, arch);
  CHECK(full.worst_cut < 1e-12);
  CHECK(less.worst_cut > 0.05);
  CHECK(less.cut < less.worst_cut);
  CHECK(less.cut > 0);
  const auto want = deltas(exact.spec, exact.parameters, arch),
             got = deltas(full.spec, full.parameters, arch),
             cut = deltas(less.spec, less.parameters, arch);
  CHECK(want.size() == got.size());
  double lost = 0, whole = 0;
  for (const auto& entry : want) {
    const auto& [site, m] = entry;
    CAPTURE(entry.first);
    CHECK(apart(got.at(site), m) < 1e-6);
    for (std::size_t i = 0; i < m.at.size(); ++i) {
      lost += (m.at[i] - cut.at(site).at[i]) * (m.at[i] - cut.at(site).at[i]);
      whole += m.at[i] * m.at[i];
    }
  }
  CHECK(std::sqrt(lost / whole) == doctest::Approx(less.cut).epsilon(1e-3));
}

TEST_CASE("a decomposition multiplies back, with orthonormal sides and falling values") {
  for (const auto& shape :
       {std::array{7, 7, 7}, {5, 12, 5}, {12, 5, 3}, {9, 9, 2}, {4, 6, 0}, {1, 8, 1}}) {
    const auto& [rows, columns, rank] = shape;
    CAPTURE(shape);
    Matrix m(rows, columns);
    if (rank > 0)
      m = product(Matrix(random_array({rows, rank}, 3, Dtype::f64)),
                  Matrix(random_array({rank, columns}, 4, Dtype::f64)));
    const Svd d = svd(m);
    const std::int64_t k = std::min(rows, columns);
    REQUIRE(static_cast<std::int64_t>(d.s.size()) == k);
    Matrix back(rows, columns);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        for (std::int64_t x = 0; x < k; ++x)
          back(i, j) += d.u(i, x) * d.s[static_cast<std::size_t>(x)] * d.vt(x, j);
    CHECK(apart(back, m) < 1e-6);
    for (std::size_t x = 1; x < d.s.size(); ++x) CHECK(d.s[x] <= d.s[x - 1]);
    for (std::int64_t x = 0; x < rank; ++x)
      for (std::int64_t y = 0; y < rank; ++y) {
        double u = 0, v = 0;
        for (std::int64_t i = 0; i < rows; ++i) u += d.u(i, x) * d.u(i, y);
        for (std::int64_t j = 0; j < columns; ++j) v += d.vt(x, j) * d.vt(y, j);
        CHECK(std::abs(u - (x == y)) < 1e-12);
        CHECK(std::abs(v - (x == y)) < 1e-12);
      }
    for (std::size_t x = static_cast<std::size_t>(rank); x < d.s.size(); ++x)
      CHECK(d.s[x] <= 1e-12 * (d.s[0] + 1));
  }
  const Matrix b(random_array({9, 2}, 5, Dtype::f64)), a(random_array({2, 11}, 6, Dtype::f64));
  const Svd small = svd_of_product(b, a), large = svd(product(b, a));
  REQUIRE(small.s.size() == 2);
  for (std::size_t x = 0; x < 2; ++x) CHECK(std::abs(small.s[x] - large.s[x]) < 1e-12);
}

TEST_CASE("DARE keeps the stated part of the entries and, on average, what they add") {
  const Arch arch = small_arch(Stack::decoder, 48, 2);
  const LoraValues a = random_lora("a", "lora:r=8,on=q+k+v+o+up+down", arch, 3),
                   b = random_lora("b", "lora:r=8,on=q+k+v+o+up+down", arch, 4);
  const CombineSpec spec{"dare_linear", {1, 1e-30}, 0.3};
  const auto entries = [&](CombineSpec s) {
    std::vector<double> all;
    for (const auto& p : combine({a, b}, s, arch).parameters)
      for (const double x : p->value.value().to_vector()) all.push_back(x);
    return all;
  };
  CombineSpec whole = spec, other = spec;
  whole.density = 1, other.seed = 1;
  const std::vector<double> got = entries(spec), all = entries(whole);
  std::size_t stayed = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (std::abs(got[i]) < 1e-6 * std::abs(all[i])) continue;
    ++stayed;
    CHECK(got[i] == doctest::Approx(all[i] / 0.3).epsilon(1e-4));
  }
  const double n = static_cast<double>(all.size());
  CHECK(std::abs(static_cast<double>(stayed) / n - 0.3) < 5 * std::sqrt(0.21 / n));
  CHECK(got == entries(spec));
  CHECK(got != entries(other));
}

TEST_CASE("what cannot be combined says why, and one adapter alone is itself") {
  const Arch arch = llama_like();
  const LoraValues a = random_lora("a", "lora:r=2,on=q", arch, 3),
                   b = random_lora("b", "lora:r=3,on=q", arch, 4);
  const auto refused = [&](const std::vector<LoraValues>& all, const CombineSpec& spec) {
    return error_of([&] { combine(all, spec, arch); });
  };
  contains(refused({a, b}, {"linear", {1, 1}}), "'a' has 2 and 'b' 3; take cat or svd");
  contains(refused({a, b}, {"mean", {1, 1}}), "how=mean; there are cat, linear, svd, ties");
  contains(refused({a, b}, {"cat", {1}}), "1 weights for 2 adapters");
  contains(refused({}, {"cat", {}}), "no adapters");
  contains(refused({a, a}, {"cat", {1, 1}}), "two adapters are called 'a'");
  contains(refused({a, b}, {"ties_svd", {1, 1}}), "density=0 with how=ties_svd; need more than 0");
  contains(refused({a, b}, {"cat", {1, 1}, 0.5}), "density=0.5 with how=cat; it is of ties");
  contains(refused({a, b}, {"ties", {1, 1}, 0.5, "most"}), "there are total and frequency");
  contains(refused({a, b}, {"cat", {1, 1}, {}, {}, 3}), "rank=3 with how=cat");
  contains(refused({a, b}, {"cat", {1, 1}, {}, {}, {}, 3}), "seed=3 with how=cat; it is of dare");
  contains(refused({a, b}, {"linear", {1, 1}, {}, "frequency"}), "sign=frequency with how=linear");
  contains(refused({a, b}, {"cat", {1, 1}, 0}), "density=0 with how=cat; it is of ties");
  contains(refused({a, b}, {"svd", {1, 1}, {}, {}, 0}), "rank=0; need at least 1; without it");
  contains(refused({a, b}, {"svd", {1, 1}, {}, {}, -2}), "rank=-2; need at least 1; without it");
  contains(refused({a, b}, {"svd", {1, 1}, {}, {}, 6}), "rank=6 with how=svd; need 1..5");
  contains(refused({a, b}, {"ties_svd", {1, 1}, 0.5, {}, 500}),
           "rank=500 with how=ties_svd; need 1..");
  contains(refused({a}, {"svd", {1}, {}, {}, 1}), "rank=1 with a single adapter");
  contains(refused({a, b}, {"cat", {1, NAN}}), "a weight of nan for 'b'");
  contains(refused({a, {"c", "ia3", {}}}, {"cat", {1, 1}}), "'c' is ia3; only LoRA's");
  contains(refused({a, {"c", "lora:r=1,save=norm1", {}}}, {"cat", {1, 1}}), "no A and B");
  contains(refused({a, {"c", "lora:r=1,on=v", {}}}, {"cat", {1, 1}}),
           "'c' (lora:r=1,on=v) has no decoder 0 v lora_A");
  const LoraValues wide = random_lora("wide", "lora:r=8,on=k", arch, 3),
                   wider = random_lora("wider", "lora:r=7,on=k", arch, 4);
  contains(refused({wide, wider}, {"cat", {1, 1}}), "rank 15 at decoder 0 k, a 8 x 24 matrix");

  for (const char* how : {"cat", "svd", "ties"}) {
    CombineSpec spec{how, {1}};
    if (spec.how == "ties") spec.density = 0.2;
    const CombinedLora same = combine({b}, spec, arch);
    CHECK(same.how == "linear");
    const auto want = deltas(b.spec, parameters_of(b, arch), arch),
               got = deltas(same.spec, same.parameters, arch);
    for (const auto& [site, m] : want) CHECK(apart(got.at(site), m) < 1e-6);
  }
}
