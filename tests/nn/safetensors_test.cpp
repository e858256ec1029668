// The safetensors format: round trips, exact bytes, and hostile files, each refused with one Error.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "nn/files/safetensors.h"
#include "tensor/half.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

// A safetensors file of the given header text, its length field and `data` zero bytes.
std::string file_of(const std::string& header, std::size_t data = 0) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data, '\0');
}

// What opening such a file answers.
std::string opening(const std::string& bytes) {
  const Folder folder;
  write_file_atomically(folder / "hostile.safetensors", bytes);
  auto message = error_of([&] { SafetensorsReader reader(folder / "hostile.safetensors"); });
  if (message != "(no error)") contains(message, "hostile.safetensors");
  return message;
}

}  // namespace

TEST_CASE("a safetensors file reads back as it was written, in every type") {
  const Folder folder;
  const auto path = folder / "a.safetensors";
  const std::vector<float> x{0.0f, -1.5f, 65504.0f, 1e-7f, 3.0f, -0.25f};
  const std::vector<std::int64_t> ids{1, -2, 1ll << 40};
  const std::array<std::byte, 3> raw{std::byte{1}, std::byte{0}, std::byte{255}};
  SafetensorsWriter writer;
  writer.metadata["note"] = "r\u00e9sum\u00e9 \"quoted\"\n";
  writer.add("u8", FileDtype::u8, {3}, raw);
  writer.add("bool", FileDtype::bool_, {2}, std::span(raw).first(2));
  writer.add("ids", FileDtype::i64, {3}, std::as_bytes(std::span(ids)));
  for (const auto dtype : {FileDtype::f64, FileDtype::f32, FileDtype::f16, FileDtype::bf16})
    writer.add(fmt::format("x.{}", name_of(dtype)), dtype, {2, 3}, x);
  writer.add("none", FileDtype::f32, {0, 4}, std::span<const float>());
  writer.add("one", FileDtype::f32, {}, std::span(x).first(1));
  writer.write(path);

  const SafetensorsReader reader(path);
  CHECK(reader.tensors().size() == 9);
  CHECK(reader.metadata() == writer.metadata);
  CHECK(reader.at("x.F16").shape == Shape{2, 3});
  CHECK(reader.at("one").shape.empty());
  CHECK(std::memcmp(reader.bytes("ids").data(), ids.data(), 24) == 0);
  CHECK(std::memcmp(reader.bytes("u8").data(), raw.data(), 3) == 0);
  for (const auto& [name, info] : reader.tensors()) CHECK(info.begin % size_of(info.dtype) == 0);

  std::vector<float> y(6), want16(6), want_b16(6);
  for (std::size_t i = 0; i < 6; ++i) {
    want16[i] = f32_from_f16(f16_from_f32(x[i]));
    want_b16[i] = f32_from_bf16(bf16_from_f32(x[i]));
  }
  reader.read_f32("x.F64", y);
  CHECK(y == x);
  reader.read_f32("x.F32", y);
  CHECK(y == x);
  reader.read_f32("x.F16", y);
  CHECK(y == want16);
  reader.read_f32("x.BF16", y);
  CHECK(y == want_b16);
  reader.read_f32("none", {});
  contains(error_of([&] { reader.read_f32("ids", std::span(y).first(3)); }), "\"ids\" is I64");
  contains(error_of([&] { reader.read_f32("one", y); }), "1 elements; room given for 6");
}

TEST_CASE("the safetensors bytes are those of the format's reference implementation") {
  const Folder folder;
  const std::array<float, 2> x{1.0f, 2.0f};
  SafetensorsWriter writer;
  writer.add("b", FileDtype::f16, {1}, std::span(x).first(1));
  writer.add("c", FileDtype::f32, {2}, x);
  writer.add("a", FileDtype::f32, {1, 1}, std::span(x).last(1));
  writer.write(folder / "a");
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]},"
      "\"c\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]},"
      "\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[12,14]}}";
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  const std::string data("\0\0\0\x40\0\0\x80\x3f\0\0\0\x40\0\x3c", 14);
  CHECK(read_file(folder / "a") == file_of(header + padding) + data);
}

TEST_CASE("bytes that are made piece by piece while a safetensors file is written are the file's") {
  const Folder folder;
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  const auto bytes = std::as_bytes(std::span(x));
  SafetensorsWriter whole, pieces, short_of;
  whole.add("a", FileDtype::f32, {2, 3}, x);
  whole.add("b", FileDtype::f16, {6}, x);
  pieces.add("a", FileDtype::f32, {2, 3}, [&](const SafetensorsWriter::Take& take) {
    take(bytes.first(7));
    take(bytes.subspan(7));
  });
  pieces.add("b", FileDtype::f16, {6}, x);
  whole.write(folder / "whole");
  pieces.write(folder / "pieces");
  CHECK(read_file(folder / "whole") == read_file(folder / "pieces"));
  short_of.add("a", FileDtype::f32, {2, 3},
               [&](const SafetensorsWriter::Take& take) { take(bytes.first(20)); });
  contains(error_of([&] { short_of.write(folder / "whole"); }),
           "tensor \"a\": F32 [2, 3] needs 24 bytes, 20 were made");
  CHECK(read_file(folder / "whole") == read_file(folder / "pieces"));
  CHECK(folder.entries() == 2);
  contains(error_of([&] {
             short_of.add("c", FileDtype::f32, {1ll << 62, 1ll << 62}, SafetensorsWriter::Make());
           }),
           "do not overflow");
}

