#include "tensor/array.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

using namespace graft;

namespace {

Array counting(Shape shape) {
  std::vector<float> values(count(shape));
  std::iota(values.begin(), values.end(), 0.0f);
  return Array::of(values, std::move(shape));
}

using Values = std::vector<double>;

// The message of the Error that f throws, or "" when it throws none.
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

}  // namespace

TEST_CASE("an array without numbers is not defined") {
  const Array none;
  CHECK(!none.defined());
  CHECK(!none.has_storage());
  CHECK(none.numel() == 0);
}

TEST_CASE("an array of one number has no dimensions and one element") {
  const Array one = Array::full({}, 2.5);
  CHECK(one.ndim() == 0);
  CHECK(one.numel() == 1);
  CHECK(one.contiguous());
  CHECK(one.item() == 2.5);
}

TEST_CASE("a shape is a list of up to eight sizes") {
  Shape s{2, 3};
  CHECK(s == Shape(std::vector<std::int64_t>{2, 3}));
  CHECK(s != Shape{2, 3, 1});
  CHECK(s != Shape{2, 4});
  CHECK(Shape(2, 5) == Shape{5, 5});
  CHECK(Shape(s.begin() + 1, s.end()) == Shape{3});
  s.push_back(4);
  s.erase(s.begin());
  CHECK(s == Shape{3, 4});
  CHECK(s.front() == 3);
  CHECK(s.back() == 4);
  CHECK(Shape().empty());
  CHECK(Shape(8, 1).size() == 8);
  CHECK(has(error_of([] { Shape(2, 1)[2] = 1; }), "no dimension 2 of 2"));
  CHECK(has(error_of([] { Shape().back(); }), "of 0"));
  CHECK(has(error_of([] { Array::zeros({2, 2}).slice(-3, 0, 1); }), "no dimension -1"));
  CHECK(has(error_of([] { Shape(9, 1); }), "9 dimensions; there are at most 8"));
  CHECK(has(error_of([] { Shape(std::vector<std::int64_t>(9, 1)); }), "9 dimensions"));
  CHECK(has(error_of([] { Shape(8, 1).push_back(1); }), "9 dimensions"));
}

TEST_CASE("zeros and full set every element in each dtype") {
  for (Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::i32}) {
    CHECK(Array::zeros({2, 3}, dtype).to_vector() == Values(6, 0));
    CHECK(Array::full({2, 3}, 7, dtype).to_vector() == Values(6, 7));
    CHECK(Array::full({2, 3}, 7, dtype).bytes() == 6 * size_of(dtype));
  }
}

TEST_CASE("an empty array has a shape and no elements") {
  const Array none = Array::zeros({3, 0, 2});
  CHECK(none.defined());
  CHECK(none.numel() == 0);
  CHECK(none.contiguous());
  CHECK(none.to_vector().empty());
  CHECK(none.clone().shape() == Shape{3, 0, 2});
  CHECK(same_bits(none, none.clone()));
}

TEST_CASE("dimensions count from either end and an unknown one is an error") {
  const Array a = counting({2, 3, 4});
  CHECK(a.dim(0) == 2);
  CHECK(a.dim(-1) == 4);
  CHECK(a.stride(-3) == 12);
  CHECK(has(error_of([&] { a.dim(3); }), "no dimension 3 in shape [2, 3, 4]"));
  CHECK_THROWS_AS(a.stride(-4), Error);
}

TEST_CASE("reshape is a view, infers one size, and refuses what does not fit") {
  Array a = counting({2, 6});
  Array b = a.reshape({3, -1});
  CHECK(b.shape() == Shape{3, 4});
  CHECK(b.storage() == a.storage());
  b.data<float>()[5] = 99;
  CHECK(a.at(5) == 99);
  CHECK(has(error_of([&] { a.reshape({5, 2}); }), "[2, 6] does not fit into [5, 2]"));
  CHECK_THROWS_AS(a.reshape({5, -1}), Error);
  CHECK(has(error_of([&] { a.transpose().reshape({12}); }), "not contiguous"));
}

