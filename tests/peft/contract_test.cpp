// The contract catches methods that break it: toys, each wrong in one way.
#include <doctest/doctest.h>

#include "peft/contract.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

enum class Fault {
  none,          // y + p on every block: a bias
  never_fires,   // the edit sits where nobody looks
  wrong_count,   // the formula is off by one
  touches_base,  // a base weight is written
  cuts_path,     // the gradient does not flow back through the edit
  not_the_base,  // claims to start as the base, but does not
  no_merge,      // claims to merge, but cannot
  remembers,     // the edit counts its calls, so that a checkpoint is not the plain pass
  stays,         // the edit outlives the adapter
  idle,          // a parameter that nothing reads
  draws_on,      // its start depends on what was built before
  unsaved,       // something drawn at the seed is in no file
  forgets,       // what training changes is in no file
  stuck,         // the edit acts though it is switched off
  half,          // a parameter that takes the base's precision
  counts_rows    // how much it adds depends on the rows in the pass
};

Handle left_behind;

struct Toy : Adapter {
  explicit Toy(Fault f, std::string name = "toy") : Adapter(name), own(name + "_p"), fault(f) {}
  void attach(Model& m) override {
    for (int i = 0; i < m.arch().layers; ++i) {
      const Site site{m.arch().stack, i, Part::block};
      const double start = fault == Fault::not_the_base ? 0.1 : 0;
      const Tensor p = param(m, site, own, {m.arch().width}, {Init::Kind::normal, start});
      static int built = 0;
      if (fault == Fault::draws_on && m.build().storage)
        parameters().back()->value.value().fill(1e-9 * ++built);
      const double unsaved = fault == Fault::unsaved ? 1 + m.build().seed : 1;
      auto calls = std::make_shared<int>(0);
      const auto edit = [p, unsaved, f = fault, calls, more = forgotten](Tensor y, const Ctx&) {
        if (f == Fault::cuts_path) return y.detach() + p;
        if (f == Fault::counts_rows) return y + (0.1 * static_cast<double>(y.dim(0))) * p;
        if (f == Fault::remembers) return y + (1.0 + ++*calls) * p;
        return y + (unsaved + 0.5 * *more) * p;
      };
      Handle handle = (fault == Fault::never_fires ? unseen : m.blocks[i]->out).add("toy", edit);
      if (fault == Fault::stuck) always.push_back(m.blocks[i]->out.add("always", edit));
      if (fault == Fault::stays && i == 0)
        left_behind = std::move(handle);
      else
        hold(site, std::move(handle));
      if (fault == Fault::half && is_half(m.blocks[i]->mlp.up.w.value().value().dtype()))
        parameters().back()->value.value() = p.value().to(Dtype::bf16);
      if (fault == Fault::idle) param(m, site, "idle", {2}, {});
    }
    if (fault == Fault::touches_base && m.build().storage)
      m.blocks[0]->mlp.up.w.parameter().value.value().fill(0.25);
  }
  std::int64_t formula(const Arch& a) const override {
    return a.layers * (a.width + 2 * (fault == Fault::idle)) + (fault == Fault::wrong_count);
  }
  void after_backward(int) override { *forgotten += fault == Fault::forgets; }
  std::string own;
  Fault fault;
  std::shared_ptr<int> forgotten = std::make_shared<int>(0);  // edits may outlive the adapter
  std::vector<Handle> always;
  Slot<Tensor, Ctx> unseen;
};

template <Fault fault>
Methods toy() {
  Method row;
  row.name = "toy";
  row.mergeable = fault == Fault::no_merge;
  row.starts_as_base = true;
  row.make = [](Options&, const Arch&) -> std::unique_ptr<Adapter> {
    return std::make_unique<Toy>(fault);
  };
  return {row};
}

// The clauses that a toy breaks.
template <Fault fault>
std::string broken(Body kind = Body::encoder) {
  const Threads one(1);
  std::string all;
  for (const Clause& c : run_contract(toy<fault>(), "toy", kind))
    if (!c.kept) all += c.text + " (" + c.detail + "); ";
  left_behind = Handle();
  return all;
}

}  // namespace

TEST_CASE("a method that does as it says keeps every clause") {
  CHECK(broken<Fault::none>(Body::encoder) == "");
  CHECK(broken<Fault::none>(Body::decoder) == "");
  CHECK(broken<Fault::none>(Body::both) == "");
  CHECK(all_kept(run_contract(toy<Fault::none>(), "toy", Body::decoder)));
}

