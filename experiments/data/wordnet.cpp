// Parses WordNet 3.0 lines: `offset lexfile type words pointers [frames] | gloss`.
#include "experiments/data/wordnet.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <fstream>

#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 45> kLexnames = {
    "adj.all",          "adj.pert",           "adv.all",
    "noun.Tops",        "noun.act",           "noun.animal",
    "noun.artifact",    "noun.attribute",     "noun.body",
    "noun.cognition",   "noun.communication", "noun.event",
    "noun.feeling",     "noun.food",          "noun.group",
    "noun.location",    "noun.motive",        "noun.object",
    "noun.person",      "noun.phenomenon",    "noun.plant",
    "noun.possession",  "noun.process",       "noun.quantity",
    "noun.relation",    "noun.shape",         "noun.state",
    "noun.substance",   "noun.time",          "verb.body",
    "verb.change",      "verb.cognition",     "verb.communication",
    "verb.competition", "verb.consumption",   "verb.contact",
    "verb.creation",    "verb.emotion",       "verb.motion",
    "verb.perception",  "verb.possession",    "verb.social",
    "verb.stative",     "verb.weather",       "adj.ppl"};

std::uint64_t key_of(char pos, std::uint32_t offset) {
  return static_cast<std::uint64_t>(static_cast<unsigned char>(pos)) << 32 | offset;
}

// Takes the fields of one line from left to right; every complaint names file and line.
class Fields {
 public:
  Fields(std::string_view line, std::string where) : rest_(line), where_(std::move(where)) {}

  std::string_view next() {
    const auto end = rest_.find(' ');
    check(end != std::string_view::npos && end > 0, "{}: the line ends within its fields", where_);
    const auto field = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return field;
  }

  int number(int base) {
    const auto field = next();
    int value = 0;
    const auto [end, error] =
        std::from_chars(field.data(), field.data() + field.size(), value, base);
    check(error == std::errc() && end == field.data() + field.size(),
          "{}: '{}' is not a number of base {}", where_, field, base);
    return value;
  }

  std::string_view rest() const { return rest_; }
  const std::string& where() const { return where_; }

 private:
  std::string_view rest_;
  std::string where_;
};

// "well-known(p)" -> "well-known"; "ice_cream" -> "ice cream".
std::string plain_word(std::string_view written) {
  std::string word(written.substr(0, written.find('(')));
  for (char& c : word)
    if (c == '_') c = ' ';
  return word;
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" ;");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" ;") - first + 1);
}

// Splits `definition; "example"; "example"`. A quotation mark inside the definition, as in
// `(used with "of")`, does not follow a semicolon, and so does not end it.
void read_gloss(std::string_view gloss, Synset& out) {
  gloss = trim(gloss);
  std::size_t from = 0;
  if (gloss.starts_with('"')) {
    out.definition.clear();
  } else {
    const auto end = gloss.find("; \"");
    out.definition = trim(gloss.substr(0, end));
    if (end == std::string_view::npos) return;
    from = end;
  }
  while (true) {
    const auto open = gloss.find('"', from);
    if (open == std::string_view::npos) return;
    const auto close = gloss.find('"', open + 1);
    if (close == std::string_view::npos) return;
    const auto example = trim(gloss.substr(open + 1, close - open - 1));
    if (!example.empty()) out.examples.emplace_back(example);
    from = close + 1;
  }
}

// A pointer's target is kept as key_of() in `targets` until all files are read.
Synset read_line(std::string_view line, const std::string& where,
                 std::vector<std::uint64_t>& targets) {
  Fields fields(line, where);
  Synset s;
  s.offset = static_cast<std::uint32_t>(fields.number(10));
  s.lexfile = fields.number(10);
  check(s.lexfile >= 0 && s.lexfile < static_cast<int>(kLexnames.size()),
        "{}: lexicographer file {}; WordNet 3.0 has 0..{}", where, s.lexfile, kLexnames.size() - 1);
  s.pos = fields.next()[0];
  if (s.pos == 's') s.pos = 'a';
  for (int n = fields.number(16); n > 0; --n) {
    s.words.push_back(plain_word(fields.next()));
    fields.next();
  }
  for (int n = fields.number(10); n > 0; --n) {
    Synset::Pointer p;
    p.symbol = fields.next();
    const auto offset = static_cast<std::uint32_t>(fields.number(10));
    char pos = fields.next()[0];
    if (pos == 's') pos = 'a';
    const int ends = fields.number(16);
    p.source_word = ends >> 8, p.target_word = ends & 0xff;
    targets.push_back(key_of(pos, offset));
    s.pointers.push_back(std::move(p));
  }
  if (s.pos == 'v') {
    for (int n = fields.number(10); n > 0; --n) {
      fields.next();
      s.frames.push_back(fields.number(10));
      fields.next();
    }
  }
  check(fields.next() == "|", "{}: no '|' before the gloss", where);
  read_gloss(fields.rest(), s);
  return s;
}

}  // namespace

std::string_view Synset::lexname() const { return kLexnames[lexfile]; }

std::string Synset::id() const { return fmt::format("{}{:08d}", pos, offset); }

WordNet WordNet::load(const fs::path& dir) {
  WordNet wn;
  std::vector<std::uint64_t> targets;
  for (const char* name : {"data.noun", "data.verb", "data.adj", "data.adv"}) {
    const fs::path path = dir / name;
    std::ifstream file(path);
    check(file.good(), "wordnet: cannot read {}; experiments/data/fetch.sh unpacks it",
          path.string());
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      if (line.starts_with(' ')) continue;  // the licence
      wn.synsets_.push_back(read_line(line, fmt::format("{}:{}", path.string(), number), targets));
      const Synset& s = wn.synsets_.back();
      wn.index_[key_of(s.pos, s.offset)] = wn.size() - 1;
    }
  }
  std::size_t next = 0;
  for (Synset& s : wn.synsets_) {
    for (Synset::Pointer& p : s.pointers) {
      const auto found = wn.index_.find(targets[next++]);
      check(found != wn.index_.end(), "wordnet: {} points to a synset that is not in {}", s.id(),
            dir.string());
      p.target = found->second;
    }
  }
  return wn;
}

int WordNet::find(char pos, std::uint32_t offset) const {
  const auto found = index_.find(key_of(pos, offset));
  return found == index_.end() ? -1 : found->second;
}

fs::path find_wordnet(const fs::path& packages) {
  for (const fs::path& dir : {packages / "usr/share/wordnet", fs::path("/usr/share/wordnet")})
    if (fs::exists(dir / "data.noun")) return dir;
  return {};
}

fs::path default_data_dir() {
  if (const char* dir = std::getenv("GRAFT_DATA"); dir && *dir) return dir;
  if (const char* dir = std::getenv("XDG_CACHE_HOME"); dir && *dir)
    return fs::path(dir) / "graft" / "data";
  const char* home = std::getenv("HOME");
  check(home && *home, "data: none of GRAFT_DATA, XDG_CACHE_HOME and HOME is set");
  return fs::path(home) / ".cache" / "graft" / "data";
}

}  // namespace graft
