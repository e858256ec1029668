// What methods train in published shapes, against the papers' figures, and in random ones against
// their formulas: as `graft count` has it, from shapes alone, and as it is allocated.
#include <set>

#include "nn/models/family.h"
#include "nn/models/heads.h"
#include "peft/part_shapes.h"
#include "tests/nn/random_arch.h"
#include "tests/peft/method_cases.h"
#include "tests/peft/paper_counts.h"

using namespace graft;
using namespace graft::testing;

namespace {

// A share in the unit of its text and to its digits.
std::string written(const Share& share, std::int64_t trains) {
  const std::string text = share.text;
  const std::size_t space = text.find(' '), point = text.find('.');
  check(point < space && space + 2 == text.size(), "share '{}'; need '1.2 %' or '1.2 x'", text);
  const double part = double(trains + share.more) * share.per / double(share.of);
  return fmt::format("{:.{}f} {}", text.back() == '%' ? 100 * part : 1 + part, space - point - 1,
                     text.back());
}

}  // namespace

TEST_CASE("counts and shares are those of the papers, method by method") {
  for (const PaperCount& row : paper_counts()) {
    CAPTURE(row.arch);
    CAPTURE(row.spec);
    const std::int64_t trains = counted(paper_arch(row.arch), row.spec).trains;
    CHECK(trains == row.trains);
    for (const Share& share : row.shares) CHECK(written(share, trains) == share.text);
  }
}

TEST_CASE("what shares are of are the models' own counts") {
  const auto all = [](const Arch& arch) { return Model(arch, {.storage = false}).parameters(); };
  const auto bert = [&](const char* name) {
    const std::int64_t d = arch_named(name).width;
    return all(without_lm_head(arch_named(name))) + d * d + d;  // the matrix for pooling
  };
  CHECK(bert("bert-base") == kBertBase);
  CHECK(bert("bert-large") == kBertLarge);
  CHECK(kBertLarge - (30522 + 512 + 2 + 2) * 1024 == kBertLargeBody);
  CHECK(all(arch_named("t5-base")) == kT5Base);
  CHECK(all(arch_named("opt-6.7b")) == 6658473984);
  CHECK(all(arch_named("t5-v1_1-xxl")) == 11135332352);
  CHECK(counted("opt-6.7b", "lora:r=16,on=q+v").all == 6666862592);
  CHECK(counted("t5-base", "lora:r=8,on=q+v+xq+xv").all == 223788288);
}

TEST_CASE("the 0.8M of LoRA's released RoBERTa are its 294,912 numbers and the family's head") {
  Model model(without_lm_head(arch_named("roberta-base")), {.storage = false});
  const Adaptation lora(all_methods(), "lora:r=8,on=q+v", model);
  model.set_head(
      std::make_unique<LinearHead>(model.build(), model.arch(), 3, head_form(model.arch())));
  CHECK(model.head().parameters() == 592899);
  CHECK(lora.count() + model.head().parameters() == 887811);
}

