#include "tensor/philox.h"

#include <doctest/doctest.h>

#include <set>

using namespace graft;

TEST_CASE("philox gives the published known answers") {
  // Random123, kat_vectors: philox4x32-10.
  const auto hold = [](Counter c, Key k, Counter want) { CHECK(philox(c, k) == want); };
  const std::uint32_t ones = 0xFFFFFFFFu;
  hold({0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  hold({ones, ones, ones, ones}, {ones, ones},
       {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  hold({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u},
       {0xd16cfe09u, 0x94fdcceb, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("philox works in constant expressions") {
  static_assert(philox({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5u);
  static_assert(uniform(0u) == 0.0f);
  static_assert(uniform(0xFFFFFFFFu) < 1.0f);
}

TEST_CASE("an address puts every part of a place in a word of its own") {
  CHECK(address(4, 3, 2, 1) == Counter{1, 2, 3, 4});
}

TEST_CASE("stream ids of different names differ and a name may be built in two parts") {
  std::set<std::uint32_t> seen;
  for (const char* text : {"", "a", "b", "ab", "ba", "dropout", "dropout2", "init.weight"})
    seen.insert(stream_id(text));
  CHECK(seen.size() == 8);
  CHECK(stream_id("b", stream_id("a")) == stream_id("ab"));
}

TEST_CASE("uniform numbers lie in [0, 1) with the moments of the uniform distribution") {
  const int n = 200000;
  double sum = 0, squares = 0, lag = 0, before = 0.5;
  for (int i = 0; i < n; ++i) {
    const double u = uniform(Key{1, 2}, 3, i);
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    sum += u, squares += u * u, lag += (u - 0.5) * (before - 0.5);
    before = u;
  }
  // Five standard errors each.
  CHECK(std::abs(sum / n - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
  CHECK(std::abs(squares / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
  CHECK(std::abs(lag / n) < 5 * (1.0 / 12) / std::sqrt(n));
}

TEST_CASE("uniform bits fill 16 bins evenly") {
  int bin[16] = {};
  const int n = 1 << 16;
  for (std::uint32_t i = 0; i < n / 4; ++i)
    for (std::uint32_t bits : philox(address(7, i, 0, 0), {5, 6}))
      ++bin[static_cast<int>(uniform(bits) * 16)];
  double chi = 0;
  for (int b : bin) chi += (b - n / 16.0) * (b - n / 16.0) / (n / 16.0);
  CHECK(chi < 50);  // 15 degrees of freedom: beyond the 99.999th percentile
}

TEST_CASE("normal numbers have the moments of the standard normal distribution") {
  const int n = 200000;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, pairs = 0, before = 0;
  for (int i = 0; i < n; ++i) {
    const double z = normal(Key{3, 0}, 11, i);
    m1 += z, m2 += z * z, m3 += z * z * z, m4 += z * z * z * z;
    if (i % 2) pairs += z * before;
    before = z;
  }
  CHECK(std::abs(m1 / n) < 5 * std::sqrt(1.0 / n));
  CHECK(std::abs(m2 / n - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::abs(m3 / n) < 5 * std::sqrt(15.0 / n));
  CHECK(std::abs(m4 / n - 3) < 5 * std::sqrt(96.0 / n));
  CHECK(std::abs(pairs / (n / 2)) < 5 * std::sqrt(2.0 / n));
}

TEST_CASE("a number depends on key, stream and index, and on nothing drawn before") {
  const double z = normal(Key{1, 2}, 3, 4);
  CHECK(normal(Key{1, 2}, 3, 5) != z);
  CHECK(normal(Key{1, 2}, 4, 4) != z);
  CHECK(normal(Key{1, 3}, 3, 4) != z);
  CHECK(normal(Key{2, 2}, 3, 4) != z);
  CHECK(normal(Key{1, 2}, 3, 4) == z);
  const std::uint64_t far = std::uint64_t{1} << 40;  // indices beyond 32 bits do not wrap
  CHECK(uniform(Key{1, 2}, 3, far) != uniform(Key{1, 2}, 3, 0));
}
