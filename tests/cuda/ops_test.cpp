// Every op of the table on the device: its value and the gradients of all its inputs are the
// host's.
#include "tests/autograd/op_table.h"
#include "tests/cuda/device_cases.h"

using namespace graft;
using namespace graft::op_table;
using graft::testing::apart;
using graft::testing::device_is_there;

namespace {

// On both sides of a tile of attention and of a warp, and one row or column alone.
#ifdef GRAFT_SANITIZED
const std::vector<Size> kSizes{{9, 17}};
#else
const std::vector<Size> kSizes{{1, 1}, {9, 17}, {34, 8}, {50, 33}};
#endif

Array drawn(const Shape& shape, int which, bool positive, ArrayKind kind) {
  std::vector<double> v(static_cast<std::size_t>(count(shape)));
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = normal({3, 0}, static_cast<std::uint32_t>(which), i);
    if (positive) v[i] = 0.5 + std::abs(v[i]);
  }
  return Array::of(v, shape).to(kind);
}

// The op's value, and then its inputs' gradients.
std::vector<Array> run(const Op& op, ArrayKind kind) {
  Tensors x;
  for (std::size_t i = 0; i < op.in.size(); ++i)
    x.push_back(Tensor::leaf(drawn(op.in[i], static_cast<int>(i), op.positive, kind)));
  const Tensor y = op.run(x);
  Gradients grads = backward(y, drawn(y.shape(), 100, false, kind));
  std::vector<Array> all{y.value()};
  for (const Tensor& leaf : x) all.push_back(grads.has(leaf) ? grads[leaf] : Array());
  return all;
}

}  // namespace

TEST_CASE("every op and its gradients are on the device what they are on the host") {
  if (!device_is_there()) return;
  for (const Size s : kSizes)
    for (const Op& op : table(s))
      for (const Dtype dtype : {Dtype::f64, Dtype::f32}) {
        // A norm of one number alone divides what is left by rounding by the root of its epsilon.
        if (dtype == Dtype::f32 && s.c == 1) continue;
        CAPTURE(op.name);
        CAPTURE(s.n);
        const auto want = run(op, dtype), got = run(op, {dtype, Device::cuda});
        for (std::size_t i = 0; i < want.size(); ++i) {
          CAPTURE(i);
          REQUIRE(want[i].defined() == got[i].defined());
          if (!want[i].defined()) continue;
          CHECK(got[i].device() == Device::cuda);
          CHECK(apart(got[i], want[i]) < (dtype == Dtype::f32 ? 1e-5 : 1e-12));
        }
      }
}
