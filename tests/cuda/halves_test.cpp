// Kernels that take halves eight at a time, on both sides of where they can: widths, and places in
// memory. What they give is the host's in f32 of the same numbers, and nothing beside it is
// written.
#include <functional>

#include "tests/cuda/device_cases.h"
#include "tests/tensor/kernel_cases.h"
#ifdef GRAFT_CUDA_IS_EMULATED
#include "tests/cuda/emulation/emulation.h"
#endif

using namespace graft;
using graft::kernel_cases::random_index;
using graft::testing::apart;
using graft::testing::device_is_there;

namespace {

using std::int64_t;

constexpr Dtype kHalves[] = {Dtype::bf16, Dtype::f16};
double limit(Dtype half) { return half == Dtype::bf16 ? 1e-2 : 1.5e-3; }

// Numbers that begin so many elements after a multiple of 16 bytes; what lies around them is NaN.
struct Placed {
  Array whole, view;
  Placed(Shape shape, ArrayKind kind, int64_t skip) {
    const int64_t n = count(shape);
    whole = Array::full({skip + n + 9}, NAN, kind);
    view = whole.slice(0, skip, skip + n).reshape(std::move(shape));
  }
  Placed(const Array& x, int64_t skip) : Placed(x.shape(), x.kind(), skip) { view.copy_from(x); }
  // Whether the numbers around them are what they were.
  bool alone() const {
    int64_t nan = 0;
    for (const double x : whole.to_vector()) nan += std::isnan(x);
    for (const double x : view.to_vector()) nan -= std::isnan(x);
    return nan == whole.numel() - view.numel();
  }
};

// What a kernel reads, drawn in the half's own numbers.
struct Drawn {
  std::mt19937 bits{7};
  Dtype half;
  Array operator()(Shape shape) {
    return kernel_cases::random(std::move(shape), Dtype::f32, bits).to(half).to(Dtype::f32);
  }
};

// run(inputs, outputs) on the device and on the host; sums, which are in f32 on both, come last.
using Run = std::function<void(const std::vector<Array>& in, std::vector<Array>& out)>;
void check_as_on_host(Dtype half, const std::vector<Array>& in, const std::vector<Shape>& out,
                      std::size_t sums, const Run& run) {
  for (const int64_t skip : {0, 1, 8}) {
    CAPTURE(skip);
    const ArrayKind there{half, Device::cuda};
    std::vector<Array> given, want, got;
    std::vector<Placed> places;
    for (const Array& x : in) given.push_back(Placed(x.to(half).to(Device::cuda), skip).view);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const bool sum = i + sums >= out.size();
      want.push_back(sum ? Array::zeros(out[i]) : Array::full(out[i], NAN));
      got.push_back(sum ? Array::zeros(out[i], {Dtype::f32, Device::cuda})
                        : places.emplace_back(out[i], there, skip).view);
    }
    run(in, want);
    run(given, got);
    for (std::size_t i = 0; i < out.size(); ++i) {
      CAPTURE(i);
      CHECK(apart(got[i], want[i]) < limit(half));
    }
    for (const Placed& place : places) CHECK(place.alone());
#ifdef GRAFT_CUDA_IS_EMULATED
    std::vector<Array> again;
    for (const Array& x : got) again.push_back(x.clone());
    for (std::size_t i = out.size() - sums; i < out.size(); ++i) again[i].fill(0);
    emulation::reverse(true);
    run(given, again);
    emulation::reverse(false);
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(same_bits(again[i], got[i]));
#endif
  }
}

}  // namespace

TEST_CASE("norms of halves are the host's on both sides of every width that is held") {
  if (!device_is_there()) return;
#ifdef GRAFT_SANITIZED
  const std::vector<int64_t> widths{7, 8, 264, 2056, 8200};
#else
  const std::vector<int64_t> widths{1,    7,    8,    33,   256,  264,  768,  770,  776, 1024,
                                    1032, 2048, 2056, 4096, 4104, 5120, 8192, 8200, 9001};
#endif
  for (const Dtype half : kHalves)
    for (const int64_t columns : widths)
      for (const int64_t rows : {0, 1, 5}) {
        if (columns == 1 && rows > 0) continue;  // a norm of one number divides what rounding left
        CAPTURE(columns);
        CAPTURE(rows);
        Drawn draw{.half = half};
        const Shape all{rows, columns}, row{columns};
        const std::vector<Array> in{draw(all), draw(row), draw(row), draw(all)};
        check_as_on_host(half, in, {all, all, all, all, row, row, row}, 3,
                         [](const std::vector<Array>& in, std::vector<Array>& out) {
                           Array none;
                           kernels::layer_norm(out[0], in[0], in[1], in[2], 1e-5);
                           kernels::layer_norm_grad(out[1], out[4], out[5], in[0], in[1], in[3],
                                                    1e-5);
                           kernels::rms_norm(out[2], in[0], none, 1e-5);
                           kernels::rms_norm_grad(out[3], out[6], in[0], in[1], in[3], 1e-5);
                           kernels::layer_norm_grad(none, out[4], none, in[0], none, in[3], 1e-5);
                         });
      }
}

