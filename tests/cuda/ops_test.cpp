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
struct Ran {
  Tensors leaves;
  Tensor y;
  std::vector<Array> all(Dtype dy) const {
    const Gradients grads = backward(y, drawn(y.shape(), 100, false, dy).to(y.kind()));
    std::vector<Array> found{y.value()};
    for (const Tensor& leaf : leaves) found.push_back(grads.has(leaf) ? grads[leaf] : Array());
    return found;
  }
};
std::vector<Array> run(const Op& op, ArrayKind kind) {
  Ran r;
  for (std::size_t i = 0; i < op.in.size(); ++i)
    r.leaves.push_back(Tensor::leaf(drawn(op.in[i], static_cast<int>(i), op.positive, kind)));
  r.y = op.run(r.leaves);
  return r.all(kind.dtype);
}

// The same of masters in f32, whose numbers half precision has exactly: computed in f32 on the
// host, and in half precision on the device, where input `apart` stays a master until the op. Where
// that is the first one, the others are constants: rows in f32 meet no half that trains.
std::vector<Array> run_rounded(const Op& op, Device device, Dtype half, std::size_t apart) {
  Ran r;
  Tensors in;
  for (std::size_t i = 0; i < op.in.size(); ++i) {
    const Array exact = drawn(op.in[i], static_cast<int>(i), op.positive, half).to(Dtype::f32);
    r.leaves.push_back(Tensor::leaf(exact.to(device)));
    const bool turned = device == Device::cuda && i != apart;
    const Tensor x = turned ? cast(r.leaves.back(), half) : r.leaves.back();
    in.push_back(apart == 0 && i > 0 ? x.detach() : x);
  }
  r.y = op.run(in);
  return r.all(half);
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

TEST_CASE("in half precision every op and its gradients are close to f32's, masters among them") {
  if (!device_is_there()) return;
  for (const Size s : kSizes) {
    if (s.c == 1) continue;  // a norm of one number divides what is left by rounding
    for (const Op& op : table(s))
      for (const Dtype half : {Dtype::bf16, Dtype::f16})
        // Each input is a master, and at last none is; of larger shapes that alone.
        for (std::size_t master = s.n < 10 ? 0 : op.in.size(); master <= op.in.size(); ++master) {
          CAPTURE(op.name);
          CAPTURE(s.n);
          CAPTURE(std::string(name(half)));
          CAPTURE(master);
          const auto want = run_rounded(op, Device::cpu, half, master);
          const auto got = run_rounded(op, Device::cuda, half, master);
          for (std::size_t i = 0; i < want.size(); ++i) {
            CAPTURE(i);
            REQUIRE(want[i].defined() == got[i].defined());
            if (!want[i].defined()) continue;
            if (i > 0) CHECK(got[i].dtype() == Dtype::f32);
            // Attention's gradients read its result as it was rounded (Dao et al. 2022, appendix
            // B.4: D = sum dO O), which tells in the differences of scores.
            const double limit = i > 0 && op.name.starts_with("sdpa") ? 3e-2 : 1e-2;
            CHECK(apart(got[i], want[i]) < (half == Dtype::bf16 ? limit : limit / 8));
          }
        }
  }
}
