// The files that tokenizers come from: folders of older files, real vocabularies, damaged files.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "nn/files/atomic.h"
#include "nn/text/sentencepiece.h"
#include "nn/text/tokenizer.h"
#include "tests/nn/folder.h"
#include "tests/nn/tokenizer_fixtures.h"

using namespace graft;
using namespace graft::testing;
using namespace graft::testing::kinds;
using nlohmann::json;

namespace {

const fs::path kData = fs::path(__FILE__).parent_path() / "../../../shared/data";

void mix(std::uint64_t& sum, const std::vector<int>& ids) {
  for (const int id : ids) sum = (sum ^ std::uint64_t(id)) * 1099511628211u;
}

constexpr std::uint64_t kStart = 14695981039346656037u;

// The tokenizer.json that the folder's tokenizer is saved as.
json saved(const fs::path& folder) {
  const Folder out;
  Tokenizer::load(folder).save(out / "tokenizer.json");
  return json::parse(read_file(out / "tokenizer.json"));
}

std::string bytes_of_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += char(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

// What load() says of a folder with these files.
std::string load_error(const std::vector<std::pair<std::string, std::string>>& files) {
  const Folder folder;
  for (const auto& [name, text] : files) write_file_atomically(folder / name.c_str(), text);
  return error_of([&] { Tokenizer::load(folder.path); });
}

}  // namespace

TEST_CASE("folders of older files become the tokenizer.json that transformers makes of them") {
  for (json row : fixture_json("hub.json")) {
    const auto base = row["base"].get<std::string>();
    const std::string files = row["files"].dump();
    CAPTURE(base);
    CAPTURE(files);
    const Folder folder;
    fs::copy(fixture(base), folder.path, fs::copy_options::recursive);
    fs::remove(folder / "special_tokens_map.json");
    for (const auto& item : row["files"].items())
      write_file_atomically(folder / item.key().c_str(), item.value().dump());
    json made = saved(folder.path);
    CHECK(made["model"]["vocab"].size() == row["vocab"].get<std::size_t>());
    made["model"].erase("vocab");
    if (made["model"].contains("merges")) {
      CHECK(made["model"]["merges"].size() == row["merges"].get<std::size_t>());
      made["model"].erase("merges");
    }
    if (base == "t5") made["normalizer"].erase("precompiled_charsmap");
    for (const auto& item : row["tokenizer"].items()) {
      CAPTURE(item.key());
      CHECK(made[item.key()].dump() == item.value().dump());
    }
  }
}

TEST_CASE(
    "another family's model that says GPT-2's class keeps its own cut, and names may be empty") {
  json root = fixture_json("llama3.json");
  root["normalizer"] = nullptr;
  root["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Digits"}, {"individual_digits", true}},
                             {{"type", "ByteLevel"},
                              {"add_prefix_space", false},
                              {"trim_offsets", true},
                              {"use_regex", true}}}}};
  const Folder folder;
  write_file_atomically(folder / "tokenizer.json", root.dump());
  const auto ids = Tokenizer::load(folder.path).encode("the 2034 lists");
  write_file_atomically(folder / "tokenizer_config.json",
                        R"({"tokenizer_class": "GPT2Tokenizer", "pad_token": ""})");
  write_file_atomically(folder / "config.json", R"({"model_type": "llama"})");
  CHECK(Tokenizer::load(folder.path).encode("the 2034 lists") == ids);
  write_file_atomically(folder / "config.json", R"({"model_type": "gpt2"})");
  contains(error_of([&] { Tokenizer::load(folder.path); }), "which has none, and ByteLevel");
}

TEST_CASE("a tokenizer.json is read as its folder's class does, or the contradiction is named") {
  const json rows = fixture_json("classes.json");
  const auto texts = rows[0].get<std::vector<std::string>>();
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const json& row = rows[i];
    const std::string base = row["base"], replaced = row["replace"].dump(),
                      files = row["files"].dump();
    CAPTURE(base);
    CAPTURE(replaced);
    CAPTURE(files);
    const Folder folder;
    json root = fixture_json(base);
    root.update(row["replace"]);
    write_file_atomically(folder / "tokenizer.json", root.dump());
    for (const auto& item : row["files"].items())
      write_file_atomically(folder / item.key().c_str(), item.value().dump());
    std::unique_ptr<Tokenizer> tokenizer;
    const std::string error =
        error_of([&] { tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(folder.path)); });
    if (row.contains("refused")) {
      contains(error, row["refused"]);
      contains(error, (folder / "tokenizer.json").string());
      continue;
    }
    REQUIRE(error == "(no error)");
    for (std::size_t t = 0; t < texts.size(); ++t) {
      CAPTURE(texts[t]);
      CHECK(tokenizer->encode(texts[t]) == row["ids"][t].get<std::vector<int>>());
    }
    // What is saved says it all itself.
    const Folder out;
    tokenizer->save(out / "tokenizer.json");
    for (const std::string& text : texts)
      CHECK(Tokenizer::load(out.path).encode(text) == tokenizer->encode(text));
  }
}

