// Files: atomic replacement and the half-precision conversions.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "nn/files/atomic.h"
#include "nn/files/half.h"
#include "tests/nn/folder.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

using namespace graft;
using namespace graft::testing;

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

}  // namespace

TEST_CASE("a file written atomically reads back whole and leaves nothing beside it") {
  const Folder folder;
  const auto path = folder / "a.txt";
  write_file_atomically(path, "first");
  write_file_atomically(path, std::string("sec\0nd", 6));
  CHECK(read_file(path) == std::string("sec\0nd", 6));
  AtomicFile file(path);
  file.write("one, ");
  file.write("two");
  CHECK(read_file(path) == std::string("sec\0nd", 6));
  file.commit();
  CHECK(read_file(path) == "one, two");
  CHECK_THROWS_AS(file.write("more"), Error);
  CHECK_THROWS_AS(file.commit(), Error);
  CHECK(folder.entries() == 1);
}

TEST_CASE("an atomic file dropped without commit leaves the old file and no other") {
  const Folder folder;
  write_file_atomically(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    CHECK(folder.entries() == 2);
  }
  CHECK(read_file(folder / "a") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("a disk that fills up costs neither the old file nor a leftover") {
  const Folder folder;
  const auto path = folder / "a";
  write_file_atomically(path, "old");
  std::string message;
  {
    const FileSizeLimit limit(1000);
    message = error_of([&] { write_file_atomically(path, std::string(5000, 'x')); });
  }
  contains(message, path.string());
  contains(message, "write: File too large");
  CHECK(read_file(path) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("writing where no file can stand names the file and the reason") {
  const Folder folder;
  const auto missing = folder / "no" / "a";
  contains(error_of([&] { write_file_atomically(missing, ""); }), "No such file or directory");
  contains(error_of([&] { write_file_atomically(missing, ""); }), missing.string());
  contains(error_of([&] { write_file_atomically(folder.path, ""); }), "a folder stands there");
  contains(error_of([&] { write_file_atomically("/dev/full", ""); }), "a device or pipe stands");
  contains(error_of([&] { write_file_atomically(folder / "", ""); }), "names no file");
  fs::create_symlink("self", folder / "self");
  contains(error_of([&] { write_file_atomically(folder / "self", ""); }), "circle");
  if (::geteuid() == 0) return;  // root may write anywhere
  fs::permissions(folder.path, fs::perms::owner_read | fs::perms::owner_exec);
  contains(error_of([&] { write_file_atomically(folder / "a", ""); }), "Permission denied");
  fs::permissions(folder.path, fs::perms::owner_all);
}

TEST_CASE("writing through a symbolic link replaces its target and keeps its permissions") {
  const Folder folder;
  fs::create_directory(folder / "deep");
  fs::create_symlink("deep/target", folder / "link");
  write_file_atomically(folder / "link", "made");
  CHECK(read_file(folder / "deep" / "target") == "made");
  fs::permissions(folder / "deep" / "target", fs::perms::owner_read | fs::perms::owner_write);
  write_file_atomically(folder / "link", "again");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_file(folder / "deep" / "target") == "again");
  CHECK(fs::status(folder / "deep" / "target").permissions() ==
        (fs::perms::owner_read | fs::perms::owner_write));
}

TEST_CASE("reading or mapping what is no readable file names it") {
  const Folder folder;
  contains(error_of([&] { read_file(folder / "none"); }), "No such file");
  contains(error_of([&] { read_file(folder.path); }), "it is a folder");
  contains(error_of([&] { MappedFile map(folder / "none"); }), (folder / "none").string());
  contains(error_of([&] { MappedFile map(folder.path); }), "it is a folder");
  contains(error_of([&] { MappedFile map("/dev/zero"); }), "it is a device or pipe");
}

TEST_CASE("a mapped file moves and outlives the file's replacement; an empty one maps to nothing") {
  const Folder folder;
  write_file_atomically(folder / "a", "abc");
  MappedFile map(folder / "a");
  MappedFile moved = std::move(map);
  write_file_atomically(folder / "a", "xyz");
  CHECK(map.bytes().empty());
  REQUIRE(moved.bytes().size() == 3);
  CHECK(moved.bytes()[0] == std::byte{'a'});
  moved = MappedFile(folder / "a");
  CHECK(moved.bytes()[0] == std::byte{'x'});
  write_file_atomically(folder / "empty", "");
  CHECK(MappedFile(folder / "empty").bytes().empty());
  CHECK(read_file(folder / "empty").empty());
}

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
