// Tokenizer and BPE trainer against Hugging Face's tokenizers (tests/fixtures/tokenizer) and by
// hand.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "nn/files/atomic.h"
#include "nn/text/bpe_trainer.h"
#include "nn/text/byte_level.h"
#include "nn/text/tokenizer.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

using Words = std::vector<std::string>;

const std::vector<std::string> kSpecials{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

fs::path fixture(const char* name) {
  return fs::path(__FILE__).parent_path() / "../fixtures/tokenizer" / name;
}

json fixture_json(const char* name) { return json::parse(read_file(fixture(name))); }

Words words_of(std::string_view text) {
  Words words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = word_end(text, begin);
    words.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

Tokenizer trained(std::string_view text, int vocab_size, std::vector<std::string> specials = {}) {
  const std::string_view texts[] = {text};
  return train_bpe(texts, {vocab_size, std::move(specials)});
}

// The merges of a tokenizer, as "left+right".
Words merges_of(const Tokenizer& tokenizer) {
  Words merges;
  const BpeModel& model = tokenizer.model();
  for (const auto& [left, right] : model.merges)
    merges.push_back(model.tokens[std::size_t(left)] + "+" + model.tokens[std::size_t(right)]);
  return merges;
}

// What load() says of the fixture after `change`.
template <class F>
std::string load_error(F change) {
  const Folder folder;
  json file = fixture_json("tokenizer.json");
  change(file);
  write_file_atomically(folder / "tokenizer.json", file.dump());
  return error_of([&] { Tokenizer::load(folder / "tokenizer.json"); });
}

// The bytes of a random code point; surrogates are none.
void append_random_character(std::mt19937& random, std::string& text) {
  const std::uint32_t most[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
  std::uint32_t c = 0xD800;
  while (c >= 0xD800 && c < 0xE000) c = random() % (most[random() % 4] + 1);
  if (c < 0x80) {
    text += char(c);
    return;
  }
  const int tail = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  const unsigned head[] = {0, 0xC0, 0xE0, 0xF0};
  text += char(head[tail] | (c >> (6 * tail)));
  for (int i = tail - 1; i >= 0; --i) text += char(0x80 | ((c >> (6 * i)) & 0x3F));
}

}  // namespace

TEST_CASE("text is cut into words as GPT-2's pattern cuts it") {
  CHECK(words_of("Hello, big world!") == Words{"Hello", ",", " big", " world", "!"});
  CHECK(words_of("they're it's 'll") == Words{"they", "'re", " it", "'s", " '", "ll"});
  CHECK(words_of("'sx 'S ''s") == Words{"'s", "x", " '", "S", " ''", "s"});
  CHECK(words_of("I'd've") == Words{"I", "'d", "'ve"});
  CHECK(words_of("a  b   ") == Words{"a", " ", " b", "   "});
  CHECK(words_of("a \n b") == Words{"a", " \n", " b"});
  CHECK(words_of("a\nb\n\nc") == Words{"a", "\n", "b", "\n", "\n", "c"});
  CHECK(words_of("x2y 10,0") == Words{"x", "2", "y", " 10", ",", "0"});
  CHECK(words_of("é½ 漢字Ⅷ") == Words{"é", "½", " 漢字", "Ⅷ"});
  CHECK(words_of("a\u00a0b") == Words{"a", "\u00a0", "b"});
  CHECK(words_of("a \u3000b") == Words{"a", " ", "\u3000", "b"});
  CHECK(words_of("e\u0301!") == Words{"e", "\u0301!"});
  CHECK(words_of("a\u200bb") == Words{"a", "\u200b", "b"});
}

TEST_CASE("bytes are spelled as in GPT-2's vocabulary, and back") {
  CHECK(spell(" the\n") == "ĠtheĊ");
  CHECK(spell(std::string_view("\0\xad\xff", 3)) == "ĀŃÿ");
  for (int b = 0; b < 256; ++b) {
    const std::string byte(1, char(b));
    CHECK(unspell(spell(byte)) == byte);
  }
  CHECK(!unspell("a b"));
  CHECK(!unspell("漢"));
}

TEST_CASE("ids are those of Hugging Face's tokenizers") {
  const Tokenizer plain = Tokenizer::load(fixture("tokenizer.json"));
  BpeModel model = plain.model();
  model.add_prefix_space = true;
  const Tokenizer prefixed(std::move(model));
  const json rows = fixture_json("expected.json");
  REQUIRE(rows.size() > 100);
  for (const json& row : rows) {
    const auto text = row["text"].get<std::string>();
    CAPTURE(text);
    CHECK(plain.encode(text) == row["ids"].get<std::vector<int>>());
    CHECK(prefixed.encode(text) == row["prefixed"].get<std::vector<int>>());
  }
}

TEST_CASE("GPT-2's own tokenizer gives Hugging Face's ids on SST-2, CoLA and E2E") {
  const fs::path data = fs::path(__FILE__).parent_path() / "../../../shared/data";
  if (!fs::exists(data / "tokenizers/gpt2/tokenizer.json")) {
    MESSAGE("SKIPPED: no folder ../shared/data with GPT-2's tokenizer beside the source tree");
    return;
  }
  const Tokenizer gpt2 = Tokenizer::load(data / "tokenizers/gpt2/tokenizer.json");
  CHECK(gpt2.size() == 50257);
  CHECK(gpt2.eos() == 50256);
  CHECK(gpt2.id(" the") == 262);
  CHECK(gpt2.pad() == -1);
  for (const json& row : fixture_json("gpt2.json")) {
    const auto name = row["file"].get<std::string>();
    CAPTURE(name);
    const std::string text = read_file(data / name);
    std::size_t count = 0;
    std::uint64_t sum = 0;
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      for (const int id : gpt2.encode(std::string_view(text).substr(begin, end - begin))) {
        sum = (sum ^ std::uint64_t(id)) * 1099511628211u;
        ++count;
      }
      begin = end + 1;
    }
    CHECK(count == row["ids"].get<std::size_t>());
    CHECK(std::to_string(sum) == row["checksum"].get<std::string>());
  }
}

TEST_CASE("decoding what was encoded gives any UTF-8 text back") {
  const Tokenizer tokenizer = Tokenizer::load(fixture("tokenizer.json"));
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (unsigned left = random() % 60; left > 0; --left) append_random_character(random, text);
    REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
  }
}

