// Reader of the WordNet 3.0 database files (data.noun, data.verb, data.adj, data.adv; wndb(5WN)).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace graft {

struct Synset {
  struct Pointer {
    std::string symbol;  // "@" hypernym, "@i" instance, "!" antonym, ";c" topic, ... (wninput(5WN))
    int target = 0;      // index of a synset
    int source_word = 0, target_word = 0;  // 1-based words it joins; 0: the whole synset
  };

  std::uint32_t offset = 0;        // byte offset in its file: with `pos`, WordNet's own name for it
  char pos = 'n';                  // n v a r; satellite adjectives are a
  int lexfile = 0;                 // number of the lexicographer file, see lexname()
  std::vector<std::string> words;  // as written, with spaces for '_' and no "(p)" marker
  std::vector<Pointer> pointers;
  std::vector<int> frames;  // verb frames that hold for the whole synset or for some word of it
  std::string definition;
  std::vector<std::string> examples;  // without their quotation marks

  // "noun.food" and the like.
  std::string_view lexname() const;
  // "n00001740": stable between runs and machines.
  std::string id() const;
};

class WordNet {
 public:
  // Reads the four data files in `dir`; throws Error naming file and line for anything malformed.
  static WordNet load(const std::filesystem::path& dir);

  // All synsets, nouns first, then verbs, adjectives, adverbs, each in file order.
  const std::vector<Synset>& synsets() const { return synsets_; }
  const Synset& operator[](int index) const { return synsets_[index]; }
  int size() const { return static_cast<int>(synsets_.size()); }

  // Index of the synset of `pos` at `offset`, or -1.
  int find(char pos, std::uint32_t offset) const;

 private:
  std::vector<Synset> synsets_;
  std::unordered_map<std::uint64_t, int> index_;
};

// The first of `packages`/usr/share/wordnet and /usr/share/wordnet that holds the data files;
// empty where neither does.
std::filesystem::path find_wordnet(const std::filesystem::path& packages);

// $GRAFT_DATA, or $XDG_CACHE_HOME/graft/data, or ~/.cache/graft/data: where fetch.sh puts things.
std::filesystem::path default_data_dir();

}  // namespace graft