TEST_CASE("beside a tokenizer.json an unknown key is no error, split special tokens are") {
  const Folder folder;
  fs::copy(fixture("llama3.json"), folder / "tokenizer.json");
  write_file_atomically(folder / "tokenizer_config.json", R"({"surprise": 1})");
  Tokenizer::load(folder.path).save(folder / "again.json");
  CHECK(read_file(folder / "again.json") == read_file(fixture("llama3.json")));
  write_file_atomically(folder / "tokenizer_config.json", R"({"split_special_tokens": true})");
  contains(error_of([&] { Tokenizer::load(folder.path); }), "split_special_tokens is true");
}

TEST_CASE("a named token is the numbered one that is spelled so, and names may be an object") {
  const Folder folder;
  fs::copy(fixture("roberta"), folder.path, fs::copy_options::recursive);
  fs::remove(folder / "special_tokens_map.json");
  const auto numbered = [](const char* text, bool lstrip, bool special) {
    return json{{"content", text},     {"lstrip", lstrip},   {"rstrip", false},
                {"normalized", false}, {"special", special}, {"single_word", false}};
  };
  json config{{"tokenizer_class", "RobertaTokenizer"},
              {"mask_token", "<mask>"},
              {"extra_special_tokens", json::object()},
              {"additional_special_tokens", {"<x>"}},
              {"added_tokens_decoder",
               {{"4", numbered("<mask>", true, true)}, {"400", numbered("<x>", true, false)}}}};
  const auto token = [&](const std::string& text) {
    write_file_atomically(folder / "tokenizer_config.json", config.dump());
    const Tokenizer tokenizer = Tokenizer::load(folder.path);
    for (const SpecialToken& one : tokenizer.specials())
      if (one.content == text) return one;
    return SpecialToken{};
  };
  CHECK(token("<mask>").lstrip);
  CHECK(token("<mask>").id == 4);
  CHECK(token("<x>").lstrip);
  CHECK_FALSE(token("<x>").special);  // of transformers, too: it is named by no key of its own
  config["extra_special_tokens"] = {{"image_token", "<x>"}, {"audio_token", "<y>"}};
  CHECK(token("<y>").id == 401);
  CHECK(token("<y>").special);
  config["extra_special_tokens"] = "<x>";
  contains(error_of([&] { token("<x>"); }), "extra_special_tokens is \"<x>\"; need an array or");
}

TEST_CASE("RoBERTa's kinds of model have its tokenizer") {
  const Folder folder;
  fs::copy(fixture("roberta"), folder.path, fs::copy_options::recursive);
  write_file_atomically(folder / "tokenizer_config.json", "{}");
  write_file_atomically(folder / "config.json", R"({"model_type": "roberta-prelayernorm"})");
  CHECK(Tokenizer::load(folder.path).encode_marked("a").ids ==
        Tokenizer::load(fixture("roberta")).encode_marked("a").ids);
}

TEST_CASE("real vocabularies of GPT-2 and BERT give Hugging Face's ids on SST-2, CoLA and E2E") {
  if (!fs::exists(kData / "tokenizers/bert-base-uncased/vocab.txt")) {
    MESSAGE("SKIPPED: no folder ../shared/data with BERT's vocabulary beside the source tree");
    return;
  }
  for (const json& row : fixture_json("real.json")) {
    const auto name = row["file"].get<std::string>(), folder = row["tokenizer"].get<std::string>();
    CAPTURE(folder);
    CAPTURE(name);
    const Tokenizer tokenizer = Tokenizer::load(kData / "tokenizers" / folder);
    const std::string text = read_file(kData / name);
    std::size_t count = 0;
    std::uint64_t sum = kStart;
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const auto ids = tokenizer.encode(std::string_view(text).substr(begin, end - begin));
      mix(sum, ids);
      count += ids.size();
      begin = end + 1;
    }
    CHECK(count == row["ids"].get<std::size_t>());
    CHECK(std::to_string(sum) == row["checksum"].get<std::string>());
  }
}

