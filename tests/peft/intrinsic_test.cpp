// Intrinsic dimension: what moves and by how much, DID and SAID, merging, refusals.
#include "tests/peft/method_cases.h"
#include "tests/tensor/fastfood_naive.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::vector<std::vector<double>> values_of(Model& model) {
  std::vector<std::vector<double>> all;
  model.each([&](Weight& w) { all.push_back(w.value().value().to_vector()); });
  return all;
}

double squares(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

// An adaptation's theta (and lambda, if it has one), after noise on both.
struct Moved {
  Moved(const std::string& spec, const Arch& arch, std::uint32_t seed = 5)
      : model(arch, {Dtype::f64, true, seed}), before(values_of(model)) {
    adaptation.emplace(all_methods(), spec, model);
    jitter(adaptation->parameters());
    theta = adaptation->parameters()[0]->value.value().to_vector();
    adaptation->merge();
    after = values_of(model);
  }
  Model model;
  std::vector<std::vector<double>> before, after;
  std::optional<Adaptation> adaptation;
  std::vector<double> theta;
};

}  // namespace

TEST_CASE("DID and SAID keep the contract in every form, in parts, and beside other methods") {
  for (const char* spec :
       {"intrinsic:d=5,scales=none", "intrinsic:d=150,scales=tensor",
        "intrinsic:d=40,scales=none,project=tensor", "intrinsic:d=9,on=q+norm1,layers=1",
        "intrinsic:d=30,on=embed+norm_out", "lora:r=2,on=k+down|intrinsic:d=20",
        "intrinsic:d=20|bitfit", "ia3|intrinsic:d=20,on=k+v+up+down"})
    keeps_contract(spec);
  keeps_contract_on("intrinsic:d=9,on=position,scales=none", Body::both);  // relative places
}

TEST_CASE("every number of the base moves by its lambda times its own Fastfood's of theta") {
  const Arch arch = small_arch(Stack::encoder);
  Moved m("intrinsic:d=50,seed=3", arch);
  const std::vector<double> lambda = m.adaptation->parameters()[1]->value.value().to_vector();
  REQUIRE(m.theta.size() + lambda.size() == 50);
  REQUIRE(lambda.size() == 3);  // outside the blocks, and two blocks
  std::int64_t numbers = 0;
  for (const auto& v : m.before) numbers += std::ssize(v);
  std::size_t i = 0;
  m.model.each([&](Weight& w) {
    const Parameter& p = w.parameter();
    const std::int64_t size = std::ssize(m.before[i]);
    const Fastfood f =
        draw_fastfood(std::ssize(m.theta), size, std::sqrt(double(size) / double(numbers)), {3, 0},
                      stream_id((p.label() + "/intrinsic").c_str()));
    const std::vector<double> step = plain_fastfood(m.theta, f);
    double worst = 0;
    for (std::size_t k = 0; k < step.size(); ++k)
      worst = std::max(worst,
                       std::abs(m.before[i][k] + lambda[std::size_t(p.site.layer + 1)] * step[k] -
                                m.after[i][k]));
    CAPTURE(p.label());
    CHECK(worst < 1e-12);
    ++i;
  });
  m.adaptation->unmerge();
  CHECK(values_of(m.model) == m.before);
}

TEST_CASE(
    "the paper's projection keeps theta's length over the model, the code's over each tensor") {
  const Arch arch = small_arch(Stack::decoder, 48, 3);
  const auto ratio = [](const Moved& m, std::size_t i) {
    const std::vector<double> none(m.theta.size());
    return squares(m.after[i], m.before[i]) / squares(m.theta, none);
  };
  Moved whole("intrinsic:d=200,scales=none", arch);
  double sum = 0;
  for (std::size_t i = 0; i < whole.before.size(); ++i) sum += ratio(whole, i);
  CHECK(std::abs(sum - 1) < 0.05);
  Moved each("intrinsic:d=200,scales=none,project=tensor", arch);
  int tensors = 0;
  for (std::size_t i = 0; i < each.before.size(); ++i)
    if (each.before[i].size() >= 48 * 24) {  // of smaller ones a single ratio says little
      CHECK(std::abs(ratio(each, i) - 1) < 0.25);
      ++tensors;
    }
  CHECK(tensors >= 20);
}

TEST_CASE("the projection follows from the spec, not from the run's seed") {
  const Arch arch = small_arch(Stack::encoder);
  const auto step = [&](const char* spec, std::uint32_t seed) {
    const Moved m(spec, arch, seed);
    std::vector<double> all;
    for (std::size_t i = 0; i < m.before.size(); ++i)
      for (std::size_t k = 0; k < m.before[i].size(); ++k)
        all.push_back(m.after[i][k] - m.before[i][k]);
    return all;
  };
  const std::vector<double> one = step("intrinsic:d=30", 5), other = step("intrinsic:d=30", 6),
                            seeded = step("intrinsic:d=30,seed=1", 5), none(one.size());
  CHECK(squares(one, other) < 1e-20 * squares(one, none));
  CHECK(squares(one, seeded) > 0.5 * squares(one, none));
}

TEST_CASE(
    "a table of tokens that is the vocabulary's moves in both places, an untied one on demand") {
  for (const Arch& arch : {small_arch(Stack::decoder), llama_like()}) {
    SmallModel model(arch);
    const Batch batch = ragged(arch, {6, 4});
    const auto logits = [&](const char* spec, bool merged) {
      Adaptation adaptation(all_methods(), spec, model);
      for (const auto& p : adaptation.parameters()) add_noise(*p, 2, 3);
      if (merged) adaptation.merge();
      Ctx ctx;
      const Sequence s = model.forward(batch, ctx);
      return model.lm_logits(s, {0, 3, 9}, ctx).value();
    };
    CHECK(same_bits(logits("intrinsic:d=40", false), logits("intrinsic:d=40", true)));
    const char* more = "intrinsic:d=40,vocabulary=yes";
    CHECK(same_bits(logits(more, false), logits(more, true)));
    int heads = 0;
    const Adaptation adaptation(all_methods(), more, model);
    for (const auto& f : adaptation.adapters()[0]->fired()) heads += f.site.part == Part::lm_head;
    CHECK(heads == (arch.tied ? 0 : 1));
  }
}

TEST_CASE("what an intrinsic dimension cannot be is one clear error") {
  contains(refusal("intrinsic:d=3"), "d=3, of which scales=layer takes 3; need d > 3");
  contains(refusal("intrinsic:d=20,scales=tensor"), "scales=tensor takes 38");
  contains(refusal("intrinsic:d=49,on=norm1,layers=0,scales=none"), "d=49; what it moves has 48");
  contains(refusal("intrinsic:on=xq"), "no parameter of xq in layers 0..1; there are embed+");
  contains(refusal("intrinsic:on=norm_out,layers=0"), "no parameter of norm_out in layers 0..0");
  contains(refusal("intrinsic:on=heads"), "intrinsic: on=heads: ");
  contains(refusal("intrinsic:project=all"), "need one of whole, tensor");
  contains(refusal("intrinsic:d=40|intrinsic:d=40"), "two methods make a parameter");
  contains(refusal("intrinsic:d=0"), "need a whole number of at least 1");
}