namespace {

// What a method is tried with in a model: its example where that fits, its range of layers and its
// choice of parts drawn at random where it has them.
std::vector<std::string> random_specs(const Method& method, const Arch& arch, int trial) {
  const std::string name = method.name;
  // A model of few numbers has no 200 dimensions.
  const std::string example = name == "intrinsic"
                                  ? fmt::format("intrinsic:d={}", draw(trial, "d", 20, 90))
                                  : method.example;
  std::vector<std::string> specs{example};
  const auto with = [](const std::string& spec, const std::string& option) {
    return spec + (spec.find(':') == std::string::npos ? ':' : ',') + option;
  };
  for (const char* without_layers : {"head", "full", "top", "prompt", "ptuning"})
    if (name == without_layers) return specs;

  const int shared = arch.crosses() ? std::min(arch.layers, arch.encoder_layers) : arch.layers;
  const int first = draw(trial, "first", 0, shared - 1);
  const int last = draw(trial, "last", first, std::max(arch.layers, arch.encoder_layers) - 1);
  const std::string layers = fmt::format("layers={}-{}", first, last);
  specs.push_back(with(example, layers));

  const std::vector<Part> linears = linear_parts(arch);
  const auto drawn = [&](const char* what) {
    const int at = draw(trial, what, 0, static_cast<int>(linears.size()) - 1);
    return linears[static_cast<std::size_t>(at)];
  };
  const auto linear = [&](const char* what) { return std::string(graft::name(drawn(what))); };
  if (name == "lora") {
    const Part one = drawn("a linear"), two = drawn("another");
    const PartShape a = shape_of(arch, one), b = shape_of(arch, two);
    const int r = draw(trial, "rank", 1,
                       static_cast<int>(std::min({std::int64_t{4}, a.in, a.out, b.in, b.out})));
    std::vector<Part> on{one};
    if (two != one) on.push_back(two);
    specs.push_back(fmt::format("lora:r={},on={},{}", r, to_string(on), layers));
    specs.push_back(fmt::format("lora:r={},on=embed", r));
    specs.push_back("lora:r=1,on=all");
  }
  if ((name == "bitfit" && !arch.rms) || name == "layernorm")
    specs.push_back(name + ":on=norm1," + layers);
  if (name == "ia3") specs.push_back("ia3:on=" + linear("a linear") + "," + layers);
  if (name == "parallel" || name == "series") {
    for (const char* place : {"serial", "parallel", "before"})
      specs.push_back(fmt::format("{}:m=2,on={},place={},norm={},{}", name, linear(place), place,
                                  *place == 's' ? "after" : "before", layers));
    specs.push_back(name + ":m=2,norm=before,norms=yes,s=learned," + layers);
  }
  const bool written = name.starts_with("hyperformer");
  if (arch.crosses() && (name == "houlsby" || name == "compacter" || written))
    specs.push_back(with(example, "on=cross+mlp," + layers));
  return specs;
}

// The numbers that an adaptation's tensors lie in, each piece of memory once.
std::int64_t allocated(const Adaptation& adaptation) {
  std::set<const Storage*> seen;
  std::size_t bytes = 0;
  for (const auto& p : adaptation.parameters()) {
    REQUIRE(p->value.value().has_storage());
    const Storage* storage = p->value.value().storage().get();
    if (seen.insert(storage).second) bytes += storage->bytes;
  }
  return static_cast<std::int64_t>(bytes / sizeof(float));
}

}  // namespace

TEST_CASE("formula, count from shapes and what is allocated are one, of every method and family") {
  constexpr int kTrials = 12;
  const Threads one(1);
  int trial = -1;  // sizes of its own for each family
  for (const Family& family : families())
    for (int i = 0; i < kTrials; ++i) {
      const Arch arch = random_arch(family, ++trial);
      Model model(arch, {}), shapes(arch, {.storage = false});
      CAPTURE(family.name);
      CAPTURE(trial);
      std::int64_t base = 0;
      model.each([&](Weight& w) { base += w.value().value().numel(); });
      CHECK(base == shapes.parameters());
      for (const Method& method : all_methods())
        for (const std::string& spec : random_specs(method, arch, trial)) {
          CAPTURE(spec);
          if (method.name == std::string_view("bitfit") && !arch.biases) {
            contains(error_of([&] { Adaptation(all_methods(), spec, model); }), "no biases");
            continue;
          }
          const Adaptation here(all_methods(), spec, model);
          const Adaptation there(all_methods(), spec, shapes);
          CHECK(here.formula() == there.formula());
          CHECK(here.count() == here.formula());
          CHECK(there.count() == here.formula());
          CHECK(allocated(here) == here.formula());
        }
      const Adaptation all(all_methods(), "full:vocabulary=yes", shapes);
      const std::int64_t pooler = arch.pooler ? std::int64_t{arch.width} * (arch.width + 1) : 0;
      CHECK(all.formula() + pooler == base);  // what heads alone read does not train
    }
}