TEST_CASE("slice is a view of part of a dimension") {
  Array a = counting({4, 3});
  const Array rows = a.slice(0, 1, 3);
  CHECK(rows.to_vector() == Values{3, 4, 5, 6, 7, 8});
  CHECK(rows.contiguous());
  const Array columns = a.slice(-1, 1, 2);
  CHECK(columns.shape() == Shape{4, 1});
  CHECK(!columns.contiguous());
  CHECK(columns.to_vector() == Values{1, 4, 7, 10});
  CHECK(rows.slice(0, 1, 2).slice(1, 2, 3).item() == 8);
  CHECK(a.slice(0, 2, 2).numel() == 0);
  CHECK(has(error_of([&] { a.slice(0, 2, 5); }), "[2, 5) of dimension 0 in [4, 3]"));
  CHECK_THROWS_AS(a.slice(0, -1, 2), Error);
  CHECK_THROWS_AS(a.slice(2, 0, 1), Error);
}

TEST_CASE("transpose swaps two dimensions and a copy of it is contiguous") {
  const Array a = counting({2, 3});
  const Array t = a.transpose();
  CHECK(t.shape() == Shape{3, 2});
  CHECK(t.to_vector() == Values{0, 3, 1, 4, 2, 5});
  CHECK(t.at(1) == 3);
  const Array copy = t.as_contiguous();
  CHECK(copy.contiguous());
  CHECK(copy.storage() != a.storage());
  CHECK(same_bits(copy, t));
  CHECK(same_bits(t.transpose(), a));
  CHECK(counting({2, 3, 4}).transpose(0, 2).shape() == Shape{4, 3, 2});
  CHECK_THROWS_AS(a.transpose(0, 2), Error);
}

TEST_CASE("expand repeats without copying") {
  const Array row = counting({3});
  const Array many = row.expand({2, 3});
  CHECK(many.to_vector() == Values{0, 1, 2, 0, 1, 2});
  CHECK(many.stride(0) == 0);
  CHECK(many.storage() == row.storage());
  CHECK(counting({2, 1}).expand({2, 3}).to_vector() == Values{0, 0, 0, 1, 1, 1});
  CHECK_THROWS_AS(row.expand({2, 4}), Error);
  CHECK_THROWS_AS(counting({2, 3}).expand({3}), Error);
}

TEST_CASE("data checks the dtype and the storage") {
  Array a = counting({2});
  CHECK(has(error_of([&] { a.data<double>(); }), "holds f32, read as f64"));
  Array shape = Array::shape_only({2, 2});
  CHECK(shape.bytes() == 16);
  CHECK(has(error_of([&] { shape.data<float>(); }), "[2, 2] has a shape but no storage"));
  CHECK(shape.to(Dtype::f64).bytes() == 32);
}

TEST_CASE("values convert between dtypes") {
  const Array a = Array::of<float>({-1.75f, 0, 3.5f});
  CHECK(a.to(Dtype::i32).to_vector() == Values{-1, 0, 3});
  CHECK(a.to(Dtype::f64).to_vector() == a.to_vector());
  CHECK(a.to(Dtype::f32).storage() == a.storage());
}

TEST_CASE("filling with 0 and with -0 writes each as it is") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    Array a = Array::full({2, 3}, 7, dtype);
    Array part = a.slice(0, 1, 2);
    part.fill(0);
    CHECK(a.to_vector() == std::vector<double>{7, 7, 7, 0, 0, 0});
    CHECK_FALSE(std::signbit(part.at(0)));
    part.fill(-0.0);
    CHECK(std::signbit(part.at(2)));
    Array column = a.slice(1, 0, 1);  // not contiguous
    column.fill(0);
    CHECK(a.at(0) == 0);
    CHECK(a.at(1) == 7);
  }
}

TEST_CASE("copying and filling reach only the viewed elements") {
  Array a = Array::zeros({3, 3});
  a.slice(1, 1, 2).fill(5);
  CHECK(a.to_vector() == Values{0, 5, 0, 0, 5, 0, 0, 5, 0});
  Array corner = a.slice(0, 1, 3).slice(1, 0, 2);
  corner.copy_from(counting({2, 2}).transpose());
  CHECK(a.to_vector() == Values{0, 5, 0, 0, 2, 0, 1, 3, 0});
  CHECK(has(error_of([&] { corner.copy_from(counting({4})); }), "[4] into [2, 2]"));
}