TEST_CASE("special tokens in a text are one id each, and can be left out in decoding") {
  const Tokenizer tokenizer = Tokenizer::load(fixture("tokenizer.json"));
  CHECK(tokenizer.pad() == 0);
  CHECK(tokenizer.unk() == 1);
  CHECK(tokenizer.cls() == 2);
  CHECK(tokenizer.sep() == 3);
  CHECK(tokenizer.mask() == 4);
  CHECK(tokenizer.bos() == -1);
  CHECK(tokenizer.eos() == -1);
  CHECK(tokenizer.id("[MASK]") == 4);
  CHECK(tokenizer.encode("[SEP][MASK]") == std::vector<int>{3, 4});
  const auto ids = tokenizer.encode("[CLS]the [MASK] tide[SEP]");
  CHECK(tokenizer.decode(ids) == "[CLS]the [MASK] tide[SEP]");
  CHECK(tokenizer.decode(ids, true) == "the  tide");
}

TEST_CASE("of special tokens the leftmost and then the longest wins, and white space goes along") {
  BpeModel model = trained("", 256).model();
  const auto add = [&](const char* content, bool lstrip, bool rstrip) {
    model.specials.push_back({content, int(model.tokens.size()), true, false, lstrip, rstrip});
    model.tokens.emplace_back(content);
  };
  add("<a>", false, false);  // 256
  add("<a>b", false, false);
  add("<m>", true, true);  // 258
  const Tokenizer tokenizer(model);
  CHECK(tokenizer.encode("<a><a>b<a>") == std::vector<int>{256, 257, 256});
  CHECK(tokenizer.encode("x \n<m>\u3000 y<m>") == std::vector<int>{'x', 258, 'y', 258});
  CHECK(tokenizer.encode("<m> <m>") == std::vector<int>{258, 258});
}

TEST_CASE("training joins the most frequent pair first, and of equals the smaller one by bytes") {
  // Words: "low" 5, "lower" 2, "newest" 6, "widest" 3, each followed by a line break.
  std::string text;
  for (int i = 0; i < 5; ++i) text += "low\n";
  for (int i = 0; i < 2; ++i) text += "lower\n";
  for (int i = 0; i < 6; ++i) text += "newest\n";
  for (int i = 0; i < 3; ++i) text += "widest\n";
  const Tokenizer tokenizer = trained(text, 263, {"<|endoftext|>"});
  CHECK(merges_of(tokenizer) == Words{"e+s", "es+t", "l+o", "lo+w", "e+w", "ew+est"});
  CHECK(tokenizer.size() == 263);
  CHECK(tokenizer.eos() == 0);
  CHECK(tokenizer.id("a") == 1 + 'a');
  CHECK(tokenizer.id("es") == 257);
  CHECK(tokenizer.decode(tokenizer.encode("lowest")) == "lowest");
  CHECK(tokenizer.encode("lowest") == std::vector<int>{tokenizer.id("low"), tokenizer.id("est")});
}

