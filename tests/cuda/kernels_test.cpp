// Every kernel on the device against its form for the host.
#include <cstdlib>

#include "tests/cuda/device_cases.h"
#include "tests/tensor/kernel_cases.h"
#ifdef GRAFT_CUDA_IS_EMULATED
#include "tests/cuda/emulation/emulation.h"
#endif

using namespace graft;
using namespace graft::kernel_cases;
using graft::testing::apart;
using graft::testing::device_is_there;

namespace {

// Both sides of a warp, of a block, of a run of rows and of columns.
// (Fewer under the sanitizers, which are there for errors of memory.)
#ifdef GRAFT_SANITIZED
const std::vector<Shape> kShapes{{1, 1}, {3, 31}, {4, 33}, {65, 5}, {2, 257}};
#else
const std::vector<Shape> kShapes{{1, 1},  {2, 3},   {3, 31},  {5, 32},   {4, 33},   {64, 64},
                                 {65, 5}, {9, 255}, {2, 257}, {3, 1025}, {129, 40}, {1, 4100}};
#endif

}  // namespace

TEST_CASE("every kernel of the device gives what the host's gives, into poisoned outputs") {
  if (!device_is_there()) return;
  for (const Case& c : cases())
    for (const Shape& s : kShapes)
      for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
        const std::string at = fmt::format("{} of {} {}", c.name, s, name(dtype));
        CAPTURE(at);
        const Input in = input(s[0], s[1], dtype);
        const Arrays want = c.run(in), got = c.run(in.on(Device::cuda));
        REQUIRE(want.size() == got.size());
        for (std::size_t i = 0; i < want.size(); ++i) {
          CAPTURE(i);
          CHECK(apart(got[i], want[i]) < (dtype == Dtype::f32 ? 1e-5 : 1e-12));
        }
      }
}

// What tests/gpu.sh proves with that compute-sanitizer looks at our kernels: only there.
TEST_CASE("a wild read for the tools to find") {
  if (!std::getenv("GRAFT_WILD_READ") || !device_is_there()) return;
  const ArrayKind there{Dtype::f32, Device::cuda};
  const Array table = Array::zeros({4, 8}, there);
  Array row = Array::zeros({1}, Dtype::i32), y = Array::empty({1, 8}, there);
  row.fill(1 << 28);  // on the device nobody looks at an index
  kernels::gather(y, table, row.to(Device::cuda));
  cuda::wait();
}

TEST_CASE("two runs of a kernel of the device have the same bits, in whatever order threads run") {
  if (!device_is_there()) return;
  for (const Case& c : cases())
    for (const Shape& s : kShapes) {
      const std::string at = fmt::format("{} of {}", c.name, s);
      CAPTURE(at);
      const Input in = input(s[0], s[1], Dtype::f32).on(Device::cuda);
      const Arrays once = c.run(in);
#ifdef GRAFT_CUDA_IS_EMULATED
      emulation::reverse(true);
#endif
      const Arrays twice = c.run(in);
#ifdef GRAFT_CUDA_IS_EMULATED
      emulation::reverse(false);
#endif
      for (std::size_t i = 0; i < once.size(); ++i) CHECK(same_bits(once[i], twice[i]));
    }
}

TEST_CASE("masks of the device are the host's, bit for bit") {
  if (!device_is_there()) return;
  for (const Shape& s : kShapes) {
    const Input in = input(s[0], s[1], Dtype::f32);
    CHECK(same_bits(run_dropout(in)[0], run_dropout(in.on(Device::cuda))[0]));
  }
}
