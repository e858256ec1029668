// Tokenizers of every kind against Hugging Face's (tests/fixtures/tokenizer/kinds, make_kinds.py).
#include <doctest/doctest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "nn/files/atomic.h"
#include "nn/text/tokenizer.h"
#include "tests/nn/folder.h"
#include "tests/nn/tokenizer_fixtures.h"

using namespace graft;
using namespace graft::testing;
using namespace graft::testing::kinds;
using nlohmann::json;

namespace {

constexpr std::uint64_t kStart = 14695981039346656037u;

template <class T>
std::uint64_t checksum(const std::vector<T>& values, std::uint64_t sum = kStart) {
  for (const T value : values) sum = (sum ^ std::uint64_t(value)) * 1099511628211u;
  return sum;
}

std::uint64_t checksum(const std::string& text, std::uint64_t sum) {
  return checksum(std::vector<unsigned char>(text.begin(), text.end()), sum);
}

// The tokenizer of a case: that of the file or folder `base`, with some keys replaced.
Tokenizer tokenizer_of(const json& row) {
  const Folder folder;
  const fs::path path = folder / "tokenizer.json";
  json root = row["replace"];
  if (const std::string base = row["base"].get<std::string>(); !base.empty()) {
    Tokenizer::load(fixture(base)).save(path);
    root = json::parse(read_file(path));
    root.update(row["replace"]);
  }
  write_file_atomically(path, root.dump());
  return Tokenizer::load(path);
}

std::vector<std::uint64_t> marked(const Tokenizer& tokenizer, const std::string& text) {
  const MarkedIds single = tokenizer.encode_marked(text),
                  pair = tokenizer.encode_marked(text, "a b");
  std::vector<std::uint64_t> all(single.ids.begin(), single.ids.end());
  all.insert(all.end(), pair.ids.begin(), pair.ids.end());
  all.insert(all.end(), pair.types.begin(), pair.types.end());
  return all;
}

void check_hard(const Tokenizer& tokenizer, const json& row, const json& texts) {
  std::vector<std::uint64_t> sums;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    CAPTURE(text);
    const json& answer = row["rows"][i];
    const auto ids = tokenizer.encode(text);
    CHECK(ids == answer[0].get<std::vector<int>>());
    const auto decoded = answer[1].is_string() ? answer[1].get<std::string>() : text;
    const auto skipped = answer[2].is_string() ? answer[2].get<std::string>() : decoded;
    CHECK(tokenizer.decode(answer[0].get<std::vector<int>>()) == decoded);
    CHECK(tokenizer.decode(answer[0].get<std::vector<int>>(), true) == skipped);
    sums.push_back(checksum(marked(tokenizer, text)));
  }
  CHECK(std::to_string(checksum(sums)) == row["marked"].get<std::string>());
}

std::uint64_t random_checksum(const Tokenizer& tokenizer, const json& texts) {
  std::uint64_t sum = kStart;
  for (const json& value : texts) {
    const auto text = value.get<std::string>();
    const auto ids = tokenizer.encode(text);
    sum = checksum(marked(tokenizer, text), checksum(ids, sum));
    for (const bool skip : {false, true}) sum = checksum(tokenizer.decode(ids, skip), sum);
  }
  return sum;
}

}  // namespace

TEST_CASE("tokenizers of every kind give Hugging Face's ids, special tokens and texts") {
  const json texts = fixture_json("texts.json");
  for (const json& row : fixture_json("cases.json")) {
    const auto name = row["name"].get<std::string>();
    CAPTURE(name);
    const Tokenizer tokenizer = tokenizer_of(row);
    check_hard(tokenizer, row, texts[0]);
    CHECK(std::to_string(random_checksum(tokenizer, texts[1])) == row["random"].get<std::string>());
  }
}

TEST_CASE(
    "a tokenizer that closes a text can be had open; one that only begins it stays as it is") {
  const auto marked = [](const Tokenizer& t) { return t.encode_marked("the lists").ids; };
  for (const char* name : {"llama3.json", "chars.json"}) {
    const Tokenizer tokenizer = Tokenizer::load(fixture(name));
    CHECK(marked(tokenizer.open_ended()) == marked(tokenizer));
  }
  for (const char* name : {"wordpiece.json", "unigram.json", "bert", "roberta", "t5"}) {
    CAPTURE(name);
    const Tokenizer tokenizer = Tokenizer::load(fixture(name)), open = tokenizer.open_ended();
    CHECK(marked(tokenizer).size() > tokenizer.encode("the lists").size());
    CHECK(marked(open) == tokenizer.encode("the lists"));
    CHECK(open.size() == tokenizer.size());
  }
}
