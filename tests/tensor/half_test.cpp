// Half precision: the conversions, arrays that are stored so, and the kernels that read them.
#include "tensor/half.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "tensor/kernels.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

using namespace graft;

namespace {

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }
float from_bits(std::uint32_t b) { return std::bit_cast<float>(b); }

// The value of an f16 by the definition of binary16, in double.
double defined_f16(std::uint16_t h) {
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  const double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                      : exponent     ? std::ldexp(1024 + mantissa, exponent - 25)
                                     : std::ldexp(mantissa, -24);
  return h & 0x8000 ? -size : size;
}

// All 65,536 halves, in rows of 256.
Array all_halves(Dtype dtype) {
  Array a = Array::empty({256, 256}, dtype);
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<std::uint16_t>(i);
    std::memcpy(a.storage()->data + 2 * i, &h, 2);
  }
  return a;
}

// As all_halves(), widened one by one.
Array all_widened(Dtype dtype) {
  Array a = Array::empty({256, 256});
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<std::uint16_t>(i);
    a.data<float>()[i] = dtype == Dtype::f16 ? f32_from_f16(h) : f32_from_bf16(h);
  }
  return a;
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

constexpr Dtype kHalves[] = {Dtype::f16, Dtype::bf16};

}  // namespace

TEST_CASE("every f16 has the value of its definition and survives the way there and back") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<std::uint16_t>(i);
    const float x = f32_from_f16(h);
    const double want = defined_f16(h);
    const bool quieted = std::isnan(want) && f16_from_f32(x) == (h | 0x0200);
    const bool same = std::isnan(want) ? std::isnan(x) && quieted
                                       : x == want && std::signbit(x) == std::signbit(want) &&
                                             f16_from_f32(x) == h;
    wrong += !same;
  }
  CHECK(wrong == 0);
}

