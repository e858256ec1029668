// Merging one after another and taking out in any order: the base's bits are back, edits that were
// off stay off, and what would come before another adapter's edits is refused.
#include "peft/adapter_set.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

const Arch kArch = small_arch(Stack::encoder);

struct Set {
  explicit Set(const std::vector<std::pair<std::string, std::string>>& adapters)
      : hash(model.hash()), bare(rows()) {
    std::vector<std::string> names;
    for (const auto& [name, spec] : adapters) {
      set.add(name, spec);
      for (const auto& p : set.at(name).parameters()) add_noise(*p, 0.2, std::uint32_t(name[0]));
      names.push_back(name);
    }
    set.activate(names);
  }
  Array rows() { return rows_of(model, ragged(kArch, {5, 1, 8})).value(); }
  // What merging says; whether it merged or not, the outputs are what they were.
  std::string merging(const std::string& name) {
    const Array before = rows();
    const std::string said = error_of([&] { set.at(name).merge(); });
    CHECK(set.at(name).merged() == (said == "(no error)"));
    CHECK(difference(rows(), before) < 1e-10);
    return said;
  }
  void is_base_again() {
    set.activate({});
    CHECK(model.hash() == hash);
    CHECK(same_bits(rows(), bare));
  }

  SmallModel model{kArch, Dtype::f64};
  std::uint64_t hash;
  Array bare;
  AdapterSet set{all_methods(), model};
};

}  // namespace

TEST_CASE("a merged adapter under another's is unmerged after that one, not before") {
  Set s({{"a", "lora:r=2,on=q"}, {"c", "lora:r=1,on=q+v"}, {"d", "lora:r=1,on=up"}});
  const Array apart = s.rows();
  s.set.at("a").merge(), s.set.at("c").merge(), s.set.at("d").merge();
  const Array merged = s.rows();
  contains(error_of([&] { s.set.at("a").unmerge(); }),
           "another adapter was merged into 'encoder 0 q weight' after it; unmerge that one first");
  contains(error_of([&] { s.set.at("a").adapters()[0]->unmerge(); }),
           "unmerge in the reverse order of merging");
  CHECK(s.set.at("a").merged());
  CHECK(same_bits(s.rows(), merged));
  s.set.at("c").unmerge();  // d covers nothing of it
  s.set.at("a").unmerge();
  s.set.at("d").unmerge();
  CHECK(same_bits(s.rows(), apart));
  s.is_base_again();
}

TEST_CASE("disabling takes merged adapters out in the order of merging, and puts them back in it") {
  Set s({{"a", "lora:r=2,on=q+v"}, {"b", "lora:r=1,on=v"}, {"c", "lora:r=1,on=q+v"}});
  for (const std::vector<std::string>& order :
       {std::vector<std::string>{"c", "a", "b"}, {"b", "c", "a"}, {"a", "c"}}) {
    for (const std::string& name : order) s.set.at(name).merge();
    const Array merged = s.rows();
    {
      const auto off = s.set.disable();
      CHECK(s.model.hash() == s.hash);
      CHECK(same_bits(s.rows(), s.bare));
    }
    CHECK(same_bits(s.rows(), merged));
    for (auto name = order.rbegin(); name != order.rend(); ++name) s.set.at(*name).unmerge();
  }
  s.is_base_again();
}

TEST_CASE("dropped while merged, in whatever order its methods were, adapters leave the base") {
  for (const char* spec :
       {"ia3|bitfit", "ia3|lora:r=2,on=q+v,bias=all", "lora:r=2|full", "lora:r=2|top:k=1",
        "lora:r=2|intrinsic:d=40", "bitfit|lora:r=2|ia3", "intrinsic:d=40|full"}) {
    CAPTURE(spec);
    SmallModel model(kArch);
    const std::uint64_t hash = model.hash();
    {
      Adaptation adaptation(all_methods(), spec, model);
      jitter(adaptation.parameters());
      adaptation.merge();
      CHECK(model.hash() != hash);
    }
    CHECK(model.hash() == hash);
  }
  for (const bool first : {true, false}) {  // two, each in front of the other once
    SmallModel model(kArch);
    const std::uint64_t hash = model.hash();
    auto a = std::make_unique<Adaptation>(all_methods(), "lora:r=2", model),
         b = std::make_unique<Adaptation>(all_methods(), "bitfit|lora:r=1", model);
    jitter(a->parameters()), jitter(b->parameters());
    (first ? a : b)->merge(), (first ? b : a)->merge();
    a.reset(), b.reset();
    CHECK(model.hash() == hash);
  }
}

