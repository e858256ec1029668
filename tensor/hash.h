// A 64-bit FNV-1a hash, taken in as it goes: what runs, models and tasks are told apart by.
#pragma once

#include <cstddef>
#include <cstdint>

namespace graft {

class Hash {
 public:
  void bytes(const void* from, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) word(static_cast<const unsigned char*>(from)[i]);
  }
  // One step for the whole word: for values that are hashes or counts already.
  void word(std::uint64_t x) { value_ = (value_ ^ x) * 1099511628211ull; }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 14695981039346656037ull;
};

}  // namespace graft