TEST_CASE("between neighbouring f16 values rounding goes to the nearest, ties to the even one") {
  int wrong = 0;
  for (std::uint16_t h = 0; h < 0x7c00; ++h) {  // up to and beyond the largest: infinity is 65536
    const double low = defined_f16(h), high = h == 0x7bff ? 65536.0 : defined_f16(h + 1);
    const auto tie = static_cast<float>((low + high) / 2);  // exact
    const std::uint16_t even = h & 1 ? h + 1 : h, up = h + 1;
    for (const std::uint16_t sign : {0, 0x8000}) {
      const float s = sign ? -1.0f : 1.0f;
      wrong += f16_from_f32(s * tie) != (sign | even);
      wrong += f16_from_f32(s * std::nextafter(tie, 0.0f)) != (sign | h);
      wrong += f16_from_f32(s * std::nextafter(tie, INFINITY)) != (sign | up);
    }
  }
  CHECK(wrong == 0);
  CHECK(f16_from_f32(std::numeric_limits<float>::max()) == 0x7c00);
  CHECK(f16_from_f32(-INFINITY) == 0xfc00);
  CHECK(f16_from_f32(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(f16_from_f32(-0.0f) == 0x8000);
  static_assert(f16_from_f32(1.0f) == 0x3c00 && f32_from_f16(0xc000) == -2.0f);
}

TEST_CASE("every bf16 survives the way to f32 and back, and rounding is to nearest even") {
  int wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<std::uint16_t>(i);
    const float x = f32_from_bf16(h);
    if ((i & 0x7fff) > 0x7f80) {
      wrong += !std::isnan(x) || bf16_from_f32(x) != (h | 0x40);
      wrong += !std::isnan(f32_from_bf16(bf16_from_f32(from_bits(bits(x) | 0xffff))));
      continue;
    }
    wrong += bits(x) != i << 16 || bf16_from_f32(x) != h;
    if ((i & 0x7fff) == 0x7f80) continue;  // nothing lies beyond infinity
    const auto tie = i << 16 | 0x8000;
    wrong += bf16_from_f32(from_bits(tie)) != (i & 1 ? i + 1 : i);
    wrong += bf16_from_f32(from_bits(tie - 1)) != i;
    wrong += bf16_from_f32(from_bits(tie + 1)) != i + 1;
  }
  CHECK(wrong == 0);
  CHECK(bf16_from_f32(from_bits(0x7f800001)) == 0x7fc0);  // a NaN whose upper half is infinity's
  static_assert(bf16_from_f32(1.0f) == 0x3f80 && f32_from_bf16(0xc000) == -2.0f);
}

#ifdef __F16C__
TEST_CASE("f16 conversions agree with the processor's own, bit for bit") {
  int wrong = 0;
  for (std::uint64_t b = 0; b < 1ull << 32; b += 997) {
    const float x = from_bits(static_cast<std::uint32_t>(b));
    wrong += f16_from_f32(x) != _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
  }
  for (std::uint32_t h = 0; h < 65536; ++h)
    wrong += bits(f32_from_f16(static_cast<std::uint16_t>(h))) != bits(_cvtsh_ss(h));
  CHECK(wrong == 0);
}
#endif

TEST_CASE("converting half-precision spans needs equal lengths") {
  const std::array<float, 3> x{1.0f, -0.5f, 65504.0f};
  std::array<std::uint16_t, 3> h{};
  std::array<float, 3> back{};
  f16_from_f32(x, h);
  f32_from_f16(h, back);
  CHECK(back == x);
  bf16_from_f32(x, h);
  f32_from_bf16(h, back);
  CHECK(back == std::array<float, 3>{1.0f, -0.5f, 65536.0f});
  CHECK_THROWS_AS(f16_from_f32(x, std::span(h).first(2)), Error);
  CHECK_THROWS_AS(f32_from_bf16(h, std::span(back).first(2)), Error);
}

TEST_CASE("an array of halves widens to what each of its numbers is") {
  for (const Dtype dtype : kHalves) {
    CAPTURE(name(dtype));
    const Array halves = all_halves(dtype), want = all_widened(dtype);
    CHECK(halves.bytes() == 131072);
    CHECK(same_bits(halves.to(Dtype::f32), want));
    CHECK(same_bits(halves.transpose().to(Dtype::f32), want.transpose().clone()));
    CHECK(same_bits(halves.slice(1, 3, 7).own_copy(), want.slice(1, 3, 7).clone()));
    CHECK(halves.at(0x3c01) == want.at(0x3c01));
    CHECK(Array::shape_only({2, 3}, dtype).own_copy().dtype() == Dtype::f32);
  }
}

TEST_CASE("an array of halves is filled, narrowed and copied like any other") {
  for (const Dtype dtype : kHalves) {
    CAPTURE(name(dtype));
    Array a = Array::full({3, 4}, 1.5, dtype);
    CHECK(a.dtype() == dtype);
    CHECK(a.bytes() == 24);
    a.slice(1, 1, 2).fill(-0.25);
    CHECK(a.to(Dtype::f64).to_vector() ==
          std::vector<double>{1.5, -0.25, 1.5, 1.5, 1.5, -0.25, 1.5, 1.5, 1.5, -0.25, 1.5, 1.5});
    const float x = 1 + 0x1p-10f;  // an f16, but no bf16
    CHECK(Array::of<float>({x}).to(dtype).item() == (dtype == Dtype::f16 ? x : 1));
    CHECK(Array::of<float>({7.0f}).to(dtype).to(Dtype::i32).item() == 7);
    CHECK(Array::full({2}, 3, Dtype::f16).to(Dtype::bf16).to_vector() == std::vector<double>{3, 3});
    CHECK(same_bits(a, a.transpose().clone().transpose()));
    CHECK(!same_bits(a, a.to(Dtype::f32)));
  }
}

TEST_CASE("what is stored in half precision has the hash of what it widens to") {
  for (const Dtype dtype : kHalves) {
    const Array halves = all_halves(dtype), wide = all_widened(dtype);
    CHECK(halves.hash() == wide.hash());
    CHECK(halves.transpose().hash() == wide.transpose().hash());
    CHECK(halves.slice(0, 2, 3).reshape({256}).hash() == wide.slice(0, 2, 3).reshape({256}).hash());
    CHECK(Array::full({}, 2, dtype).hash() == Array::full({}, 2).hash());
    CHECK(Array::zeros({0, 3}, dtype).hash() == Array::zeros({0, 3}).hash());
  }
  // More than one piece is hashed: 3,000,000 numbers.
  const Array large = Array::full({3000, 1000}, 0.5, Dtype::f16);
  CHECK(large.hash() == large.to(Dtype::f32).hash());
  CHECK(large.hash() != Array::full({3000, 1000}, 0.25).hash());
}

TEST_CASE("borrowed memory is read, and writing to it is an error") {
  const auto owner = std::make_shared<std::vector<float>>(6, 1.0f);
  Array a = Array::borrowed(owner->data(), {2, 3}, Dtype::f32, owner);
  CHECK(a.to_vector() == std::vector<double>(6, 1));
  CHECK(has(error_of([&] { a.fill(2); }), "f32 [2, 3] lies in a mapped file"));
  CHECK(has(error_of([&] { a.copy_from(Array::zeros({2, 3})); }), "is not written; copy it"));
  CHECK(has(error_of([&] { kernels::axpy(a, Array::zeros({2, 3}), 1); }), "is not written"));
  Array copy = a.own_copy();
  copy.fill(2);
  CHECK(owner->front() == 1);
}

TEST_CASE("a table of halves is looked up as the f32 it widens to") {
  std::mt19937 draw(3);
  std::vector<std::int32_t> rows{-1, 0, 255};
  for (int i = 0; i < 997; ++i) rows.push_back(static_cast<std::int32_t>(draw() % 256));
  const Array row = Array::of(rows);
  for (const Dtype dtype : kHalves) {
    Array got = Array::full({1000, 256}, NAN), want = Array::full({1000, 256}, NAN);
    kernels::gather(got, all_halves(dtype), row);
    kernels::gather(want, all_widened(dtype), row);
    CHECK(same_bits(got, want));
  }
}

TEST_CASE("kernels that do not take half precision say so") {
  Array y = Array::zeros({4}), wide = Array::zeros({2, 2}, Dtype::f64);
  const Array half = Array::zeros({4}, Dtype::f16), square = Array::zeros({2, 2}, Dtype::bf16);
  CHECK(has(error_of([&] { kernels::softmax(y, half); }), "f16 [4] is for storage; widen it"));
  CHECK(has(error_of([&] { kernels::axpy(y, half, 1); }), "holds f16, read as f32"));
  CHECK(has(error_of([&] { kernels::gemm(wide, wide, square, 1, 0); }),
            "gemm: f64 [2, 2] with bf16"));
  Array c = Array::zeros({2, 2});
  CHECK(has(error_of([&] { kernels::gemm(c, square, c, 1, 0); }), "gemm: a is bf16, c f32"));
  const Array table = Array::zeros({4, 2}, Dtype::f16), row = Array::of<std::int32_t>({1, 0});
  CHECK(has(error_of([&] { kernels::gather(wide, table, row); }), "gather: f64 [2, 2] with f16"));
}
