// The data: hashes and text tools, WordNet, the tasks' splits, tab-separated files, metrics.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <zlib.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "experiments/data/corpus.h"
#include "experiments/data/md5.h"
#include "experiments/data/metrics.h"
#include "experiments/data/sources.h"
#include "experiments/data/task_files.h"
#include "experiments/data/tasks.h"
#include "experiments/data/text_clean.h"
#include "experiments/data/wordnet.h"
#include "tensor/error.h"
#include "tests/experiments/fruit_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using graft::testing::Folder;
namespace fs = std::filesystem;

namespace {

// A folder that goes away with the test.
struct Scratch {
  Folder folder;
  const fs::path& dir = folder.path;
  void put(const fs::path& name, const std::string& text) const {
    fs::create_directories((dir / name).parent_path());
    std::ofstream(dir / name, std::ios::binary) << text;
  }
};

// What `f` complains about; fails the test where it does not.
template <class F>
std::string complaint(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  FAIL("no Error was thrown");
  return "";
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

constexpr const char* kTinyNoun =
    "  1 licence text  \n"
    "00000010 03 n 01 entity 0 000 | what exists  \n"
    "00000020 05 n 02 ice_bear 0 polar_bear 1 001 @ 00000010 n 0000 | a (white) bear; used \"up "
    "north\"; \"the bear swam\"; \"he saw a bear\"  \n";
constexpr const char* kTinyAdj =
    "00000010 00 s 01 awake(p) 0 001 ! 00000010 r 0101 | not asleep; \"lay awake\"  \n";

void put_wordnet(const Scratch& scratch, const std::string& noun) {
  scratch.put("data.noun", noun);
  scratch.put("data.verb", "00000010 38 v 01 go 0 000 02 + 02 00 + 22 01 | move  \n");
  scratch.put("data.adj", kTinyAdj);
  scratch.put("data.adv", "00000010 02 r 01 awake 0 000 | in an awake manner  \n");
}

}  // namespace

TEST_CASE("md5 gives the digests of RFC 1321") {
  CHECK(md5_hex("") == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(md5_hex("a") == "0cc175b9c0f1b6a831c399e269772661");
  CHECK(md5_hex("abc") == "900150983cd24fb0d6963f7d28e17f72");
  CHECK(md5_hex("message digest") == "f96b697d7cb7938d525a2f31aaf161d0");
  CHECK(md5_hex("abcdefghijklmnopqrstuvwxyz") == "c3fcd3d76192e4007dfb496cca67e13b");
  CHECK(md5_hex("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") ==
        "d174ab98d277d9f5a5611c2c9f419d9f");
  std::string digits;
  for (int i = 0; i < 8; ++i) digits += "1234567890";
  CHECK(md5_hex(digits) == "57edf4a22be3c955ac49da2e2107b67a");
  CHECK(md5_unit("abc") == doctest::Approx(0x900150983cp0 / 0x1p40).epsilon(1e-9));
}

TEST_CASE("cleaning text removes overstrikes, soft hyphens and bytes that are not UTF-8") {
  CHECK(data::clean_text("_\bT_\bh_\be   end\b\bnd\n") == "The end");
  CHECK(data::clean_text("soft\u00adhyphen \u201cquoted\u201d it\u2019s") ==
        "softhyphen \"quoted\" it's");
  CHECK(data::clean_text("a\xff"
                         "b\tc") == "a b c");
  CHECK(data::clean_text("caf\u00e9") == "caf\u00e9");
  CHECK(data::find_bad_utf8("caf\u00e9 \U0001f600") == std::string_view::npos);
  CHECK(data::find_bad_utf8("ab\xc3") == 2);
  CHECK(data::find_bad_utf8("\xed\xa0\x80") == 0);  // a surrogate
  CHECK(data::find_bad_utf8("\xc0\x80") == 0);      // an overlong form
}

TEST_CASE("eight running words give a text away, seven do not") {
  data::EightGrams grams;
  grams.add("one two three four five six seven eight nine");
  CHECK(grams.shares_one_with("so: Two, three four FIVE six seven (eight) nine!"));
  CHECK_FALSE(grams.shares_one_with("two three four five six seven eight ten"));
  CHECK_FALSE(grams.shares_one_with("one two three"));
}

TEST_CASE("a gcide article loses pronunciation, etymology and the senses credited to WordNet") {
  const Scratch scratch;
  const std::string text =
      "Coal \\Coal\\ (k[=o]l), n. [AS. col; akin to D. kool.]\n"
      "   1. A thoroughly charred fragment from wood; charcoal. [Obs.] --Bacon.\n"
      "      [1913 Webster]\n\n"
      "   2. a word from somewhere else\n"
      "      [WordNet 1.5]\n\n"
      "   3. (Min.) A black {solid}.\n"
      "      [1913 Webster]\n\n"
      "   Syn: mineral\n";
  uLongf size = compressBound(text.size());
  std::string packed(size, '\0');
  REQUIRE(compress(reinterpret_cast<Bytef*>(packed.data()), &size,
                   reinterpret_cast<const Bytef*>(text.data()), text.size()) == Z_OK);
  packed.resize(size);
  scratch.put("usr/share/dictd/gcide.dict.dz", packed);
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  scratch.put("usr/share/dictd/gcide.index",
              fmt::format("coal\tA\t{}{}\n", kDigits[text.size() / 64], kDigits[text.size() % 64]));
  const auto source = data::read_gcide(scratch.dir);
  REQUIRE(source.documents.size() == 1);
  const auto& entry = source.documents[0].entries.at(0);
  CHECK(entry.head == "Coal, n.");
  CHECK(entry.parts ==
        std::vector<std::string>{"A thoroughly charred fragment from wood; charcoal.",
                                 "(Min.) A black solid."});
  CHECK(source.dropped_wordnet == 2);

  scratch.put("usr/share/dictd/gcide.index", "coal\tA\n");
  CHECK(holds(complaint([&] { data::read_gcide(scratch.dir); }), "gcide.index:1: 2 columns"));
  scratch.put("usr/share/dictd/gcide.dict.dz", packed.substr(0, 20));
  CHECK(holds(complaint([&] { data::read_gcide(scratch.dir); }), "cut-off"));
}

TEST_CASE("the books of the corpus unpack to their first and last verses") {
  const fs::path packages = default_data_dir() / "packages";
  if (!fs::exists(packages / "usr/lib/bible.data")) {
    MESSAGE("SKIPPED: the corpus packages are not here; experiments/data/fetch.sh unpacks them");
    return;
  }
  const auto kjv = data::read_kjv(packages);
  CHECK(kjv.documents.size() == 66);
  CHECK(kjv.documents.at(0).entries.at(0).parts.at(0) ==
        "In the beginning God created the heaven and the earth.");
  CHECK(kjv.documents.back().entries.back().parts.at(0) ==
        "The grace of our Lord Jesus Christ be with you all. Amen.");
  int verses = 0;
  for (const auto& book : kjv.documents) verses += static_cast<int>(book.entries.size());
  CHECK(verses == 31102);

  const auto old = data::read_kjv_verses(packages), other = data::read_web_verses(packages);
  CHECK(old.size() == 31102);
  const auto text = [](const std::vector<data::Verse>& all, int book, int chapter, int verse) {
    for (const data::Verse& v : all)
      if (v.book == book && v.chapter == chapter && v.verse == verse) return v.text;
    return std::string();
  };
  CHECK(holds(text(old, 42, 11, 35), "Jesus wept."));
  CHECK(holds(text(other, 42, 11, 35), "Jesus wept."));
  CHECK(holds(text(old, 18, 23, 1), "my shepherd"));
  CHECK(holds(text(other, 18, 23, 1), "my shepherd"));
  CHECK(
      holds(text(other, 65, 22, 21), "The grace of the Lord Jesus Christ be with all the saints"));
  CHECK(text(other, 65, 22, 22).empty());
}

TEST_CASE("a WordNet line yields words, pointers, frames, definition and examples") {
  const Scratch scratch;
  put_wordnet(scratch, kTinyNoun);
  const WordNet wn = WordNet::load(scratch.dir);
  REQUIRE(wn.size() == 5);
  const Synset& bear = wn[wn.find('n', 20)];
  CHECK(bear.words == std::vector<std::string>{"ice bear", "polar bear"});
  CHECK(bear.id() == "n00000020");
  CHECK(bear.lexname() == "noun.animal");
  CHECK(bear.pointers.at(0).symbol == "@");
  CHECK(bear.pointers.at(0).target == wn.find('n', 10));
  CHECK(wn[wn.find('v', 10)].frames == std::vector<int>{2, 22});
  const Synset& awake = wn[wn.find('a', 10)];
  CHECK(awake.words.at(0) == "awake");
  CHECK(awake.pointers.at(0).source_word == 1);
  CHECK(awake.definition == "not asleep");
  CHECK(awake.examples == std::vector<std::string>{"lay awake"});
  CHECK(bear.examples.back() == "he saw a bear");
  CHECK(wn.find('n', 11) == -1);
}

TEST_CASE("a malformed WordNet line is named by file and line") {
  const Scratch scratch;
  put_wordnet(scratch, "00000010 03 n 01 entity 0 0x0 | what exists\n");
  CHECK(
      holds(complaint([&] { WordNet::load(scratch.dir); }), "data.noun:1: '0x0' is not a number"));
  put_wordnet(scratch, "  licence\n00000010 99 n 01 entity 0 000 | what exists\n");
  CHECK(
      holds(complaint([&] { WordNet::load(scratch.dir); }), "data.noun:2: lexicographer file 99"));
  put_wordnet(scratch, "00000010 03 n 03 entity 0\n");
  CHECK(holds(complaint([&] { WordNet::load(scratch.dir); }), "data.noun:1: the line ends"));
  put_wordnet(scratch, "00000010 03 n 01 entity 0 001 @ 00000099 n 0000 | what exists\n");
  CHECK(holds(complaint([&] { WordNet::load(scratch.dir); }), "n00000010 points to a synset"));
  CHECK(holds(complaint([&] { WordNet::load(scratch.dir / "none"); }), "fetch.sh"));
}

TEST_CASE("a task survives writing and reading") {
  const Scratch scratch;
  const TaskData task = graft::testing::fruit_task();
  write_tsv_task(task, scratch.dir / "toy");
  const TaskData back = load_tsv_task(scratch.dir / "toy");
  CHECK(back.name == "toy");
  CHECK(back.labels == task.labels);
  CHECK_FALSE(back.pair);
  CHECK(back.metric == "accuracy");
  REQUIRE(back.train.size() == task.train.size());
  for (const Example& e : back.train) {  // in another order: an id is a row's place in the file
    CHECK(e.a == task.train.at(e.id).a);
    CHECK(e.label == task.train.at(e.id).label);
  }
  CHECK(back.test.at(0).id == 7);

  TaskData scores = task;
  scores.kind = TaskData::Kind::regression, scores.pair = true;
  for (auto* split : {&scores.train, &scores.dev, &scores.test})
    for (Example& e : *split) e.b = "other text", e.label = -1, e.score = 0.1f + 0.3f * e.id;
  write_tsv_task(scores, scratch.dir / "scores/");
  const TaskData again = load_tsv_task(scratch.dir / "scores/");
  CHECK(again.name == "scores");
  CHECK(again.kind == TaskData::Kind::regression);
  CHECK(again.pair);
  for (const Example& e : again.train) CHECK(e.score == scores.train.at(e.id).score);

  TaskData words = scores;
  words.kind = TaskData::Kind::language;
  write_tsv_task(words, scratch.dir / "words");
  CHECK(kind_of_tsv_task(scratch.dir / "words") == TaskData::Kind::language);
  const TaskData told = load_tsv_task(scratch.dir / "words");
  CHECK(told.kind == TaskData::Kind::language);
  CHECK(told.pair);
  CHECK(told.labels.empty());
  CHECK(told.metric == "loss");
  REQUIRE(told.test.size() == words.test.size());
  CHECK(told.test[0].a == words.test[0].a);
  CHECK(told.test[0].b == "other text");

  TaskData broken = task;
  broken.dev[0].a = "two\tcolumns";
  CHECK(holds(complaint([&] { write_tsv_task(broken, scratch.dir / "broken"); }), "dev.tsv"));
}

TEST_CASE("a malformed task file is named by file and line") {
  const Scratch scratch;
  const auto complain = [&](const char* file, const std::string& text) {
    for (const char* name : {"train.tsv", "dev.tsv", "test.tsv"})
      scratch.put(name, "label\ta\nx\tone\ny\ttwo\n");
    scratch.put(file, text);
    return complaint([&] { load_tsv_task(scratch.dir); });
  };
  CHECK(holds(complain("train.tsv", "x\tone\n"), "train.tsv:1: header"));
  CHECK(holds(complain("dev.tsv", "label\ta\tb\nx\tone\ttwo\n"), "dev.tsv:1: header"));
  CHECK(holds(complain("train.tsv", "label\ta\nx\tone\tmore\n"), "train.tsv:2: 3 columns"));
  CHECK(holds(complain("train.tsv", "label\ta\nx\tone\n\ny\ttwo\n"), "train.tsv:3: 1 columns"));
  CHECK(holds(complain("train.tsv", "label\ta\nx\t \n"), "train.tsv:2: an empty column"));
  CHECK(holds(complain("train.tsv", "label\ta\nx\tone\nlabel\ta\n"), "train.tsv:3: the header"));
  CHECK(holds(complain("test.tsv", "label\ta\nx\tone\ny\t\xff\n"), "test.tsv:3: byte 3"));
  CHECK(holds(complain("dev.tsv", "label\ta\nx\tone\nz\ttwo\n"), "dev.tsv:3: label 'z'"));
  CHECK(holds(complain("dev.tsv", "label\ta\n"), "dev.tsv: no rows"));
  CHECK(holds(complain("train.tsv", "label\ta\nx\tone\n"), "only the label 'x'"));
  CHECK(holds(complain("train.tsv", "score\ta\n1.5\tone\nnan\ttwo\n"), "train.tsv:3: score 'nan'"));
  CHECK(holds(complain("train.tsv", "score\ta\n1.5x\tone\n"), "train.tsv:2: score '1.5x'"));
  CHECK(holds(complain("train.tsv", "prompt\tcontinuation\none\n"), "train.tsv:2: 1 columns"));
  CHECK(holds(complain("train.tsv", "prompt\tcontinuation\none\ttwo\n"), "dev.tsv:1: header"));
  complain("dev.tsv", "");
  scratch.put("dev.tsv", "label\ta\nx\tone\n");
  fs::remove(scratch.dir / "test.tsv");
  CHECK(holds(complaint([&] { load_tsv_task(scratch.dir); }), "test.tsv"));
}

TEST_CASE("metrics give values worked out by hand") {
  const std::vector<int> truth = {0, 0, 1, 1, 2, 2}, guess = {0, 1, 1, 1, 2, 0};
  CHECK(accuracy(truth, guess) == doctest::Approx(4.0 / 6));
  CHECK(macro_f1(truth, guess) == doctest::Approx((0.5 + 0.8 + 2.0 / 3) / 3));
  // Two classes: (tp tn - fp fn) / sqrt((tp+fp)(tp+fn)(tn+fp)(tn+fn)) with tp 2, tn 1, fp 1, fn 1.
  CHECK(matthews(std::vector{1, 1, 1, 0, 0}, std::vector{1, 1, 0, 1, 0}) ==
        doctest::Approx((2 * 1 - 1 * 1) / std::sqrt(3.0 * 3 * 2 * 2)));
  CHECK(matthews(std::vector{1, 1, 0}, std::vector{1, 1, 1}) == 0);
  CHECK(matthews(truth, truth) == doctest::Approx(1));
  const std::vector<float> x = {1, 2, 3, 4}, y = {1, 3, 2, 5}, tied = {1, 2, 2, 9};
  CHECK(pearson(x, y) == doctest::Approx(5.5 / std::sqrt(5 * 8.75)));
  CHECK(spearman(x, y) == doctest::Approx(0.8));
  CHECK(spearman(x, tied) == doctest::Approx(4.5 / std::sqrt(5 * 4.5)));
  CHECK(pearson(x, std::vector<float>(4, 2)) == 0);
  CHECK(
      holds(complaint([&] { accuracy(truth, std::vector<int>{}); }), "6 true values, 0 predicted"));
  CHECK(holds(complaint([&] { class_score("f2", truth, guess); }), "known are accuracy"));
}
