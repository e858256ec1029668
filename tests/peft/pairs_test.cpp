// Every ordered pair of methods, on every body: it composes, or attaching says why not.
#include <set>

#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("every ordered pair of methods composes, or is refused with a reason") {
  const Threads one(1);
  const Methods methods = all_methods();
  std::set<std::string> composing;
  std::size_t tried = 0, refused = 0;
  for (const Body kind : kBodies) {
    PairBody body(methods, kind);
    std::size_t turn = 0;
    for (const Method& a : methods)
      for (const Method& b : methods) {
        ++tried;
        if (kSanitized && turn++ % std::size(kBodies) != static_cast<std::size_t>(kind))
          continue;  // see keeps_contract
        const PairResult r = body.check(a.example, b.example);
        CAPTURE(std::string(name(kind)));
        CAPTURE(r.spec);
        CAPTURE(r.detail);
        CHECK(r.kind != PairResult::broken);
        CHECK_FALSE(r.detail.empty());
        if (r.kind == PairResult::composes) composing.insert(r.spec);
        if (r.kind != PairResult::refused) continue;
        ++refused;  // and the reason names a method of the two
        const bool named = r.detail.find(a.name) != std::string::npos ||
                           r.detail.find(b.name) != std::string::npos;
        CHECK(named);
      }
  }
  CHECK(tried == std::size(kBodies) * methods.size() * methods.size());
  MESSAGE(tried, " pairs, ", refused, " of them refused");
  for (const char* spec : {"lora:r=2,alpha=4,on=q+k+v+o+up+down|prefix:length=3,mlp=yes,mid=4",
                           "prompt:length=3|ia3", "ia3|bitfit", "houlsby:m=3|prompt:length=3"})
    CHECK(composing.contains(spec));
}

TEST_CASE("in a pair the order of the spec decides, and stays in its file") {
  SmallModel model(small_arch(Stack::encoder));
  const Batch batch = ragged(model.arch(), {5, 3});
  const auto rows = [&](const std::string& spec) {
    Adaptation adaptation(all_methods(), spec, model);
    jitter(adaptation.parameters());
    return rows_of(model, batch).value();
  };
  // (IA)3 scales what LoRA added, or what it adds to.
  CHECK(difference(rows("lora:r=2,on=v|ia3:on=v"), rows("ia3:on=v|lora:r=2,on=v")) > 1e-4);
}
