// Joins the sources, drops what WordNet or an earlier line already says, and splits off the
// held-out lines.
#include "experiments/data/corpus.h"

#include <fmt/format.h>

#include <array>
#include <unordered_set>

#include "experiments/data/md5.h"
#include "experiments/data/sources.h"
#include "experiments/data/text_clean.h"
#include "experiments/data/wordnet.h"
#include "nn/files/atomic.h"
#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using namespace data;

constexpr double kHeldOut = 0.01;
constexpr int kMaxWords = 160;  // a longer article is cut between its parts
constexpr int kMinWords = 3;

struct Count {
  std::int64_t lines = 0, words = 0, bytes = 0;
  void add(std::string_view line) {
    ++lines;
    bytes += static_cast<std::int64_t>(line.size()) + 1;
    for (std::size_t i = 0; i < line.size(); ++i)
      words += line[i] != ' ' && (i == 0 || line[i - 1] == ' ');
  }
  void add(const Count& other) { lines += other.lines, words += other.words, bytes += other.bytes; }
  std::string json() const {
    return fmt::format(R"({{"lines": {}, "words": {}, "bytes": {}}})", lines, words, bytes);
  }
};

int count_words(std::string_view text) {
  Count c;
  c.add(text);
  return static_cast<int>(c.words);
}

struct Tally {
  std::string name;
  Count train, heldout;
  std::int64_t credited = 0, leaks = 0, repeats = 0, fragments = 0;
  std::string json() const {
    return fmt::format(
        "{{\"name\": \"{}\", \"train\": {}, \"heldout\": {},\n     \"dropped\": "
        "{{\"credited_to_wordnet\": {}, "
        "\"shares_8_words_with_wordnet\": {}, \"repeated\": {}, \"under_{}_words\": {}}}}}",
        name, train.json(), heldout.json(), credited, leaks, repeats, kMinWords, fragments);
  }
};

class Builder {
 public:
  explicit Builder(const WordNet& wn) {
    for (const Synset& s : wn.synsets()) {
      wordnet_.add(s.definition);
      for (const std::string& example : s.examples) wordnet_.add(example);
    }
  }

  void add(const Source& source) {
    tallies_.push_back({source.name, {}, {}, source.dropped_wordnet});
    for (const Document& document : source.documents) {
      const std::size_t train = train_.size(), heldout = heldout_.size();
      for (const Entry& entry : document.entries) add_entry(entry);
      if (train_.size() > train) train_.push_back('\n');
      if (heldout_.size() > heldout) heldout_.push_back('\n');
    }
  }

  void write(const fs::path& out) const {
    Count train, heldout;
    std::string sources;
    for (const Tally& t : tallies_) {
      sources += (sources.empty() ? "    " : ",\n    ") + t.json();
      train.add(t.train), heldout.add(t.heldout);
    }
    fs::create_directories(out);
    write_file_atomically(out / "corpus.train.txt", train_);
    write_file_atomically(out / "corpus.heldout.txt", heldout_);
    write_file_atomically(
        out / "corpus.json",
        fmt::format("{{\n  \"train\": {},\n  \"train_md5\": \"{}\",\n  \"heldout\": {},\n  "
                    "\"heldout_md5\": \"{}\",\n  \"sources\": [\n{}\n  ]\n}}\n",
                    train.json(), md5_hex(train_), heldout.json(), md5_hex(heldout_), sources));
  }

  const Tally& last() const { return tallies_.back(); }

 private:
  void add_entry(const Entry& entry) {
    std::string line = entry.head;
    int words = count_words(line), parts = 0;
    for (const std::string& part : entry.parts) {
      if (wordnet_.shares_one_with(part)) {
        ++tallies_.back().leaks;
        continue;
      }
      const int more = count_words(part);
      if (parts > 0 && words + more > kMaxWords) {
        add_line(line);
        line = entry.head, words = 0, parts = 0;
      }
      if (!line.empty()) line.push_back(' ');
      line += part, words += more, ++parts;
    }
    if (parts > 0) add_line(line);
  }

  void add_line(const std::string& line) {
    Tally& tally = tallies_.back();
    // A run of eight words may also arise where two parts, or head and part, meet.
    if (wordnet_.shares_one_with(line)) {
      ++tally.leaks;
    } else if (count_words(line) < kMinWords) {
      ++tally.fragments;
    } else if (!seen_.insert(line).second) {
      ++tally.repeats;
    } else {
      const bool out = md5_unit("heldout\x1f" + line) < kHeldOut;
      (out ? heldout_ : train_).append(line).push_back('\n');
      (out ? tally.heldout : tally.train).add(line);
    }
  }

  EightGrams wordnet_;
  std::unordered_set<std::string> seen_;
  std::string train_, heldout_;
  std::vector<Tally> tallies_;
};

}  // namespace

void build_corpus(const fs::path& packages, const fs::path& out, const CorpusProgress& progress) {
  const auto say = [&](const std::string& line) {
    if (progress) progress(line);
  };
  const fs::path wordnet = find_wordnet(packages);
  check(!wordnet.empty(), "corpus: WordNet is not in {}; without it its text cannot be kept out",
        packages.string());
  Builder builder(WordNet::load(wordnet));
  static constexpr std::array kReaders = {read_gcide,    read_foldoc, read_jargon, read_devil,
                                          read_fortunes, read_kjv,    read_web,    read_austen};
  for (const auto read : kReaders) {
    builder.add(read(packages));
    const Tally& t = builder.last();
    say(fmt::format(
        "corpus: {:9} {:8} words in {:6} lines; dropped {} of WordNet, {} like it, {} repeated",
        t.name, t.train.words + t.heldout.words, t.train.lines + t.heldout.lines, t.credited,
        t.leaks, t.repeats));
  }
  builder.write(out);
  say(fmt::format("corpus: wrote {}", (out / "corpus.train.txt").string()));
}

}  // namespace graft
