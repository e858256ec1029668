// A hash of bytes in memory, 32 at a time: what lists of commands and uploads are looked up by,
// while the device waits. What finds them compares every byte afterwards; and no run's record has
// one of these (tensor/hash.h has those).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace graft::cuda {

inline std::uint64_t word_hash(const void* from, std::size_t bytes) {
  constexpr std::uint64_t kFactor = 0x9E3779B97F4A7C15ull;
  const auto mixed = [](std::uint64_t h, std::uint64_t word) {
    h = (h ^ word) * kFactor;
    return h ^ h >> 32;
  };
  const auto* at = static_cast<const unsigned char*>(from);
  std::uint64_t lane[4] = {bytes, 1, 2, 3};  // four products under way at a time
  for (; bytes >= 32; at += 32, bytes -= 32)
    for (int l = 0; l < 4; ++l) {
      std::uint64_t word = 0;
      std::memcpy(&word, at + 8 * l, 8);
      lane[l] = mixed(lane[l], word);
    }
  for (int l = 0; bytes > 0; ++l) {
    const std::size_t n = bytes < 8 ? bytes : 8;
    std::uint64_t word = 0;
    std::memcpy(&word, at, n);
    lane[l] = mixed(lane[l], word);
    at += n, bytes -= n;
  }
  return mixed(mixed(mixed(lane[0], lane[1]), lane[2]), lane[3]);
}

}  // namespace graft::cuda
