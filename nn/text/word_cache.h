// The ids of words met before: most of a text is words met before.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// Keeps short words up to a bound, and forgets none. Not for several threads at once.
class WordCache {
 public:
  static constexpr std::size_t kWords = 1 << 18, kWordBytes = 64;

  // Appends the ids of a word and says whether it is known.
  bool append(std::string_view word, std::vector<int>& ids) const {
    if (word.size() > kWordBytes || places_.empty()) return false;
    const std::uint64_t hash = hash_of(word);
    for (std::size_t i = 0; i < kProbes; ++i) {
      const Place& place = places_[(hash + i) & (places_.size() - 1)];
      if (place.bytes == 0) return false;
      if (place.hash != hash || place.bytes != word.size()) continue;
      if (std::string_view(words_).substr(place.word, place.bytes) != word) continue;
      const int* first = ids_.data() + place.ids;
      ids.insert(ids.end(), first, first + place.count);
      return true;
    }
    return false;
  }

  void add(std::string_view word, std::span<const int> ids);

 private:
  // A word lies at most this far from where it belongs, so that words made to collide cost little.
  static constexpr std::size_t kProbes = 16;
  struct Place {
    std::uint64_t hash;
    std::uint32_t word, ids, count, bytes = 0;  // offsets into the arrays below; bytes 0: empty
  };
  static std::uint64_t hash_of(std::string_view word);
  bool place(const Place& entry);

  std::vector<Place> places_;
  std::size_t count_ = 0;
  std::string words_;
  std::vector<int> ids_;
};

}  // namespace graft
