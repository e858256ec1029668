// The corpus builder: on small packages of our own, and on Debian's.
#include <doctest/doctest.h>
#include <zlib.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/data/corpus.h"
#include "experiments/data/md5.h"
#include "experiments/data/wordnet.h"
#include "nn/files/atomic.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Packages {
  Folder folder;
  const fs::path path = folder / "packages";
  const fs::path out = folder / "out";

  void put(const fs::path& name, const std::string& bytes) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name, std::ios::binary) << bytes;
  }
  // A dictionary of dictd: its articles one behind the other, compressed, and where each stands.
  void put_dictionary(const std::string& name, const std::vector<std::string>& articles) const {
    const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto number = [&](std::size_t n) {
      return std::string{digits[n / 64 % 64], digits[n % 64]};
    };
    std::string text, index;
    for (const std::string& article : articles) {
      index += "head\t" + number(text.size()) + "\t" + number(article.size()) + "\n";
      text += article;
    }
    uLongf size = compressBound(text.size());
    std::string packed(size, '\0');
    REQUIRE(compress(reinterpret_cast<Bytef*>(packed.data()), &size,
                     reinterpret_cast<const Bytef*>(text.data()), text.size()) == Z_OK);
    put("usr/share/dictd/" + name + ".dict.dz", packed.substr(0, size));
    put("usr/share/dictd/" + name + ".index", index);
  }

  Packages() {
    put("usr/share/wordnet/data.noun",
        "00000010 28 n 01 dusk 0 000 | the time between the light of day and the dark of night; "
        "\"cats dogs mice rats owls hens cows pigs\"  \n");
    put("usr/share/wordnet/data.verb", "00000010 38 v 01 go 0 000 01 + 02 00 | move  \n");
    put("usr/share/wordnet/data.adj", "00000010 00 s 01 awake 0 000 | not asleep  \n");
    put("usr/share/wordnet/data.adv", "00000010 02 r 01 awake 0 000 | in an awake manner  \n");
    const auto sense = [](const std::string& text) {
      return "   " + text + "\n      [1913 Webster]\n\n";
    };
    const std::string coal =
        "Coal \\Coal\\, n.\n" + sense("1. A thoroughly charred fragment from wood.");
    put_dictionary(
        "gcide",
        {coal,
         "Crow \\Crow\\, n.\n" + sense("1. A black bird of the fields.") +
             "   2. A crow as another book has it.\n      [WordNet 1.5]\n\n",
         coal,  // again
         // Seven of the gloss's words in a row, then eight.
         "Dawn \\Dawn\\, n.\n" + sense("It hangs between the light of day and the other thing."),
         "Dusk \\Dusk\\, n.\n" + sense("It falls between the light of day and the dark."),
         // Eight of an example's words only where the two senses meet.
         "Fauna \\Fauna\\, n.\n" + sense("1. Cats dogs mice rats.") +
             sense("2. Owls hens cows pigs.")});
    put_dictionary("foldoc", {"Apple\n\n  A fruit that was never sold by weight.\n"});
    put_dictionary("jargon", {});
    put_dictionary("devil", {});
    put("usr/share/games/fortunes/people",
        "The number 63 stands apart.\n%\nTwo words\n%\nCoal, n. A thoroughly charred fragment from "
        "wood.\n%\nA plain saying\nover two lines.\n");
    put("usr/share/games/fortunes/people.dat", "no text");
    std::string bible(0x60, '\0');  // without a verse
    put("usr/lib/bible.data", bible.replace(0, 4, "EC02"));
    for (const char* testament : {"ot", "nt"})
      for (const char* part : {".bzs", ".bzv", ".bzz"})
        put(std::string("usr/share/sword/modules/texts/ztext/engWEB2015eb/") + testament + part,
            "");
    put("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb", "");
  }
};

}  // namespace