TEST_CASE("of checks the count, item and at check the place") {
  CHECK(has(error_of([] { Array::of<float>({1, 2, 3}, {2, 2}); }), "3 values for shape [2, 2]"));
  CHECK_THROWS_AS(counting({2}).item(), Error);
  CHECK_THROWS_AS(counting({2}).at(2), Error);
  CHECK_THROWS_AS(Array::zeros({2, -1}), Error);
}

TEST_CASE("hash and same_bits follow shape, dtype and bits, not the layout") {
  const Array a = counting({2, 3});
  CHECK(a.hash() == a.clone().hash());
  CHECK(a.transpose().hash() == a.transpose().clone().hash());
  CHECK(a.hash() != a.reshape({3, 2}).hash());
  CHECK(a.hash() != a.to(Dtype::f64).hash());
  const Array zero = Array::full({1}, 0.0), minus = Array::full({1}, -0.0);
  CHECK(zero.hash() != minus.hash());
  CHECK(!same_bits(zero, minus));
  CHECK(same_bits(Array::full({1}, NAN), Array::full({1}, NAN)));
}

TEST_CASE("broadcast gives the common shape or names both") {
  CHECK(broadcast({2, 3}, {3}, "add") == Shape{2, 3});
  CHECK(broadcast({2, 1}, {1, 3}, "add") == Shape{2, 3});
  CHECK(broadcast({}, {4}, "add") == Shape{4});
  CHECK(broadcast({0, 1}, {5}, "add") == Shape{0, 5});
  CHECK(has(error_of([] {
              broadcast({2, 3}, {2}, "add");
            }),
            "add: shapes [2, 3] and [2] do not broadcast"));
}

TEST_CASE("borrowed memory keeps its owner alive and is not counted") {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  std::weak_ptr<std::vector<float>> watch = owner;
  const std::size_t before = pool::live_bytes();
  {
    const void* bytes = owner->data();
    const Array a = Array::borrowed(bytes, {2, 2}, Dtype::f32, std::move(owner));
    CHECK(a.to_vector() == Values{1, 2, 3, 4});
    CHECK(pool::live_bytes() == before);
    CHECK(!watch.expired());
  }
  CHECK(watch.expired());
}

TEST_CASE("the pool counts live and peak bytes exactly") {
  const std::size_t before = pool::live_bytes();
  pool::reset_peak();
  {
    const Array a = Array::empty({1000});
    const Array view = a.slice(0, 0, 10);  // no bytes of its own
    CHECK(pool::live_bytes() == before + 4000);
    {
      const Array b = Array::empty({3}, Dtype::f64);
      CHECK(pool::live_bytes() == before + 4024);
    }
    CHECK(pool::live_bytes() == before + 4000);
  }
  CHECK(pool::live_bytes() == before);
  CHECK(pool::peak_bytes() == before + 4024);
  pool::reset_peak();
  CHECK(pool::peak_bytes() == before);
}

#ifndef GRAFT_SANITIZED  // whose own allocator ends the program
TEST_CASE("where memory is exhausted the message says who holds how much") {
  constexpr std::int64_t kTooMuch = std::int64_t{1} << 46;
  const auto message = [&] {
    try {
      (void)Array::empty({kTooMuch});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto holds = [&](const std::string& part) {
    CAPTURE(part);
    CHECK(message().find(part) != std::string::npos);
  };
  holds(fmt::format("memory: cannot get {} bytes on cpu; in use are ", 4 * kTooMuch));
  {
    Array a, b;
    {
      const pool::Purpose outer("a test's weights");
      a = Array::empty({1000});
      const pool::Purpose inner("something else");
      b = Array::empty({500});
    }
    const Array c = Array::empty({25});
    holds("a test's weights 6000");
    holds("rows and gradients ");
    CHECK(message().find("something else") == std::string::npos);
    a = {};
    holds("a test's weights 2000");
  }
  CHECK(message().find("a test's") == std::string::npos);
}
#endif

TEST_CASE("the pool hands a returned block out again, and blocks are aligned") {
  const void* first = nullptr;
  {
    const Array a = Array::empty({12345});
    first = a.data<float>();
  }
  const Array b = Array::empty({12345});
  CHECK(b.data<float>() == first);
  for (int n : {1, 3, 17, 127, 129, 1000, 100001})
    CHECK(reinterpret_cast<std::uintptr_t>(Array::empty({n}).data<float>()) % 64 == 0);
  pool::trim();
}
