// One adapter for each sequence of a batch: the same bits as each adapter alone.
#include "peft/routed.h"

#include "nn/choice.h"
#include "nn/generate.h"
#include "tests/nn/model_fixtures.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr std::int32_t kBase = -1;

struct Mixed {
  Arch arch;
  std::vector<std::string> specs;
};

Batch mixed_batch(const Arch& arch, const std::vector<int>& length,
                  const std::vector<std::int32_t>& adapter) {
  Batch batch = ragged(arch, length);
  if (arch.crosses()) {
    std::vector<int> read;
    for (const int l : length) read.push_back(l % 4 + 2);
    batch.source = std::make_shared<Batch>(ragged(arch, read, 40));
  }
  batch.adapter = adapter;
  return batch;
}

// Values that differ between adapters of one spec.
void settle(const Parameters& parameters, std::uint32_t seed) {
  for (const auto& p : parameters) add_noise(*p, 0.2, seed);
}

// Logits of every token, by sequence.
std::vector<Array> logits_by_sequence(const Model& model, const Batch& batch) {
  const Array all = logits_of(model, batch).value();
  std::vector<Array> out;
  std::int64_t row = 0;
  for (const int l : batch.length) out.push_back(all.slice(0, row, row + l)), row += l;
  return out;
}

std::vector<Array> alone(const Arch& arch, const std::string& spec, std::uint32_t seed,
                         const Batch& batch) {
  SmallModel model(arch);
  std::optional<Adaptation> adaptation;
  if (!spec.empty()) adaptation.emplace(all_methods(), spec, model);
  if (adaptation) settle(adaptation->parameters(), seed);
  std::vector<Array> out;
  for (int i = 0; i < batch.sequences(); ++i)
    out.push_back(logits_of(model, some_of(batch, {i})).value());
  return out;
}

void equals_each_alone(const Mixed& m) {
  const std::vector<int> lengths = {5, 1, 8, 3, 2, 6, 4};
  // Scattered, and each one's in one run with the base's between.
  std::vector<std::int32_t> adapter = {1, kBase, 0, 2, 0, kBase, 1};
  std::vector<std::int32_t> in_runs = {2, kBase, 0, 0, kBase, 1, 1};
  for (auto* order : {&adapter, &in_runs})
    for (std::int32_t& a : *order)
      if (a >= int(m.specs.size())) a = 0;
  const Batch batch = mixed_batch(m.arch, lengths, adapter);
  std::vector<std::vector<Array>> want = {alone(m.arch, "", 0, batch)};
  std::vector<Routed::Route> routes;
  for (std::size_t i = 0; i < m.specs.size(); ++i) {
    want.push_back(alone(m.arch, m.specs[i], std::uint32_t(i), batch));
    routes.push_back({fmt::format("number {}", i), m.specs[i]});
  }
  SmallModel model(m.arch);
  {
    const Routed routed(all_methods(), routes, model);
    for (int i = 0; i < routed.size(); ++i) settle(routed.at(i).parameters(), std::uint32_t(i));
    for (const auto& order : {adapter, in_runs}) {
      Batch mixed = batch;
      mixed.adapter = order;
      const auto got = logits_by_sequence(model, mixed);
      for (std::size_t i = 0; i < lengths.size(); ++i) {
        CAPTURE(i);
        CAPTURE(order[i]);
        CHECK(same_bits(got[i], want[std::size_t(order[i] + 1)][i]));
        if (order[i] >= 0) CHECK_FALSE(same_bits(got[i], want[0][i]));
      }
    }
    // one adapter for all, and none for all
    for (const std::int32_t only : {kBase, 0}) {
      Batch all = batch;
      all.adapter.assign(lengths.size(), only);
      const auto same = logits_by_sequence(model, all);
      for (std::size_t i = 0; i < lengths.size(); ++i)
        CHECK(same_bits(same[i], want[std::size_t(only + 1)][i]));
    }
  }
  const Batch bare = [&] {
    Batch b = batch;
    b.adapter.clear();
    return b;
  }();
  const auto after = logits_by_sequence(model, bare);
  for (std::size_t i = 0; i < lengths.size(); ++i) CHECK(same_bits(after[i], want[0][i]));
}

const std::vector<std::string> kEverywhere = {"lora:r=2,on=q+k+v+o+up+down",
                                              "houlsby:m=3,norms=no",
                                              "parallel:m=3",
                                              "pfeiffer:m=2",
                                              "series:m=2,on=up,place=parallel",
                                              "ia3",
                                              "prompt:length=3",
                                              "prefix:length=2",
                                              "llama_adapter:length=2",
                                              "ptuning:template=1+t1+1+a,encoder=mlp,hidden=3"};

}  // namespace

TEST_CASE("each sequence of a mixed batch gets the bits of its adapter alone, by any method") {
  const Threads one(1);
  for (const Arch& arch : {small_arch(Stack::decoder), small_arch(Stack::encoder), llama_like(),
                           contract_arch(Body::both)})
    for (const std::string& spec : kEverywhere) {
      CAPTURE(arch.family);
      CAPTURE(spec);
      std::string here = spec;
      if (spec.starts_with("ptuning") && arch.family != "gpt2") here = "ptuning:template=2+a";
      equals_each_alone({arch, {here, here}});
    }
}

