// Several adapters on one model by name: switching, none at all, taking away, merging in turn.
#include "peft/adapter_set.h"

#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Names = std::vector<std::string>;

// One of each kind of edit, and methods that train copies of the same parameters of the base.
const std::vector<std::pair<std::string, std::string>> kAll = {{"lora", "lora:r=2,on=q+v"},
                                                               {"bottleneck", "houlsby:m=3"},
                                                               {"prefix", "prefix:length=2"},
                                                               {"prompt", "prompt:length=2"},
                                                               {"scales", "ia3"},
                                                               {"gated", "llama_adapter:length=2"},
                                                               {"whole", "full"},
                                                               {"norms", "layernorm|lora:r=1"},
                                                               {"saved", "lora:r=1,save=norm1"}};

Array alone(const Arch& arch, const std::string& spec, std::uint32_t seed, const Batch& batch) {
  SmallModel model(arch);
  const Adaptation adaptation(all_methods(), spec, model);
  for (const auto& p : adaptation.parameters()) add_noise(*p, 0.2, seed);
  return rows_of(model, batch).value();
}

}  // namespace

TEST_CASE("each of several adapters, made active, is that adapter alone; none is the base") {
  const Threads one(1);
  for (const Arch& arch : {small_arch(Stack::encoder), llama_like()}) {
    const Batch batch = ragged(arch, {5, 1, 8});
    SmallModel model(arch);
    const std::uint64_t hash = model.hash();
    const Array bare = rows_of(model, batch).value();
    {
      AdapterSet set(all_methods(), model);
      std::vector<Array> want;
      std::vector<Parameters> handles;
      for (std::size_t i = 0; i < kAll.size(); ++i) {
        const auto& [name, spec] = kAll[i];
        want.push_back(alone(arch, spec, std::uint32_t(i), batch));
        Adaptation& added = set.add(name, spec);
        for (const auto& p : added.parameters()) add_noise(*p, 0.2, std::uint32_t(i));
        handles.push_back(added.parameters());
        CHECK(same_bits(rows_of(model, batch).value(), bare));
        CHECK(set.active().empty());
      }
      for (const std::size_t i : {0, 3, 6, 1, 7, 8, 2, 5, 4, 6, 0}) {
        CAPTURE(kAll[i].first);
        set.activate({kAll[i].first});
        CHECK(set.active() == Names{kAll[i].first});
        CHECK(same_bits(rows_of(model, batch).value(), want[i]));
        // numbers and gradients go to the same parameters as before
        const Parameters now = set.at(kAll[i].first).parameters();
        REQUIRE(now.size() == handles[i].size());
        for (std::size_t p = 0; p < now.size(); ++p) CHECK(now[p] == handles[i][p]);
        {
          const auto off = set.disable();
          CHECK(set.active().empty());
          CHECK(model.hash() == hash);
          CHECK(same_bits(rows_of(model, batch).value(), bare));
          const auto again = set.disable();
          CHECK(same_bits(rows_of(model, batch).value(), bare));
        }
        CHECK(same_bits(rows_of(model, batch).value(), want[i]));
      }
      set.activate({});
      CHECK(same_bits(rows_of(model, batch).value(), bare));
      set.activate({"whole"});
    }
    CHECK(same_bits(rows_of(model, batch).value(), bare));
    CHECK(model.hash() == hash);
  }
}

TEST_CASE("active adapters work in the order of adding, and LoRA's add up") {
  const Arch arch = small_arch(Stack::encoder);
  const Batch batch = ragged(arch, {5, 1, 8});
  SmallModel model(arch), composed(arch);
  AdapterSet set(all_methods(), model);
  for (const char* name : {"a", "b", "c"}) {
    set.add(name, "lora:r=2");
    for (const auto& p : set.at(name).parameters()) add_noise(*p, 0.2, std::uint32_t(name[0]));
  }
  std::vector<std::unique_ptr<Adaptation>> each;
  for (const char* name : {"a", "c"}) {
    each.push_back(std::make_unique<Adaptation>(all_methods(), "lora:r=2", composed));
    for (const auto& p : each.back()->parameters()) add_noise(*p, 0.2, std::uint32_t(name[0]));
  }
  const Array want = rows_of(composed, batch).value();
  set.activate({"c", "a"});
  CHECK(set.active() == Names{"a", "c"});
  CHECK(same_bits(rows_of(model, batch).value(), want));

  // an edit that was switched off by layers stays so over all switching
  set.at("a").enable(0, 0, false);
  const Array part = rows_of(model, batch).value();
  CHECK_FALSE(same_bits(part, want));
  set.activate({"b"});
  set.activate({"a", "c"});
  CHECK(same_bits(rows_of(model, batch).value(), part));

  // combined, they are one adapter
  set.at("a").enable(0, 0, true);
  const CombinedLora made = set.add_combined("sum", {"a", "c"}, {"cat", {1, 1}});
  CHECK(made.spec == "lora:r=4,on=q+v");
  set.activate({"sum"});
  CHECK(difference(rows_of(model, batch).value(), want) < 1e-5);
  contains(error_of([&] {
             set.add_combined("x", {"a", "d"}, {"cat", {1, 1}});
           }),
           "none is called 'd'");
  contains(error_of([&] { set.add_combined("sum", {"a"}, {"cat", {1}}); }), "'sum' already");
}