TEST_CASE("element-wise kernels of halves are the host's wherever their numbers begin") {
  if (!device_is_there()) return;
  for (const Dtype half : kHalves)
    for (const int64_t n : {0, 1, 8, 13, 264, 4096, 4100}) {
      CAPTURE(n);
      Drawn draw{.half = half};
      const Shape s{n};
      const std::vector<Array> in{draw(s), draw(s), draw(s)};
      check_as_on_host(half, in, std::vector<Shape>(8, s), 0,
                       [](const std::vector<Array>& in, std::vector<Array>& out) {
                         kernels::swiglu(out[0], in[0], in[1]);
                         kernels::swiglu_grad(out[1], out[2], in[0], in[1], in[2]);
                         kernels::scale(out[3], in[0], -0.75);
                         kernels::axpy(out[3], in[1], 0.5);
                         kernels::map(Map::gelu_tanh, out[4], in[0]);
                         kernels::map_grad(Map::gelu_tanh, out[5], in[0], in[2]);
                         kernels::binary(Binary::sub, out[6], in[0], in[1]);
                         kernels::map(Map::gelu, out[7], in[1]);
                       });
    }
}

TEST_CASE("what is far out or not a number comes out of halves as it does on the host") {
  if (!device_is_there()) return;
  for (const Dtype half : kHalves) {
    const Array x = Array::of(std::vector<float>{0.0f, -0.0f, 87, -87, 104, -104, 3e4f, -3e4f,
                                                 INFINITY, -INFINITY, NAN, -9, 9, -20, 20, 1e-4f})
                        .to(half)
                        .to(Dtype::f32);
    const Array one = Array::full({16}, 1);
    check_as_on_host(half, {x, one}, std::vector<Shape>(7, {16}), 0,
                     [](const std::vector<Array>& in, std::vector<Array>& out) {
                       kernels::map(Map::silu, out[0], in[0]);
                       kernels::map_grad(Map::silu, out[1], in[0], in[1]);
                       kernels::map(Map::gelu_tanh, out[2], in[0]);
                       kernels::map_grad(Map::gelu_tanh, out[3], in[0], in[1]);
                       kernels::swiglu(out[4], in[0], in[1]);
                       kernels::swiglu_grad(out[5], out[6], in[0], in[1], in[1]);
                     });
  }
}

TEST_CASE("rotations of halves are the host's in heads of any width, and of many rows") {
  if (!device_is_there()) return;
  struct Size {
    int64_t rows, half;
    int heads;
  };
  for (const Size& s : {Size{0, 8, 2}, Size{5, 4, 3}, Size{5, 8, 3}, Size{7, 12, 5},
                        Size{3, 32, 12}, Size{2, 64, 40}, Size{17000, 1, 1}})
    for (const Dtype half : kHalves) {
      CAPTURE(s.half);
      Drawn draw{.half = half};
      const Shape all{s.rows, 2 * s.half * s.heads};
      const Array position = random_index(s.rows, 0, 5000, draw.bits), turns = draw({s.half});
      check_as_on_host(half, {draw(all)}, {all, all}, 0,
                       [&](const std::vector<Array>& in, std::vector<Array>& out) {
                         kernels::rotate(out[0], in[0], position, turns, s.heads, false);
                         kernels::rotate(out[1], in[0], position, turns, s.heads, true);
                       });
    }
}

TEST_CASE("products that begin from a row are the host's in every type, also into wider rows") {
  if (!device_is_there()) return;
  std::mt19937 bits(5);
  const auto draw = [&](Shape shape) {
    return kernel_cases::random(std::move(shape), Dtype::f32, bits).to(Dtype::bf16).to(Dtype::f32);
  };
  for (const Dtype type : {Dtype::f32, Dtype::f64, Dtype::bf16})
    for (const int64_t rows : {0, 1, 6, 5000})
      for (const int64_t columns : {1, 7, 8, 16, 264}) {
        if (rows > 100 && columns > 16) continue;
        CAPTURE(rows);
        CAPTURE(columns);
        const Array a = draw({rows, 3}), b = draw({3, columns}), row = draw({columns});
        Array want = Array::full({rows, columns}, NAN, widened(type));
        kernels::gemm_from_row(want, a.to(want.dtype()), b.to(want.dtype()), row.to(want.dtype()));
        const auto there = [&](const Array& x) { return x.to(type).to(Device::cuda); };
        for (const int64_t begin : {0, 1, 8})
          for (const int64_t beside : {0, 8, 9}) {
            Array wide = Array::full({rows, begin + columns + beside}, NAN, {type, Device::cuda});
            Array got = wide.slice(1, begin, begin + columns);
            kernels::gemm_from_row(got, there(a), there(b), there(row));
            CHECK(apart(got, want) < (is_half(type) ? 1e-2 : 1e-5));
            int64_t nan = 0;
            for (const double x : wide.to_vector()) nan += std::isnan(x);
            CHECK(nan == rows * (begin + beside));
          }
      }
}