TEST_CASE("the contract catches an edit that never fires") {
  contains(broken<Fault::never_fires>(), "every edit fired");
  contains(broken<Fault::never_fires>(), "nothing that y depends on wants a gradient");
}

TEST_CASE("the contract catches a parameter that nothing reads") {
  contains(broken<Fault::idle>(), "no gradient reached encoder 0 block idle");
}

TEST_CASE("the contract catches a wrong formula") {
  contains(broken<Fault::wrong_count>(), "trainable count = formula = what was allocated");
}

TEST_CASE("the contract catches a method that writes into the base") {
  contains(broken<Fault::touches_base>(), "frozen weights keep their bits");
}

TEST_CASE("the contract catches a wrong gradient") {
  contains(broken<Fault::cuts_path>(), "finite differences");
}

TEST_CASE("the contract catches a start that is not the base") {
  contains(broken<Fault::not_the_base>(), "starts as the base");
}

TEST_CASE("the contract catches a merge that was promised") {
  contains(broken<Fault::no_merge>(), "merged = unmerged");
}

TEST_CASE("the contract catches an edit with a memory") {
  contains(broken<Fault::remembers>(), "checkpointed = plain");
}

TEST_CASE("the contract catches an edit that outlives its adapter") {
  contains(broken<Fault::stays>(), "detaching restores the bare model");
}

TEST_CASE("the contract catches a start that depends on what was built before") {
  contains(broken<Fault::draws_on>(), "one seed gives one start");
}

TEST_CASE("the contract catches what no file holds: drawn at the seed, or changed by training") {
  contains(broken<Fault::unsaved>(), "loads to the same outputs, under another seed");
  contains(broken<Fault::unsaved>(), "training goes on from a file");
  const std::string forgets = broken<Fault::forgets>();
  contains(forgets, "training goes on from a file, bit for bit (adafactor: ");
  CHECK(forgets.find("loads to the same outputs") == std::string::npos);
}

TEST_CASE("the contract catches an edit that cannot be switched off") {
  contains(broken<Fault::stuck>(), "switched off it is the base");
}

TEST_CASE("the contract catches a parameter that takes the base's half precision") {
  const std::string half = broken<Fault::half>();
  contains(half, "on a base of half precision it trains in f32");
}

TEST_CASE("the contract catches text that differs with a cache") {
  contains(broken<Fault::counts_rows>(Body::decoder), "it writes with a cache as without");
  contains(broken<Fault::counts_rows>(Body::both), "it writes with a cache as without");
}

TEST_CASE("pairs: what cuts the other's gradient is caught in either order, and a clash refused") {
  Methods table = toy<Fault::none>();
  Method cutter = table[0];
  cutter.name = "cutter";
  cutter.make = [](Options&, const Arch&) -> std::unique_ptr<Adapter> {
    return std::make_unique<Toy>(Fault::cuts_path, "cutter");
  };
  Method plain = cutter;
  plain.name = "plain";
  plain.make = [](Options&, const Arch&) -> std::unique_ptr<Adapter> {
    return std::make_unique<Toy>(Fault::none, "plain");
  };
  Method stays = cutter;
  stays.name = "stays";
  stays.make = [](Options&, const Arch&) -> std::unique_ptr<Adapter> {
    return std::make_unique<Toy>(Fault::stays, "stays");
  };
  table.insert(table.end(), {cutter, plain, stays});
  for (const Body body : kBodies) {
    PairBody pairs(table, body);
    for (const auto& [a, b] : {std::pair{"toy", "plain"}, std::pair{"plain", "toy"}}) {
      const PairResult r = pairs.check(a, b);
      CAPTURE(r.detail);
      CHECK(r.kind == PairResult::composes);
      contains(r.detail, "does not merge: ");
    }
    CHECK(pairs.check("toy", "cutter").kind == PairResult::broken);
    CHECK(pairs.check("cutter", "toy").kind == PairResult::broken);
    const PairResult twice = pairs.check("toy", "toy");
    CHECK(twice.kind == PairResult::refused);
    contains(twice.detail, "two methods make a parameter");
    const PairResult left = pairs.check("toy", "stays");
    CHECK(left.kind == PairResult::broken);
    contains(left.detail, "not the base");
    left_behind = Handle();
  }
}

TEST_CASE("a spec that cannot be attached is an error, not a finding") {
  contains(error_of([] { run_contract(toy<Fault::none>(), "toy:k=1", Body::encoder); }),
           "unknown option 'k'");
  contains(error_of([] { run_contract(toy<Fault::none>(), "lora", Body::encoder); }),
           "there are toy");
}