TEST_CASE("training joins only pairs seen twice, overlapping runs included") {
  CHECK(trained("abc", 300).size() == 256);
  CHECK(merges_of(trained("aaaa", 300)) == Words{"a+a"});
  CHECK(merges_of(trained("aaaaaaaa", 300)) == Words{"a+a", "aa+aa"});
}

TEST_CASE("special tokens written in the training text are no words of it") {
  CHECK(merges_of(trained("<x>ab<x>ab<x>", 300, {"<x>"})) == Words{"a+b"});
  // A token spelled like a special one is never made.
  const Tokenizer tokenizer = trained("é é é é", 300, {"ĠÃ"});
  for (const std::string& token : tokenizer.model().tokens) CHECK(token != " \xc3");
}

TEST_CASE("training the fixture's text again gives the committed file byte for byte") {
  const Folder folder;
  const Tokenizer tokenizer = train_bpe({fixture("text.txt")}, {400, kSpecials});
  CHECK(tokenizer.size() == 400);
  tokenizer.save(folder / "tokenizer.json");
  CHECK(read_file(folder / "tokenizer.json") == read_file(fixture("tokenizer.json")));
}

TEST_CASE("a saved tokenizer loads with the same ids and options") {
  const Folder folder;
  BpeModel model = Tokenizer::load(fixture("tokenizer.json")).model();
  model.add_prefix_space = true;
  model.specials[4].lstrip = true;
  const Tokenizer before(std::move(model));
  before.save(folder / "tokenizer.json");
  const Tokenizer after = Tokenizer::load(folder / "tokenizer.json");
  CHECK(after.model().tokens == before.model().tokens);
  CHECK(after.model().merges == before.model().merges);
  for (const char* text : {"the tide", "  the [MASK] tide", "Café 東京 🙂", ""})
    CHECK(after.encode(text) == before.encode(text));
  CHECK(folder.entries() == 1);
}

TEST_CASE("merges written as one string are read like those written as two") {
  const std::string error = load_error([](json& file) {
    for (json& merge : file["model"]["merges"])
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  });
  CHECK(error == "(no error)");
}

TEST_CASE("one tokenizer serves several threads") {
  const Tokenizer tokenizer = Tokenizer::load(fixture("tokenizer.json"));
  const std::string text = read_file(fixture("text.txt"));
  const auto expected = Tokenizer::load(fixture("tokenizer.json")).encode(text);
  std::vector<std::vector<int>> ids(4);
  std::vector<std::thread> threads;
  for (auto& own : ids) threads.emplace_back([&] { own = tokenizer.encode(text); });
  for (auto& thread : threads) thread.join();
  for (const auto& own : ids) CHECK(own == expected);
}

TEST_CASE("text that is not UTF-8 is refused with its byte offset") {
  const Tokenizer tokenizer = Tokenizer::load(fixture("tokenizer.json"));
  const auto message = [&](std::string_view text) {
    return error_of([&] { tokenizer.encode(text); });
  };
  contains(message("abc\xff"), "not UTF-8 at byte 3 of 4 (0xFF)");
  contains(message("é\xc3"), "byte 2");               // cut off
  contains(message("\xc0\x80"), "byte 0");            // longer than needed
  contains(message("a\xed\xa0\x80"), "byte 1");       // a surrogate
  contains(message("ab\xf4\x90\x80\x80"), "byte 2");  // beyond U+10FFFF
  const Folder folder;
  write_file_atomically(folder / "bad.txt", "ok\x80");
  contains(error_of([&] { train_bpe({folder / "bad.txt"}, {}); }),
           "bad.txt is not UTF-8 at byte 2");
}

TEST_CASE("ids and names that do not exist are refused") {
  const Tokenizer tokenizer = Tokenizer::load(fixture("tokenizer.json"));
  CHECK(tokenizer.decode(std::vector<int>{400}).empty());  // of a vocabulary with room to spare
  contains(error_of([&] { tokenizer.decode(std::vector<int>{-1}); }), "id -1 to decode");
  contains(error_of([&] { tokenizer.id("<|endoftext|>"); }), "no token '<|endoftext|>'");
}

