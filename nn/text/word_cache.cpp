#include "nn/text/word_cache.h"

#include <cstring>
#include <utility>

namespace graft {

std::uint64_t WordCache::hash_of(std::string_view word) {
  std::uint64_t hash = word.size();
  const auto mix = [&](std::uint64_t part) {
    hash = (hash ^ part) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  };
  std::uint64_t part;
  for (; word.size() > 8; word.remove_prefix(8)) {
    std::memcpy(&part, word.data(), 8);
    mix(part);
  }
  part = 0;
  std::memcpy(&part, word.data(), word.size());
  mix(part);
  return hash ^ hash >> 32;
}

bool WordCache::place(const Place& entry) {
  for (std::size_t i = 0; i < kProbes; ++i) {
    Place& place = places_[(entry.hash + i) & (places_.size() - 1)];
    if (place.bytes > 0) continue;
    place = entry;
    return true;
  }
  return false;
}

void WordCache::add(std::string_view word, std::span<const int> ids) {
  if (word.empty() || word.size() > kWordBytes || count_ >= kWords) return;
  if (2 * count_ >= places_.size()) {
    const std::vector<Place> old =
        std::exchange(places_, std::vector<Place>(places_.empty() ? 1024 : 2 * places_.size()));
    for (const Place& entry : old)
      if (entry.bytes > 0) place(entry);
  }
  Place entry{hash_of(word), std::uint32_t(words_.size()), std::uint32_t(ids_.size()),
              std::uint32_t(ids.size()), std::uint32_t(word.size())};
  if (!place(entry)) return;
  ++count_;
  words_ += word;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

}  // namespace graft
