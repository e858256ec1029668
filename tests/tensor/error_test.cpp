// Messages of errors: whatever stands in them, they can be shown.
#include "tensor/error.h"

#include <doctest/doctest.h>

#include "tensor/array.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::string message(const std::string& given) {
  return error_of([&] { fail("here: '{}'", given); });
}

}  // namespace

TEST_CASE("a message shows control characters and bytes that are not UTF-8 as their numbers") {
  CHECK(message("plain\ttext\nof two lines") == "here: 'plain\ttext\nof two lines'");
  CHECK(message("caf\u00e9 \u4f60 \U0001F680") == "here: 'caf\u00e9 \u4f60 \U0001F680'");
  CHECK(message(std::string("a\0b", 3)) == "here: 'a\\x00b'");
  CHECK(message("\x1b[31mred\r\x7f") == "here: '\\x1b[31mred\\x0d\\x7f'");
  CHECK(message("a\xff\xc3") == "here: 'a\\xff\\xc3'");
  CHECK(message("\xc2\x9b") == "here: '\\xc2\\x9b'");                    // a control of two bytes
  CHECK(message("\xc0\x80") == "here: '\\xc0\\x80'");                    // zero, spelled too long
  CHECK(message("\xed\xa0\x80") == "here: '\\xed\\xa0\\x80'");           // a surrogate
  CHECK(message("\xf4\x90\x80\x80") == "here: '\\xf4\\x90\\x80\\x80'");  // beyond U+10FFFF
}

TEST_CASE("of a very long message the middle is left out, between characters") {
  CHECK(message(std::string(9000, 'a')).size() == 9008);
  for (const char* part : {"a", "\u00e9", "\u4f60", "\U0001F680"}) {
    std::string given;
    while (given.size() < 1'000'000) given += part;
    const std::string said = message(given);
    CHECK(said.size() < 10'100);
    CHECK(said.starts_with(std::string("here: '") + part));
    CHECK(said.ends_with(std::string(part) + "'"));
    contains(said, " bytes left out) ... ");
    CHECK(said.find('\\') == std::string::npos);
  }
}

TEST_CASE("an array whose bytes cannot be counted is refused, with memory or without") {
  constexpr std::int64_t half = std::int64_t{1} << 32;
  for (const Shape& shape : {Shape{half, half}, Shape{0, half, half}, Shape{half, half, 0}}) {
    contains(error_of([&] { Array::shape_only(shape); }), "overflows");
    contains(error_of([&] { Array::empty(shape); }), "overflows");
  }
  CHECK(Array::shape_only({1 << 24, 1 << 24}).numel() == std::int64_t{1} << 48);
}