TEST_CASE("merging one of several active adapters does not pass over what another does first") {
  const std::string hint = "merge that one first, or have one of them active alone";
  {
    Set s({{"a", "lora:r=2,on=q+v"}, {"b", "ia3"}});
    contains(s.merging("b"),
             "ia3: it cannot be merged beside 'lora:r=2,on=q+v', which acts "
             "before it at encoder 0 v; " +
                 hint);
    CHECK(s.merging("a") == "(no error)");
    CHECK(s.merging("b") == "(no error)");
    s.set.at("b").unmerge(), s.set.at("a").unmerge();
    s.is_base_again();
    s.set.activate({"b"});  // not beside one that is not active
    CHECK(s.merging("b") == "(no error)");
    s.set.at("b").unmerge();
  }
  {
    Set s({{"b", "ia3"}, {"a", "lora:r=2,on=q+v"}, {"c", "lora:r=1,on=down"}});
    contains(s.merging("a"), "beside 'ia3', which acts before it at encoder 0 v");
    contains(s.merging("b"), "which reads what it scales at encoder 0 down; " + hint);
    for (const char* name : {"c", "b", "a"}) CHECK(s.merging(name) == "(no error)");
    for (const char* name : {"a", "b", "c"}) s.set.at(name).unmerge();
    s.is_base_again();
  }
  {
    Set s({{"i", "intrinsic:d=40"}, {"b", "ia3:on=k"}, {"j", "lora:r=1,on=q+k"}});
    contains(s.merging("b"), "which changes the matrix that it scales at encoder 0 k");
    contains(s.merging("j"), "beside 'ia3:on=k', which acts before it at encoder 0 k");
    for (const char* name : {"i", "b", "j"}) CHECK(s.merging(name) == "(no error)");
    for (const char* name : {"j", "b", "i"}) s.set.at(name).unmerge();
    s.is_base_again();
  }
  {  // what only adds changes places with what only adds; sub-layers' edits stand behind
    Set s({{"i", "intrinsic:d=40"},
           {"a", "lora:r=2"},
           {"c", "lora:r=1"},
           {"h", "houlsby:m=3,norms=no"}});
    for (const char* name : {"c", "a", "i"}) CHECK(s.merging(name) == "(no error)");
    for (const char* name : {"i", "a", "c"}) s.set.at(name).unmerge();
    s.is_base_again();
  }
  {  // W (x + u) reads the matrix
    Set s({{"a", "lora:r=2,on=up"}, {"s", "series:m=3,place=before,on=up"}});
    contains(s.merging("a"),
             "beside 'series:m=3,place=before,on=up', which acts on the same at "
             "encoder 0 up");
  }
}

TEST_CASE("merged is what the switched layers gave, and unmerged they are as they were") {
  for (const char* spec :
       {"lora:r=2,on=q+v+down", "ia3", "intrinsic:d=40", "lora:r=2|ia3:on=v+k"}) {
    CAPTURE(spec);
    SmallModel model(kArch, Dtype::f64);
    const Batch batch = ragged(kArch, {5, 1, 8});
    const std::uint64_t hash = model.hash();
    Adaptation adaptation(all_methods(), spec, model);
    jitter(adaptation.parameters());
    const Array all = rows_of(model, batch).value();
    adaptation.enable(0, 0, false);
    const Array part = rows_of(model, batch).value();
    CHECK(difference(part, all) > 1e-4);
    adaptation.merge();
    CHECK(difference(rows_of(model, batch).value(), part) < 1e-10);
    adaptation.unmerge();
    CHECK(same_bits(rows_of(model, batch).value(), part));
    adaptation.enable(-1, 1, false);
    adaptation.merge();
    CHECK(model.hash() == hash);
    adaptation.unmerge();
    adaptation.enable(-1, 1, true);
    CHECK(same_bits(rows_of(model, batch).value(), all));
  }
}

TEST_CASE("layers switched while an adapter is not active count once it is") {
  Set s({{"a", "lora:r=2"}, {"b", "houlsby:m=3,norms=no"}});
  s.set.activate({"a"});
  const Array whole = s.rows();
  s.set.at("a").enable(0, 0, false);
  const Array part = s.rows();
  CHECK(difference(part, whole) > 1e-4);
  s.set.activate({});
  s.set.at("a").enable(0, 0, true);
  CHECK(same_bits(s.rows(), s.bare));  // not active yet
  s.set.at("b").enable(0, 1, true);
  CHECK(same_bits(s.rows(), s.bare));
  s.set.activate({"a"});
  CHECK(same_bits(s.rows(), whole));
  s.set.activate({"b"});
  const Array other = s.rows();
  s.set.activate({"a"});
  s.set.at("a").enable(0, 0, false);
  s.set.at("b").enable(0, 1, false);
  CHECK(same_bits(s.rows(), part));
  s.set.activate({"b"});
  CHECK(same_bits(s.rows(), s.bare));
  s.set.at("b").enable(0, 1, true);
  CHECK(same_bits(s.rows(), other));
}
