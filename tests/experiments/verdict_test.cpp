// How measurements judge claims.
#include "experiments/harness/verdict.h"

#include <doctest/doctest.h>

#include "experiments/harness/tables.h"
#include "tests/experiments/claims.h"
#include "tests/nn/folder.h"

using namespace graft;
using graft::testing::case_of;
using graft::testing::effect_of;
using graft::testing::error_of;

static bool has(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

TEST_CASE("claims are held, not held, undecided or outside their regime") {
  using Kind = Test::Kind;
  std::vector<Case> cases = {
      case_of("A", {Kind::above, 0}, effect_of(5, 1)),
      case_of("B", {Kind::below, 0}, effect_of(5, 1)),
      case_of("C", {Kind::above, 0}, effect_of(0.3, 1)),
      case_of("D", {Kind::equivalent, 3}, effect_of(0.1, 1)),
      case_of("E", {Kind::rising, 0},
              std::vector<std::vector<double>>{{1, 2, 3, 4}, {1, 2, 4, 3}, {1, 3, 4, 5}}),
      case_of("F", {Kind::above, 0}, effect_of(5, 1)),
  };
  cases[5].evidence.in_regime = false;
  auto found = judge(cases);
  CHECK(found[0].verdict == Verdict::held);
  CHECK(found[1].verdict == Verdict::not_held);
  CHECK(found[2].verdict == Verdict::undecided);
  CHECK(has(found[2].reason, "seeds would decide"));
  CHECK(found[3].verdict == Verdict::held);
  CHECK(found[4].verdict == Verdict::held);
  CHECK(found[5].verdict == Verdict::outside_regime);
  CHECK(has(text(found), "A  held"));
  CHECK(has(text(found), "F  outside the regime"));
  for (const Finding& f : judge(cases, {.quick = true})) {
    CHECK_FALSE(f.verdict);
    CHECK_FALSE(f.readings[0].numbers.empty());
  }
}

TEST_CASE(
    "a claim whose runs are not all there has no verdict, and takes its share of the others'") {
  using Kind = Test::Kind;
  std::vector<Case> cases{case_of("A", {Kind::above, 0}, effect_of(5, 1)),
                          case_of("B", {Kind::above, 0}, effect_of(5, 1))};
  const double both = judge(cases)[1].p_held;
  cases[0].evidence.unready = "no verdict yet (2 of 5 seeds)";
  const auto found = judge(cases);
  CHECK_FALSE(found[0].verdict);
  CHECK(found[0].reason == "no verdict yet (2 of 5 seeds)");
  CHECK(found[1].verdict == Verdict::held);
  CHECK(found[1].p_held == both);
  CHECK(has(text(found), "A  no verdict"));
}

TEST_CASE("every part of a claim must hold, and one refuted part refutes it") {
  using Kind = Test::Kind;
  Case both = case_of("A", {Kind::above, 0}, effect_of(5, 1));
  both.claim.parts.push_back({"second", {Kind::above, 0}});
  both.evidence.parts.push_back(effect_of(0.2, 1));
  CHECK(judge(std::vector{both})[0].verdict == Verdict::undecided);
  both.evidence.parts[1] = effect_of(-5, 1);
  CHECK(judge(std::vector{both})[0].verdict == Verdict::not_held);
  both.evidence.parts.pop_back();
  CHECK(has(error_of([&] { judge(std::vector{both}); }), "2 part(s)"));
  Case wrong = case_of("A", {Kind::rising, 0}, effect_of(1, 1));
  CHECK(has(error_of([&] { judge(std::vector{wrong}); }), "cannot show"));
  Case lonely = case_of("A", {Kind::above, 0}, bootstrap({{{Scores{{5, 5, 5, 6}}}}}));
  CHECK(judge(std::vector{lonely})[0].verdict == Verdict::undecided);
}

TEST_CASE("a claim that counts exceptions needs no test, and one exception refutes it") {
  using Kind = Test::Kind;
  const auto share = [](const Scores& scores) { return bootstrap({{{scores}}}); };
  Case exact = case_of("A", {Kind::none}, share({{0, 0, 0}, {0, 0, 0}}));
  exact.claim.unit = "% of the examples";
  const Case tested = case_of("B", {Kind::above, 0}, effect_of(5, 1));
  const auto found = judge(std::vector{exact, tested});
  CHECK(found[0].verdict == Verdict::held);
  CHECK(found[0].readings[0].numbers == "0 % of the examples, of 3 examples and 2 seeds");
  CHECK(has(found[0].reason, "no exception"));
  // It takes no share of what the others pay for being judged together.
  CHECK(found[1].p_held == judge(std::vector{tested})[0].p_held);
  exact.evidence.parts[0] = share({{0, 0, 0}, {0, 0, 100}});
  CHECK(judge(std::vector{exact})[0].verdict == Verdict::not_held);
  exact.evidence.parts[0] = share({{0, 0, 0}});
  CHECK(judge(std::vector{exact})[0].verdict == Verdict::held);
  exact.claim.parts.push_back({"second", {Kind::above, 0}});
  exact.evidence.parts.push_back(effect_of(5, 1));
  CHECK(has(error_of([&] { judge(std::vector{exact}); }), "make it two claims"));
}