TEST_CASE("adapters of different methods and sizes go side by side in one batch") {
  const Threads one(1);
  for (const Arch& arch : {small_arch(Stack::decoder), small_arch(Stack::encoder), llama_like(),
                           contract_arch(Body::both)}) {
    CAPTURE(arch.family);
    equals_each_alone({arch, {"lora:r=2,on=q+v", "prefix:length=3", "prompt:length=2"}});
    equals_each_alone({arch, {"prefix:length=2", "prefix:length=4", "llama_adapter:length=3"}});
    equals_each_alone(
        {arch, {"lora:r=1,on=embed+q", "ia3|prompt:length=1", "houlsby:m=2,norms=no"}});
  }
  equals_each_alone({small_arch(Stack::decoder),
                     {"prefix:length=2,place=infix", "prefix:length=2,mlp=yes,mid=3"}});
}

TEST_CASE("every method of the table is routed with the bits of it alone, or refused by name") {
  const Threads one(1);
  int routed = 0, refused = 0;
  for (const Method& method : all_methods())
    for (const Arch& arch : {small_arch(Stack::decoder), contract_arch(Body::both)}) {
      CAPTURE(method.name);
      CAPTURE(arch.family);
      std::string said;
      {
        SmallModel model(arch);
        said = error_of([&] { Routed(all_methods(), {{"a", method.example}}, model); });
      }
      if (said == "(no error)") {
        if (SmallModel model(arch); Adaptation(all_methods(), method.example, model).count() > 0)
          equals_each_alone({arch, {method.example, method.example}});
        ++routed;
      } else {
        contains(said, "routed: adapter 'a' cannot be routed: " + method.name);
        contains(said, "which all rows share");
        ++refused;
      }
    }
  CHECK(routed >= 16);
  CHECK(refused >= 10);
}

TEST_CASE("what all sequences share stays beside what each has of its own") {
  const Threads one(1);
  const Arch arch = small_arch(Stack::decoder);
  const std::vector<Routed::Route> routes = {{"a", "lora:r=2"}, {"b", "prefix:length=2"}};
  for (const char* shared : {"full", "lora:r=1,on=o|prefix:length=1", "prompt:length=2"}) {
    CAPTURE(shared);
    const Batch batch = mixed_batch(arch, {4, 2, 5}, {1, kBase, 0});
    SmallModel model(arch), other(arch);
    const Adaptation first(all_methods(), shared, model), same(all_methods(), shared, other);
    settle(first.parameters(), 9), settle(same.parameters(), 9);
    const Routed routed(all_methods(), routes, model);
    for (int i = 0; i < routed.size(); ++i) settle(routed.at(i).parameters(), std::uint32_t(i));
    const auto got = logits_by_sequence(model, batch);
    for (int i = 0; i < batch.sequences(); ++i) {
      const std::int32_t a = batch.adapter[std::size_t(i)];
      std::optional<Adaptation> own;
      if (a >= 0) own.emplace(all_methods(), routes[std::size_t(a)].spec, other);
      if (a >= 0) settle(own->parameters(), std::uint32_t(a));
      CHECK(same_bits(got[std::size_t(i)], logits_of(other, some_of(batch, {i})).value()));
    }
  }
}

TEST_CASE("attention across to an encoder is routed, too") {
  const Threads one(1);
  equals_each_alone({contract_arch(Body::both),
                     {"lora:r=2,on=q+xq+xk+xv+xo", "prefix:length=2,on=attn+cross",
                      "houlsby:m=2,on=attn+cross+mlp,norms=no"}});
}

TEST_CASE("generation with a cache writes for each prompt what its adapter alone would") {
  const Threads one(1);
  for (const Arch& arch : {small_arch(Stack::decoder), llama_like()})
    for (const int beams : {1, 3}) {
      CAPTURE(beams);
      const std::vector<Routed::Route> routes = {{"a", "lora:r=2"},
                                                 {"b", "prefix:length=2"},
                                                 {"c", "prompt:length=2|houlsby:m=2,norms=no"}};
      const std::vector<std::vector<std::int32_t>> prompts = {
          {5, 6}, {7}, {8, 9, 10}, {3, 4}, {11}};
      GenerateSpec spec{.max_tokens = 6, .stop = {2}, .beams = beams};
      const std::vector<std::int32_t> adapter = {2, 0, kBase, 1, 0};
      std::vector<std::vector<std::int32_t>> want;
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        SmallModel model(arch);
        std::optional<Adaptation> adaptation;
        if (adapter[i] >= 0) {
          adaptation.emplace(all_methods(), routes[std::size_t(adapter[i])].spec, model);
          settle(adaptation->parameters(), std::uint32_t(adapter[i]));
        }
        want.push_back(generate(model, {prompts[i]}, spec)[0].tokens);
      }
      SmallModel model(arch);
      const Routed routed(all_methods(), routes, model);
      for (int i = 0; i < routed.size(); ++i) settle(routed.at(i).parameters(), std::uint32_t(i));
      spec.adapter = adapter;
      const auto got = generate(model, prompts, spec);
      for (std::size_t i = 0; i < prompts.size(); ++i) CHECK(got[i].tokens == want[i]);
      spec.adapter = {0};
      contains(error_of([&] { generate(model, prompts, spec); }), "adapters for 1 of 5 prompts");
    }
}

