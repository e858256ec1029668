// What a pass keeps for backward when blocks, or what lies within their sub-layers, are computed
// again. (That the bits are the same is tested with what trains: determinism_test, the contract.)
#include <doctest/doctest.h>

#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

// Bytes that the blocks keep, where the gradient is wanted at their input alone.
std::size_t kept(Model& m, const Batch& batch, Checkpoint checkpoint) {
  Ctx ctx{.train = true, .checkpoint = checkpoint};
  Sequence s = m.embed(batch, ctx);
  s.rows = Tensor::leaf(s.rows.value());
  const Tensor y = m.run_blocks(std::move(s), ctx, 0, m.arch().layers).rows;
  return explain(y, arrays_of(m)).kept_bytes;
}

}  // namespace

TEST_CASE("a block keeps 6d + F numbers a token; without what is inner 2d, and d of the whole") {
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    const Arch a = small_arch(stack, 24, 3);
    SmallModel m(a);
    const Batch batch = ragged(a, {5, 1, 9, 4});
    const auto numbers = [&](Checkpoint c) {
      return double(kept(m, batch, c)) / sizeof(float) / double(batch.tokens() * a.layers);
    };
    const double d = a.width, heads = a.heads;  // attention keeps a number for each head, too
    CHECK(numbers(Checkpoint::none) == doctest::Approx(6 * d + a.hidden + heads));
    CHECK(numbers(Checkpoint::inner) == doctest::Approx(2 * d));
    CHECK(numbers(Checkpoint::blocks) == doctest::Approx(d));
  }
}

TEST_CASE("the ways to checkpoint have names") {
  for (const Checkpoint c : {Checkpoint::none, Checkpoint::inner, Checkpoint::blocks})
    CHECK(checkpoint_named(name(c)) == c);
  CHECK_THROWS_WITH_AS(checkpoint_named("all"),
                       doctest::Contains("checkpoint=all: there are none, inner and blocks"),
                       Error);
}