TEST_CASE("GPT-2's vocab.json and vocab.bpe are its tokenizer.json") {
  const fs::path gpt2 = kData / "tokenizers/gpt2";
  if (!fs::exists(gpt2 / "vocab.bpe")) {
    MESSAGE("SKIPPED: no folder ../shared/data with GPT-2's vocab.bpe beside the source tree");
    return;
  }
  const Folder folder;
  fs::copy(gpt2 / "vocab.json", folder / "encoder.json");
  fs::copy(gpt2 / "vocab.bpe", folder / "vocab.bpe");
  const Tokenizer older = Tokenizer::load(folder.path), newer = Tokenizer::load(gpt2);
  CHECK(older.size() == newer.size());
  CHECK(older.eos() == newer.eos());
  const std::string text = read_file(kData / "e2e/lora_test.txt").substr(0, 200000);
  const std::string_view valid = std::string_view(text).substr(0, text.rfind('\n'));
  CHECK(older.encode(valid) == newer.encode(valid));
}

TEST_CASE("of random bytes those that are UTF-8 get Hugging Face's ids, the others a clear error") {
  const json row = fixture_json("bytes.json");
  const Tokenizer tokenizer = Tokenizer::load(fixture("llama"));
  const auto hex = row["hex"].get<std::string>();
  std::uint64_t sum = kStart;
  std::size_t count = 0, valid = 0;
  for (std::size_t begin = 0; begin < hex.size(); ++count) {
    const std::size_t end = std::min(hex.find(' ', begin), hex.size());
    const std::string bytes = bytes_of_hex(std::string_view(hex).substr(begin, end - begin));
    begin = end + 1;
    std::vector<int> ids;
    const std::string error = error_of([&] { ids = tokenizer.encode(bytes); });
    valid += error == "(no error)";
    if (error != "(no error)") REQUIRE(error.find("is not UTF-8 at byte ") != error.npos);
    mix(sum, ids);
  }
  CHECK(count == 10000);
  CHECK(valid == row["valid"].get<std::size_t>());
  CHECK(std::to_string(sum) == row["checksum"].get<std::string>());
}

TEST_CASE("a loaded tokenizer.json of any kind is saved byte for byte") {
  for (const char* name : {"wordpiece.json", "unigram.json", "llama3.json", "chars.json"}) {
    const Folder folder;
    Tokenizer::load(fixture(name)).save(folder / "tokenizer.json");
    CHECK(read_file(folder / "tokenizer.json") == read_file(fixture(name)));
  }
}

TEST_CASE("a tokenizer of older files is saved as a tokenizer.json with the same ids") {
  const std::string text = "The boats wait, l’été, 東京 🙂  x\n</s> [MASK]";
  for (const char* name : {"t5", "llama", "bert", "roberta"}) {
    const Folder folder;
    const Tokenizer before = Tokenizer::load(fixture(name));
    before.save(folder / "tokenizer.json");
    const Tokenizer after = Tokenizer::load(folder.path);
    CHECK(after.encode(text) == before.encode(text));
    CHECK(after.encode_marked(text, "b").ids == before.encode_marked(text, "b").ids);
    CHECK(after.decode(after.encode(text)) == before.decode(before.encode(text)));
  }
}

TEST_CASE("special tokens stand around one text or a pair, and types tell the two apart") {
  const Tokenizer bert = Tokenizer::load(fixture("bert"));
  const MarkedIds pair = bert.encode_marked("the", "the the");
  const int the = bert.id("the");
  CHECK(pair.ids == std::vector<int>{2, the, 3, the, the, 3});
  CHECK(pair.types == std::vector<int>{0, 0, 0, 1, 1, 1});
  const Tokenizer roberta = Tokenizer::load(fixture("roberta"));
  const int a = roberta.id("a");
  CHECK(roberta.encode_marked("a", "a").ids == std::vector<int>{2, a, 3, 3, a, 3});
  CHECK(roberta.encode_marked("a", "a").types == std::vector<int>(6, 0));
  CHECK(Tokenizer::load(fixture("t5")).encode_marked("").ids == std::vector<int>{1});
}

