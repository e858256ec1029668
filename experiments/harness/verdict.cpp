#include "experiments/harness/verdict.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tensor/error.h"

namespace graft {
namespace {

using Kind = Test::Kind;
using Table = std::vector<std::vector<double>>;

bool counted(const ClaimPart& part) { return part.test.kind == Kind::none; }
std::string shorter(double v) { return fmt::format("{:.4g}", v); }

// What one part needs beyond its evidence to become a Reading.
struct Reader {
  const Claim& claim;
  const ClaimPart& part;
  double alpha;

  Reading operator()(const Effect& e) const {
    const Test& test = part.test;
    Reading r = start();
    check(test.kind == Kind::above || test.kind == Kind::below || test.kind == Kind::equivalent ||
              test.kind == Kind::none,
          "claim {}, {}: an effect cannot show \"{}\"", claim.id, part.label, r.test);
    r.effect = e.value;
    r.interval = e.interval;
    r.numbers = with_interval(e.value, e.interval) + " " + claim.unit;
    if (test.kind == Kind::none) {
      r.numbers = fmt::format("{} {}, of {} examples and {} seed{}", shorter(e.value), claim.unit,
                              e.examples, e.seeds, e.seeds == 1 ? "" : "s");
      r.p_held = e.value == 0 ? 0 : 1;
      r.p_not = 1 - r.p_held;
      return r;
    }
    double distance = e.value - test.margin;
    if (test.kind == Kind::equivalent) {
      r.p_held = e.p_equivalent(test.margin);
      r.p_not = std::min(1.0, 2 * std::min(e.p_above(test.margin), e.p_below(-test.margin)));
      distance = test.margin - std::abs(e.value);
    } else {
      r.p_held = test.kind == Kind::above ? e.p_above(test.margin) : e.p_below(test.margin);
      r.p_not = test.kind == Kind::above ? e.p_below(test.margin) : e.p_above(test.margin);
    }
    r.seeds_to_decide = seeds_to_decide(e, distance, alpha);
    r.one_seed = e.seeds < 2;
    if (r.one_seed) r.p_held = r.p_not = 1;
    return r;
  }

  Reading operator()(const Table& table) const {
    Reading r = start();
    check(part.test.kind == Kind::rising || part.test.kind == Kind::falling,
          "claim {}, {}: a table of levels cannot show \"{}\"", claim.id, part.label, r.test);
    Trend trend = page_trend(table);
    bool rising = part.test.kind == Kind::rising;
    r.p_held = rising ? trend.p_rising : trend.p_falling;
    r.p_not = rising ? trend.p_falling : trend.p_rising;
    std::string means;
    for (std::size_t level = 0; level < table[0].size(); ++level) {
      double sum = 0;
      for (const auto& block : table) sum += block[level];
      means += (level ? ", " : "") + fmt::format("{:.2f}", sum / static_cast<double>(table.size()));
    }
    r.numbers = fmt::format("level means {} {}; Page's L = {}", means, claim.unit,
                            shorter(trend.statistic));
    // z grows with the root of the number of blocks.
    double target = normal_quantile(1 - alpha) + normal_quantile(0.8);
    if (double n = std::ceil(table.size() * std::pow(target / trend.z, 2)); n <= 1000)
      r.seeds_to_decide = std::max(2, static_cast<int>(n));
    r.one_seed = table.size() < 2;
    if (r.one_seed) r.p_held = r.p_not = 1;
    return r;
  }

  Reading operator()(const Peak& peak) const {
    Reading r = start();
    check(part.test.kind == Kind::peak && !peak.over_first.empty(),
          "claim {}, {}: inner levels cannot show \"{}\"", claim.id, part.label, r.test);
    auto best = static_cast<std::size_t>(peak.best);
    const Effect &first = peak.over_first[best], &last = peak.over_last[best];
    const Effect& nearer = first.value < last.value ? first : last;
    r.effect = nearer.value;
    r.interval = nearer.interval;
    r.numbers = fmt::format("best inner level (number {}) over the first {}, over the last {} {}",
                            best + 2, with_interval(first.value, first.interval),
                            with_interval(last.value, last.interval), claim.unit);
    r.p_held = peak.p_peak();
    r.p_not = peak.p_none();
    r.seeds_to_decide =
        seeds_to_decide(nearer, nearer.value, alpha / static_cast<double>(peak.over_first.size()));
    r.one_seed = first.seeds < 2;
    if (r.one_seed) r.p_held = r.p_not = 1;
    return r;
  }