TEST_CASE("a vocabulary without room, or with bad special tokens, is not trained") {
  contains(error_of([] { trained("a", 256, {"[PAD]"}); }), "vocab_size is 256");
  contains(error_of([] { trained("a", 300, {"<x>", "<x>"}); }), "'<x>' is there twice");
  contains(error_of([] { trained("a", 300, {"a"}); }), "spells a byte");
  contains(error_of([] { trained("a", 300, {""}); }), "empty");
}

TEST_CASE("a tokenizer.json that this version cannot follow is refused by the name of its key") {
  const auto refuses = [](const char* pointer, const json& value, const char* part) {
    contains(load_error([&](json& file) { file[json::json_pointer(pointer)] = value; }), part);
  };
  refuses("/model/type", "WordPiece", "reads pre_tokenizer ByteLevel only with BPE");
  refuses("/model/type", "Other", "model: type is \"Other\"");
  refuses("/model/dropout", 0.1, "model: dropout");
  refuses("/model/byte_fallback", true, "model: byte_fallback");
  refuses("/model/surprise", 1, "model: unknown key surprise");
  refuses("/model/unk_token", 3, "model: unk_token is 3; need a string");
  refuses("/normalizer", {{"type", "Other"}}, "normalizer: type is \"Other\"");
  refuses("/truncation", {{"max_length", 4}}, "truncation");
  refuses("/pre_tokenizer/type", "Other", "pre_tokenizer: type is \"Other\"");
  refuses("/pre_tokenizer/type", "Whitespace", "pre_tokenizer: unknown key add_prefix_space");
  refuses("/pre_tokenizer/use_regex", 1, "pre_tokenizer: use_regex is not true or false");
  refuses("/decoder/type", "Other", "decoder: type is \"Other\"");
  refuses("/post_processor/type", "Sequence", "post_processor has no processors");
  refuses("/added_tokens/4/single_word", 1, "added_tokens[4]: single_word");
  refuses("/added_tokens/4/id", 17, "added_tokens gives '[MASK]' id 17");
  refuses("/added_tokens/4/content", "[CLS]", "added_tokens has '[CLS]' twice");
  refuses("/surprise", 1, "unknown key surprise");
}

TEST_CASE(
    "truncation and padding of a tokenizer.json change no ids; older files lack a direction") {
  json file = json::parse(read_file(fixture("tokenizer.json")));
  file["truncation"] = {{"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  file["padding"] = {{"strategy", {{"Fixed", 128}}},
                     {"direction", "Right"},
                     {"pad_id", 0},
                     {"pad_type_id", 0},
                     {"pad_token", "[PAD]"}};
  const Folder folder;
  write_file_atomically(folder / "tokenizer.json", file.dump());
  const std::string text = "the quick brown fox";
  CHECK(Tokenizer::load(folder.path).encode(text) ==
        Tokenizer::load(fixture("tokenizer.json")).encode(text));
}

TEST_CASE("a vocabulary that contradicts itself is refused") {
  const auto refuses = [](auto change, const char* part) { contains(load_error(change), part); };
  refuses([](json& f) { f["model"]["vocab"]["a"] = 10; }, "both have id 10");
  refuses([](json& f) { f["model"]["vocab"]["a"] = 5000; }, "'a' has id 5000");
  refuses([](json& f) { f["model"]["vocab"]["a"] = -1; }, "'a' has id -1");
  refuses([](json& f) { f["model"]["merges"][3] = {"a", "zzz"}; }, "model: merges[3] ('a' 'zzz')");
  refuses([](json& f) { f["model"]["merges"][3] = "abc"; }, "merges[3] is 'abc'");
  refuses([](json& f) { f["model"]["merges"][3] = f["model"]["merges"][2]; }, "is there twice");
  refuses([](json& f) { f["model"].erase("vocab"); }, "model has no vocab");

  const Folder folder;
  const fs::path path = folder / "tokenizer.json";
  const auto message = [&](const std::string& text) {
    write_file_atomically(path, text);
    return error_of([&] { Tokenizer::load(path); });
  };
  std::string twice = read_file(fixture("tokenizer.json"));
  twice.insert(twice.find("\"[UNK]\": 1"), "\"[PAD]\": 7, ");
  contains(message(twice), "key '[PAD]' is there twice");
  contains(message("{"), "not JSON");
  contains(message("[]"), "need an object");
  contains(error_of([&] { Tokenizer::load(folder / "none.json"); }), "none.json");
}

TEST_CASE("a vocabulary without some byte is refused") {
  BpeModel model;
  for (int b = 0; b < 255; ++b) model.tokens.emplace_back(1, char(b));
  contains(error_of([&] { Tokenizer{model}; }), "byte 0xFF has no token");
}