TEST_CASE("an encoder-decoder chooses among answers for each text with its own adapter") {
  const Threads one(1);
  const Arch arch = contract_arch(Body::both);
  Batch source = ragged(arch, {4, 2, 5, 3});
  const std::vector<std::vector<std::int32_t>> targets = {{5, 6, 1}, {5, 7, 1}, {8, 1}};
  const std::vector<Routed::Route> routes = {{"a", "lora:r=2,on=q+xv"}, {"b", "prompt:length=2"}};
  const std::vector<std::int32_t> adapter = {1, kBase, 0, 1};
  std::vector<std::vector<double>> want;
  for (int i = 0; i < source.sequences(); ++i) {
    SmallModel model(arch);
    std::optional<Adaptation> adaptation;
    const std::int32_t a = adapter[std::size_t(i)];
    if (a >= 0) adaptation.emplace(all_methods(), routes[std::size_t(a)].spec, model);
    if (a >= 0) settle(adaptation->parameters(), std::uint32_t(a));
    want.push_back(log_likelihoods(model, some_of(source, {i}), targets)[0]);
  }
  SmallModel model(arch);
  const Routed routed(all_methods(), routes, model);
  for (int i = 0; i < routed.size(); ++i) settle(routed.at(i).parameters(), std::uint32_t(i));
  source.adapter = adapter;
  CHECK(log_likelihoods(model, source, targets) == want);
}

TEST_CASE("what all rows share cannot be routed, and says so") {
  SmallModel model(small_arch(Stack::encoder));
  const std::uint64_t before = model.hash();
  const auto refused = [&](const std::string& spec) {
    return error_of([&] { Routed(all_methods(), {{"fine", "lora:r=1"}, {"mine", spec}}, model); });
  };
  for (const char* spec : {"full", "bitfit", "layernorm", "top:k=1", "houlsby:m=2",
                           "lora:r=1,bias=all", "lora:r=1,save=norm1"}) {
    CAPTURE(spec);
    contains(refused(spec), "routed: adapter 'mine' cannot be routed");
    contains(refused(spec), "which all rows share");
  }
  contains(refused("houlsby:m=2"), "norms=no");
  contains(refused("nothing"), "method 'nothing' is unknown");
  contains(error_of([&] { Routed(all_methods(), {}, model); }), "no adapters");
  contains(error_of([&] { Routed(all_methods(), {{"base", "lora"}}, model); }), "names the bare");
  contains(error_of([&] {
             Routed(all_methods(), {{"a", "lora"}, {"a", "ia3"}}, model);
           }),
           "two adapters are called 'a'");

  // a method that edits a matrix, and one that edits a norm
  struct Weigh : Adapter {
    explicit Weigh(bool norm) : Adapter("weigh"), norm(norm) {}
    void attach(Model& m) override {
      Block& b = *m.blocks[0];
      if (norm)
        hold(b.norm1.site, b.norm1.affine.add("weigh", [](Affine a, const Ctx&) { return a; }));
      else
        hold(b.attention.q.site,
             b.attention.q.weight.add("weigh", [](Tensor w, const Ctx&) { return w; }));
    }
    std::int64_t formula(const Arch&) const override { return 0; }
    bool norm;
  };
  Methods methods = {{"weigh", "", "", "", "", true, true,
                      [](Options& o, const Arch&) -> std::unique_ptr<Adapter> {
                        return std::make_unique<Weigh>(o.flag("norm", false));
                      },
                      "weigh"}};
  for (const char* spec : {"weigh", "weigh:norm=yes"})
    contains(error_of([&] {
               Routed(methods, {{"mine", spec}}, model);
             }),
             "weigh edits a weight or a norm at encoder 0 ");
  CHECK(model.hash() == before);

  const Routed routed(all_methods(), {{"a", "lora:r=1"}, {"b", "lora:r=1"}}, model);
  CHECK(routed.index("b") == 1);
  CHECK(routed.index("base") == -1);
  contains(error_of([&] { routed.index("c"); }), "there are a, b, and base");
  Batch batch = ragged(model.arch(), {3, 2});
  contains(error_of([&] { rows_of(model, batch); }), "adapters of 0 sequences in a batch of 2");
  batch.adapter = {0, 2};
  contains(error_of([&] { rows_of(model, batch); }), "adapter 2 for a sequence; there are 0..1");
  batch.adapter = {0};
  contains(error_of([&] { rows_of(model, batch); }), "adapters of 1 sequences in a batch of 2");
}