  Reading start() const {
    Reading r;
    r.label = part.label;
    r.test = describe(part.test, claim.unit);
    return r;
  }
};

Finding read_claim(const Case& c, double alpha) {
  const Claim& claim = c.claim;
  check(!claim.id.empty() && !claim.parts.empty(), "judge: claim \"{}\" needs an id and a part",
        claim.text);
  check(c.evidence.parts.size() == claim.parts.size(),
        "claim {}: {} part(s), evidence for {}; need one for each", claim.id, claim.parts.size(),
        c.evidence.parts.size());
  check(is_counted(claim) || std::none_of(claim.parts.begin(), claim.parts.end(), counted),
        "claim {}: some parts are counted, some tested; make it two claims", claim.id);
  Finding f;
  f.claim = claim;
  f.p_held = 0;
  for (std::size_t i = 0; i < claim.parts.size(); ++i) {
    Reading r = std::visit(Reader{claim, claim.parts[i], alpha}, c.evidence.parts[i]);
    f.p_held = std::max(f.p_held, r.p_held);
    f.p_not = std::min(f.p_not, r.p_not);
    f.readings.push_back(std::move(r));
  }
  f.p_not = std::min(1.0, f.p_not * static_cast<double>(claim.parts.size()));
  return f;
}

// The seeds that would decide every part; a part already shown to hold asks for none.
std::string what_would_decide(const Finding& f, double alpha) {
  int most = 0;
  for (const Reading& r : f.readings) {
    if (r.p_held <= alpha) continue;
    if (r.one_seed) return "one seed decides nothing; run at least two";
    if (!r.seeds_to_decide)
      return "no number of seeds would decide an effect this near its margin; it takes more test "
             "examples";
    most = std::max(most, *r.seeds_to_decide);
  }
  return fmt::format("about {} seeds would decide an effect of this size", std::max(most, 2));
}

void decide(Finding& f, const Evidence& evidence, double family, const Judging& judging) {
  if (!evidence.unready.empty()) {
    f.reason = evidence.unready;
  } else if (!evidence.in_regime) {
    f.verdict = Verdict::outside_regime;
    f.reason = fmt::format("needs: {}{}{}", f.claim.regime,
                           evidence.regime_note.empty() ? "" : "; ", evidence.regime_note);
  } else if (is_counted(f.claim)) {
    f.verdict = f.p_held == 0 ? Verdict::held : Verdict::not_held;
    f.reason = f.p_held == 0 ? "counted: there is no exception" : "counted: there are exceptions";
  } else if (f.p_held <= judging.alpha) {
    f.verdict = Verdict::held;
    f.reason = fmt::format("p = {:.2g}, adjusted for the claims judged together", f.p_held);
  } else if (f.p_not <= judging.alpha) {
    f.verdict = Verdict::not_held;
    f.reason = fmt::format(
        "the contrary holds, p = {:.2g}, adjusted for the claims judged together", f.p_not);
  } else {
    f.verdict = Verdict::undecided;
    f.reason = what_would_decide(f, judging.alpha / family);
  }
}

}  // namespace

std::string name(Verdict verdict) {
  switch (verdict) {
    case Verdict::held:
      return "held";
    case Verdict::not_held:
      return "not held";
    case Verdict::undecided:
      return "undecided";
    case Verdict::outside_regime:
      return "outside the regime";
  }
  fail("verdict: no name for {}", static_cast<int>(verdict));
}

bool is_counted(const Claim& claim) {
  return std::all_of(claim.parts.begin(), claim.parts.end(), counted);
}

std::string describe(const Test& test, const std::string& unit) {
  switch (test.kind) {
    case Kind::above:
      return fmt::format("above {} {}", shorter(test.margin), unit);
    case Kind::below:
      return fmt::format("below {} {}", shorter(test.margin), unit);
    case Kind::equivalent:
      return fmt::format("within ±{} {}", shorter(test.margin), unit);
    case Kind::rising:
      return "rises with the level";
    case Kind::falling:
      return "falls with the level";
    case Kind::peak:
      return "an inner level beats both ends";
    case Kind::none:
      return fmt::format("0 {}, of all", unit);
  }
  fail("test: no description for {}", static_cast<int>(test.kind));
}

std::vector<Finding> judge(std::span<const Case> cases, const Judging& judging) {
  const auto is_tested = [](const Case& c) { return c.evidence.in_regime && !is_counted(c.claim); };
  auto tested = std::count_if(cases.begin(), cases.end(), is_tested);
  double family = std::max<double>(1, static_cast<double>(tested));
  std::vector<Finding> findings;
  std::vector<double> held, contrary;
  std::set<std::string> ids;
  for (const Case& c : cases) {
    check(ids.insert(c.claim.id).second, "judge: claim {} comes twice", c.claim.id);
    findings.push_back(read_claim(c, judging.alpha / family));
    if (!is_tested(c)) continue;
    const bool ready = c.evidence.unready.empty();
    held.push_back(ready ? findings.back().p_held : 1);
    contrary.push_back(ready ? findings.back().p_not : 1);
  }
  held = holm(held);
  contrary = holm(contrary);
  for (std::size_t i = 0, judged = 0; i < cases.size(); ++i) {
    if (is_tested(cases[i])) {
      findings[i].p_held = held[judged];
      findings[i].p_not = contrary[judged++];
    }
    if (judging.quick)
      findings[i].reason = "a quick run gives effects and intervals, never a verdict";
    else
      decide(findings[i], cases[i].evidence, family, judging);
  }
  return findings;
}

std::string with_interval(double value, const Interval& interval, int digits) {
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", value, digits, interval.low, digits,
                     interval.high, digits);
}

}  // namespace graft