TEST_CASE("an array of a safetensors file lies in it, and outlives its reader") {
  const Folder folder;
  const std::vector<float> x{1, -2.5f, 3};
  SafetensorsWriter writer;
  for (const auto dtype : {FileDtype::f64, FileDtype::f32, FileDtype::f16, FileDtype::bf16})
    writer.add(std::string(name_of(dtype)), dtype, {3}, x);
  writer.add("ids", FileDtype::i32, {3}, std::as_bytes(std::span(x)));
  writer.write(folder / "a");
  std::vector<Array> arrays;
  {
    const SafetensorsReader reader(folder / "a");
    for (const char* name : {"F64", "F32", "F16", "BF16"}) arrays.push_back(reader.array(name));
    contains(error_of([&] { reader.array("ids"); }), "\"ids\" is I32; need a floating type");
  }
  const Dtype types[] = {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16};
  for (int i = 0; i < 4; ++i) {
    CHECK(arrays[i].dtype() == types[i]);
    CHECK(arrays[i].to_vector() == std::vector<double>{1, -2.5, 3});
    CHECK(arrays[i].storage()->keepalive != nullptr);
  }
}

TEST_CASE("a failed safetensors write keeps the old file") {
  const Folder folder;
  const auto path = folder / "a";
  SafetensorsWriter writer;
  const std::vector<float> x(10000, 1.0f);
  writer.add("x", FileDtype::f32, {10000}, x);
  write_file_atomically(path, "old");
  {
    const FileSizeLimit limit(4096);
    CHECK_THROWS_AS(writer.write(path), Error);
  }
  CHECK(read_file(path) == "old");
  CHECK(folder.entries() == 1);
  writer.metadata["broken"] = "\xff\xfe";  // not UTF-8
  contains(error_of([&] { writer.write(path); }), "cannot write the safetensors header");
  CHECK(read_file(path) == "old");
}

TEST_CASE("the safetensors writer refuses names and shapes that the format cannot hold") {
  SafetensorsWriter writer;
  const std::array<float, 2> x{};
  writer.add("x", FileDtype::f32, {2}, x);
  const auto adding = [&](const char* name, FileDtype dtype, std::vector<std::int64_t> shape) {
    return error_of([&] { writer.add(name, dtype, shape, std::span<const float>(x)); });
  };
  contains(adding("x", FileDtype::f32, {2}), "tensor \"x\" was added twice");
  contains(adding("__metadata__", FileDtype::f32, {2}), "cannot be named");
  contains(adding("y", FileDtype::f32, {3}), "F32 [3] needs 12 bytes, got values for 8");
  contains(adding("y", FileDtype::f32, {-2}), "sizes >= 0");
  contains(adding("y", FileDtype::f32, {1ll << 40, 1ll << 40}), "overflow");
  contains(adding("y", FileDtype::i32, {2}), "cannot be stored as I32");
}

TEST_CASE("an unknown tensor name lists the nearest ones") {
  const Folder folder;
  SafetensorsWriter writer;
  const float x = 1;
  for (const char* name : {"model.h.0.attn.weight", "model.h.0.mlp.weight", "lm_head", "far.away"})
    writer.add(name, FileDtype::f32, {}, std::span(&x, 1));
  writer.write(folder / "a");
  const SafetensorsReader reader(folder / "a");
  contains(error_of([&] { reader.at("h.0.mlp.weight"); }), "nearest of its 4: \"model.h.0.mlp.wei");
  contains(error_of([&] { reader.bytes("lm_haed"); }), "nearest of its 4: \"lm_head\"");
  SafetensorsWriter().write(folder / "empty");
  const SafetensorsReader empty(folder / "empty");
  contains(error_of([&] { empty.at("x"); }), "holds no tensors");
}

TEST_CASE("a truncated safetensors file is refused at every length") {
  const Folder folder;
  SafetensorsWriter writer;
  const std::array<float, 3> x{1, 2, 3};
  writer.add("x", FileDtype::f32, {3}, x);
  writer.write(folder / "a");
  const std::string whole = read_file(folder / "a");
  for (std::size_t length = 0; length < whole.size(); ++length)
    CHECK(opening(whole.substr(0, length)) != "(no error)");
  CHECK(opening(whole) == "(no error)");
  contains(opening(whole + "x"), "1 bytes at its end belong to no tensor");
}