TEST_CASE("a corpus has no WordNet, no line twice, and the held-out lines nowhere else") {
  const Packages packages;
  std::string said;
  build_corpus(packages.path, packages.out,
               [&](std::string_view line) { said += std::string(line) + "\n"; });
  const std::string train = read_file(packages.out / "corpus.train.txt"),
                    heldout = read_file(packages.out / "corpus.heldout.txt");
  CHECK(train ==
        "Coal, n. A thoroughly charred fragment from wood.\n"
        "Crow, n. A black bird of the fields.\n\n"  // a blank line ends a letter
        "Dawn, n. It hangs between the light of day and the other thing.\n\n"
        "Apple: A fruit that was never sold by weight.\n\n"
        "A plain saying over two lines.\n\n");
  // The md5 of "heldout", a unit separator and the line begins 01 53: 0.5 %. Those of the lines
  // above are above 1 %.
  CHECK(heldout == "The number 63 stands apart.\n\n");

  const auto json = nlohmann::json::parse(read_file(packages.out / "corpus.json"));
  const auto count = [](int lines, int words, int bytes) {
    return nlohmann::json{{"lines", lines}, {"words", words}, {"bytes", bytes}};
  };
  CHECK(json.at("train") == count(5, 44, 228));
  CHECK(json.at("heldout") == count(1, 5, 28));
  CHECK(json.at("train_md5") == md5_hex(train));
  CHECK(json.at("heldout_md5") == md5_hex(heldout));
  const auto& sources = json.at("sources");
  std::vector<std::string> names;
  for (const auto& s : sources) names.push_back(s.at("name"));
  CHECK(names == std::vector<std::string>{"gcide", "foldoc", "jargon", "devil", "fortunes", "kjv",
                                          "web", "austen"});
  const auto dropped = [](int credited, int shared, int repeated, int fragments) {
    return nlohmann::json{{"credited_to_wordnet", credited},
                          {"shares_8_words_with_wordnet", shared},
                          {"repeated", repeated},
                          {"under_3_words", fragments}};
  };
  CHECK(sources[0].at("dropped") == dropped(1, 2, 1, 0));
  CHECK(sources[0].at("train") == count(3, 29, 151));
  CHECK(sources[1].at("dropped") == dropped(0, 0, 0, 0));
  CHECK(sources[4].at("dropped") == dropped(0, 0, 1, 1));
  CHECK(sources[4].at("heldout") == count(1, 5, 28));
  contains(said,
           "gcide           29 words in      3 lines; dropped 1 of WordNet, 2 like it, 1 rep");

  const fs::path again = packages.folder / "again";
  build_corpus(packages.path, again);
  for (const char* file : {"corpus.train.txt", "corpus.heldout.txt", "corpus.json"})
    CHECK(read_file(again / file) == read_file(packages.out / file));
}

TEST_CASE("a corpus is not made without one of its packages, and WordNet is one") {
  const Packages packages;
  fs::remove(packages.path / "usr/share/dictd/devil.index");
  contains(error_of([&] { build_corpus(packages.path, packages.out); }), "devil.index");
  CHECK_FALSE(fs::exists(packages.out / "corpus.train.txt"));
  if (fs::exists("/usr/share/wordnet/data.noun")) return;  // it is read from there, too
  fs::remove_all(packages.path / "usr/share/wordnet");
  contains(error_of([&] { build_corpus(packages.path, packages.out); }),
           "without it its text cannot be kept out");
}

TEST_CASE("Debian 12's packages give the corpus that the bases have read") {
#ifdef GRAFT_SANITIZED
  MESSAGE("SKIPPED: ten seconds are minutes under the sanitizers; a small corpus is made there");
  return;
#endif
  const fs::path packages = default_data_dir() / "packages";
  if (!fs::exists(packages / "usr/lib/bible.data")) {
    MESSAGE("SKIPPED: the corpus packages are not here; experiments/data/fetch.sh unpacks them");
    return;
  }
  const Folder out;
  build_corpus(packages, out.path);
  CHECK(md5_hex(read_file(out / "corpus.train.txt")) == "9d275a3dc93bd84af5241f005c1b7863");
  CHECK(md5_hex(read_file(out / "corpus.heldout.txt")) == "29236dd3e08c6832659a72f50e2756c5");
}
