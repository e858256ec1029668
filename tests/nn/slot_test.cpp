// Slots and handles: order, counting, dropping in any order.
#include <doctest/doctest.h>

#include "nn/slot.h"

using namespace graft;

namespace {

using Number = Slot<int>;

}  // namespace

TEST_CASE("edits run in the order of adding, each on the value as edited so far") {
  Number slot;
  CHECK(slot.empty());
  CHECK(slot(7) == 7);
  const Handle a = slot.add("add", [](int x) { return x + 1; });
  const Handle b = slot.add("double", [](int x) { return 2 * x; });
  CHECK(slot(3) == 8);
  CHECK_FALSE(slot.empty());
  CHECK(a.edit().name == "add");
  CHECK(b.edit().calls == 1);
}

TEST_CASE("a disabled edit does not run and does not count") {
  Number slot;
  const Handle a = slot.add("add", [](int x) { return x + 1; });
  a.edit().enabled = false;
  CHECK(slot(3) == 3);
  CHECK(a.edit().calls == 0);
  a.edit().enabled = true;
  CHECK(slot(3) == 4);
  CHECK(a.edit().calls == 1);
}

TEST_CASE("dropping a handle takes its edit out; a moved handle still holds it") {
  Number slot;
  Handle kept;
  {
    Handle a = slot.add("add", [](int x) { return x + 1; });
    const Handle b = slot.add("double", [](int x) { return 2 * x; });
    CHECK(slot(1) == 4);
    kept = std::move(a);
  }
  CHECK(slot(1) == 2);
  kept = Handle();
  CHECK(slot.empty());
}

TEST_CASE("a handle may outlive its slot") {
  auto slot = std::make_unique<Number>();
  const Handle a = slot->add("add", [](int x) { return x + 1; });
  slot.reset();
  CHECK(a.edit().name == "add");
}

TEST_CASE("an edit may drop its own handle while it runs, and others' handles") {
  Number slot;
  Handle own, later, earlier;
  earlier = slot.add("earlier", [](int x) { return x + 1; });
  own = slot.add("own", [&](int x) {
    own = Handle();
    later = Handle();
    earlier = Handle();
    return x + 10;
  });
  later = slot.add("later", [](int x) { return x + 100; });
  CHECK(slot(0) == 11);
  CHECK(slot.empty());
  CHECK(slot(0) == 0);
}