TEST_CASE("a safetensors header that is no header is refused") {
  contains(opening(""), "0 bytes; a safetensors file begins with");
  contains(opening(std::string(8, '\xff')), "should take 18446744073709551615 bytes");
  contains(opening(std::string(8, '\0')), "does not begin with '{'");
  contains(opening(file_of("[]")), "does not begin with '{'");
  contains(opening(file_of(" {}")), "does not begin with '{'");
  contains(opening(file_of("{\"a\":")), "header: not JSON");
  contains(opening(file_of("{} x")), "header: not JSON");
  contains(opening(file_of("{\"\xff\":{}}")), "header: not JSON");
  contains(opening(file_of("{\"a\":" + std::string(100000, '['))), "nested 5 deep");
  contains(opening(file_of("{\"a\":1,\"a\":2}")), "key 'a' is there twice");
  contains(opening(file_of("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\"}}")),
           "key 'dtype' is there twice");
  contains(opening(file_of("{\"__metadata__\":[]}")), "must be an object of strings");
  contains(opening(file_of("{\"__metadata__\":{\"a\":1}}")), "entry \"a\" must be a string");
  contains(opening(file_of(std::string("{}\0{}", 5))), "byte 2 is zero");
  contains(opening(file_of("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}")), "is there twice");
  CHECK(opening(file_of("{}")) == "(no error)");
  CHECK(opening(file_of("{}      ")) == "(no error)");
}

TEST_CASE("a safetensors entry that breaks a rule is refused by name") {
  const auto entry = [](const std::string& dtype, const std::string& shape,
                        const std::string& offsets, std::size_t data = 8) {
    const auto message =
        opening(file_of(fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype,
                                    shape, offsets),
                        data));
    if (message != "(no error)") contains(message, "\"a\"");
    return message;
  };
  CHECK(entry(R"("F32")", "[2]", "[0,8]") == "(no error)");
  CHECK(entry(R"("F32")", "[2,1,1]", "[0,8]") == "(no error)");
  contains(entry(R"("F31")", "[2]", "[0,8]"), "dtype \"F31\" is not supported; need one of I64,");
  contains(entry("1", "[2]", "[0,8]"), "dtype 1 is not supported");
  contains(entry(R"("F32")", "[-2]", "[0,8]"), "need a list of whole numbers >= 0");
  contains(entry(R"("F32")", "[2.0]", "[0,8]"), "need a list of whole numbers >= 0");
  contains(entry(R"("F32")", "2", "[0,8]"), "need a list of whole numbers >= 0");
  contains(entry(R"("F32")", "[[2]]", "[0,8]"), "need a list of whole numbers >= 0");
  contains(entry(R"("F32")", "[18446744073709551615]", "[0,8]"), "need a list of whole numbers");
  contains(entry(R"("F32")", "[9223372036854775808]", "[0,8]"), "need a list of whole numbers");
  contains(entry(R"("F32")", "[9223372036854775807]", "[0,8]"), "overflows");
  contains(entry(R"("F32")", "[4611686018427387904,2]", "[0,8]"), "overflows");
  contains(entry(R"("F32")", "[4294967296,4294967296,0]", "[0,0]", 0), "overflows");
  contains(entry(R"("F32")", "[2,1,1,1,1,1,1,1,1]", "[0,8]"), "need at most 8 dimensions");
  contains(entry(R"("F32")", "[2]", "[0]"), "need [begin, end]");
  contains(entry(R"("F32")", "[2]", "[0,8,8]"), "need [begin, end]");
  contains(entry(R"("F32")", "[2]", "[8,0]"), "need begin <= end <= 8");
  contains(entry(R"("F32")", "[2]", "[0,8]", 7), "need begin <= end <= 7");
  contains(entry(R"("F32")", "[2]", "[0,9223372036854775807]"), "need begin <= end <= 8");
  contains(entry(R"("F32")", "[3]", "[0,8]"), "F32 [3] needs 12 bytes; data_offsets give 8");
  contains(opening(file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[0]}}")), "need an object of");
  contains(opening(file_of("{\"a\":[]}")), "need an object of exactly dtype, shape and");
  contains(entry(R"("F32","more":1)", "[2]", "[0,8]"), "need an object of exactly");
}

TEST_CASE("safetensors data must be tiled by the tensors without overlap or gap") {
  const auto layout = [](int a_begin, int a_end, int b_begin, int b_end) {
    const auto one = [](int begin, int end) {
      return fmt::format(R"({{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})", end - begin,
                         begin, end);
    };
    return opening(
        file_of(fmt::format(R"({{"a":{},"b":{}}})", one(a_begin, a_end), one(b_begin, b_end)), 8));
  };
  CHECK(layout(0, 4, 4, 8) == "(no error)");
  CHECK(layout(4, 8, 0, 4) == "(no error)");
  CHECK(layout(0, 8, 8, 8) == "(no error)");
  contains(layout(0, 5, 4, 8), "tensor \"b\" overlaps the one before it");
  contains(layout(0, 8, 0, 8), "overlaps the one before it");
  contains(layout(0, 3, 4, 8), "1 bytes before tensor \"b\" belong to no tensor");
  contains(layout(1, 4, 4, 8), "1 bytes before tensor \"a\" belong to no tensor");
  contains(layout(0, 4, 4, 7), "1 bytes at its end belong to no tensor");
}