TEST_CASE("unknown names, taken names and parameters that two would train are refused, unchanged") {
  const Arch arch = small_arch(Stack::encoder);
  const Batch batch = ragged(arch, {5, 3});
  SmallModel model(arch);
  AdapterSet set(all_methods(), model);
  contains(error_of([&] { set.activate({"a"}); }), "none is called 'a'; there are none");
  set.add("a", "bitfit"), set.add("b", "full"), set.add("c", "lora:r=1|bitfit");
  for (const char* name : {"a", "b", "c"})
    for (const auto& p : set.at(name).parameters()) add_noise(*p, 0.2, 3);
  set.activate({"a"});
  const Array want = rows_of(model, batch).value();
  const auto unchanged = [&] {
    CHECK(set.active() == Names{"a"});
    CHECK(set.names() == Names{"a", "b", "c"});
    CHECK(same_bits(rows_of(model, batch).value(), want));
  };
  contains(error_of([&] { set.activate({"b", "d"}); }), "none is called 'd'; there are a, b, c");
  unchanged();
  contains(error_of([&] { set.at("x"); }), "there are a, b, c");
  contains(error_of([&] { set.remove("x"); }), "none is called 'x'");
  contains(error_of([&] { set.add("b", "lora"); }), "there is one called 'b' already");
  contains(error_of([&] { set.add("", "lora"); }), "needs a name");
  contains(error_of([&] { set.add("e", "lora:r=0"); }), "r=0");
  unchanged();
  contains(error_of([&] { set.activate({"a", "b"}); }), "already trains by another adapter");
  unchanged();
  contains(error_of([&] { set.activate({"b", "c"}); }), "already trains by another adapter");
  unchanged();
  set.remove("b");
  CHECK(set.names() == Names{"a", "c"});
  CHECK(same_bits(rows_of(model, batch).value(), want));
  set.remove("a");
  CHECK(set.active().empty());
  CHECK(same_bits(rows_of(model, batch).value(), rows_of(SmallModel(arch), batch).value()));
  set.add("a", "lora:r=1");
  CHECK(set.names() == Names{"c", "a"});
}

TEST_CASE("a merged adapter is neither switched off nor removed, but for a while") {
  const Arch arch = small_arch(Stack::decoder);
  const Batch batch = ragged(arch, {5, 3});
  SmallModel model(arch);
  const Array bare = rows_of(model, batch).value();
  AdapterSet set(all_methods(), model);
  set.add("a", "lora:r=2"), set.add("b", "ia3"), set.add("c", "lora:r=1");
  for (const char* name : {"a", "b", "c"})
    for (const auto& p : set.at(name).parameters()) add_noise(*p, 0.2, 3);
  contains(error_of([&] { set.at("a").merge(); }), "it is switched off; activate it");
  set.activate({"a"});
  const Array beside = rows_of(model, batch).value();
  set.at("a").merge();
  const Array merged = rows_of(model, batch).value();
  CHECK(difference(merged, beside) < 1e-5);
  for (const auto& act : std::vector<std::function<void()>>{
           [&] { set.remove("a"); }, [&] { set.activate({}); }, [&] { set.activate({"b"}); },
           [&] { set.add("d", "lora"); }, [&] { set.remove("c"); }}) {
    contains(error_of(act), "'a' is merged; unmerge it first");
    CHECK(same_bits(rows_of(model, batch).value(), merged));
    CHECK(set.names() == Names{"a", "b", "c"});
  }
  {
    const auto off = set.disable();
    CHECK(same_bits(rows_of(model, batch).value(), bare));
  }
  CHECK(set.at("a").merged());
  CHECK(same_bits(rows_of(model, batch).value(), merged));
  set.at("a").unmerge();
  CHECK(same_bits(rows_of(model, batch).value(), beside));

  // both, one after another or at once
  set.activate({"a", "c"});
  const Array both = rows_of(model, batch).value();
  set.at("a").merge(), set.at("c").merge();
  CHECK(difference(rows_of(model, batch).value(), both) < 1e-5);
  set.at("c").unmerge(), set.at("a").unmerge();
  CHECK(same_bits(rows_of(model, batch).value(), both));
  {
    const auto off = set.disable();
    set.remove("a");
  }
  CHECK(set.active() == Names{"c"});
}