TEST_CASE("a folder without a tokenizer, or with one that cannot be followed, is refused by name") {
  contains(load_error({}), "no tokenizer; need tokenizer.json, or vocab.json and merges.txt");
  contains(load_error({{"vocab.txt", "[UNK]\na"}, {"tokenizer_config.json", "{\"surprise\": 1}"}}),
           "tokenizer_config.json: unknown key surprise");
  contains(load_error({{"vocab.txt", "a"},
                       {"tokenizer_config.json", "{\"tokenizer_class\": \"CanineTokenizer\"}"}}),
           "tokenizer_class is 'Canine'");
  contains(load_error({{"vocab.txt", "a"}, {"config.json", "{\"model_type\": \"t5\"}"}}),
           "need BERT's");
  contains(load_error({{"vocab.txt", "a\xff"}}), "vocab.txt is not UTF-8 at byte 1");
  contains(load_error({{"vocab.json", "{\"a\": 0}"}, {"merges.txt", "#version: 0.2\na b c\n"}}),
           "merges.txt: line 'a b c'");
  contains(load_error({{"vocab.json", "{\"a\": 0}"}, {"merges.txt", "a b\n"}}), "vocab has no 'b'");
  contains(load_error({{"vocab.json", "{\"a\": -1}"}, {"merges.txt", ""}}), "'a' has id -1");
  contains(load_error({{"spiece.model", "no model"}}), "no sentencepiece model");
}

TEST_CASE("what this version does not follow in a tokenizer.json is named") {
  const auto refuses = [](const char* base, const char* pointer, const json& value,
                          const char* part) {
    json root = fixture_json(base);
    root[json::json_pointer(pointer)] = value;
    contains(load_error({{"tokenizer.json", root.dump()}}), part);
  };
  refuses("llama3.json", "/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\w+x",
          "pre_tokenizer: pretokenizers[0]: the pattern is the Regex '\\w+x'");
  refuses("llama3.json", "/pre_tokenizer/pretokenizers/0/type", "ByteLevel", "unknown key");
  refuses("wordpiece.json", "/normalizer", {{"type", "ByteLevel"}}, "normalizer: type is");
  refuses("wordpiece.json", "/normalizer/surprise", 1, "normalizer: unknown key surprise");
  refuses("wordpiece.json", "/decoder", {{"type", "CTC"}}, "decoder: type is \"CTC\"");
  refuses("wordpiece.json", "/padding/surprise", 1, "padding: unknown key surprise");
  refuses("wordpiece.json", "/post_processor/single/0/SpecialToken/id", "[X]",
          "special_tokens has no '[X]'");
  refuses("wordpiece.json", "/post_processor/special_tokens/[CLS]/ids/0", 100000,
          "need an id below");
  refuses("unigram.json", "/model/unk_id", 100000, "model: unk_id is 100000");
  refuses("unigram.json", "/model/vocab/3", 1, "model: vocab[3] is 1");
  refuses("unigram.json", "/pre_tokenizer/replacement", "ab", "need one character");
  refuses("unigram.json", "/normalizer/normalizers/0/pattern", {{"Regex", "a+"}},
          "the pattern is the Regex 'a+'");
  refuses("unigram.json", "/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", "AAA"}},
          "base64");
  refuses("unigram.json", "/normalizer",
          {{"type", "Precompiled"}, {"precompiled_charsmap", "////////"}}, "the map's trie");
}

TEST_CASE("a damaged file is refused or read, and nothing worse") {
  std::mt19937 random(3);
  const auto damaged = [&](std::string bytes) {
    for (unsigned i = random() % 8 + 1; i > 0; --i) {
      const std::size_t at = random() % bytes.size();
      if (random() % 4 == 0) bytes.resize(at + 1);
      bytes[at] = char(random());
    }
    return bytes;
  };
  const std::string pieces = read_file(fixture("llama/tokenizer.model"));
  const std::string map = read_file(fixture("t5/spiece.model"));
  for (int i = 0; i < 200; ++i) {
    load_error({{"tokenizer.model", damaged(pieces)}});
    const std::string bytes = damaged(map);
    error_of([&] { read_sentencepiece("spiece.model", bytes); });
  }
  for (const char* name : {"wordpiece.json", "unigram.json", "llama3.json"}) {
    const std::string file = read_file(fixture(name));
    for (int i = 0; i < 40; ++i) load_error({{"tokenizer.json", damaged(file)}});
  }
  const std::string deep(100000, '[');
  contains(load_error({{"tokenizer.json", deep}}), "nested");
}

TEST_CASE(
    "long runs of one character or of marks are encoded in time that grows with their length") {
  std::string marks = "a", letters(200000, 'a');
  for (int i = 0; i < 50000; ++i) marks += "\u0301\u0323";
  for (const char* name :
       {"wordpiece.json", "unigram.json", "llama3.json", "chars.json", "llama", "t5"}) {
    const Tokenizer tokenizer = Tokenizer::load(fixture(name));
    CHECK(!tokenizer.encode(letters).empty());
    CHECK(!tokenizer.encode(marks).empty());
    CHECK(!tokenizer.encode(std::string(200000, ' ') + "x" + std::string(200000, '\n')).empty());
  }
}
