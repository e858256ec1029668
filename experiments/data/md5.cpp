// MD5 after RFC 1321, section 3; the constants are those of its reference code.
#include "experiments/data/md5.h"

#include <bit>
#include <cmath>

namespace graft {
namespace {

using State = std::array<std::uint32_t, 4>;

constexpr int kShift[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

// T[i] = floor(2^32 |sin(i + 1)|).
const std::array<std::uint32_t, 64>& sines() {
  static const auto table = [] {
    std::array<std::uint32_t, 64> t{};
    for (int i = 0; i < 64; ++i)
      t[i] = static_cast<std::uint32_t>(std::floor(4294967296.0 * std::fabs(std::sin(i + 1.0))));
    return t;
  }();
  return table;
}

void add_block(State& state, const unsigned char* block) {
  std::uint32_t x[16];
  for (int i = 0; i < 16; ++i)
    x[i] = block[4 * i] | block[4 * i + 1] << 8 | block[4 * i + 2] << 16 |
           static_cast<std::uint32_t>(block[4 * i + 3]) << 24;
  auto [a, b, c, d] = state;
  const auto& t = sines();
  for (int i = 0; i < 64; ++i) {
    std::uint32_t f = 0;
    int k = 0;
    switch (i / 16) {
      case 0:
        f = (b & c) | (~b & d), k = i;
        break;
      case 1:
        f = (b & d) | (c & ~d), k = (5 * i + 1) % 16;
        break;
      case 2:
        f = b ^ c ^ d, k = (3 * i + 5) % 16;
        break;
      default:
        f = c ^ (b | ~d), k = 7 * i % 16;
    }
    const std::uint32_t next = b + std::rotl(a + f + x[k] + t[i], kShift[i / 16][i % 4]);
    a = d, d = c, c = b, b = next;
  }
  state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

}  // namespace

std::array<std::uint8_t, 16> md5(std::string_view text) {
  State state{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::size_t done = 0;
  for (; done + 64 <= text.size(); done += 64) add_block(state, bytes + done);

  std::string tail(text.substr(done));
  tail.push_back('\x80');
  while (tail.size() % 64 != 56) tail.push_back('\0');
  const std::uint64_t bits = 8 * static_cast<std::uint64_t>(text.size());
  for (int i = 0; i < 8; ++i) tail.push_back(static_cast<char>(bits >> 8 * i & 0xff));
  for (std::size_t i = 0; i < tail.size(); i += 64)
    add_block(state, reinterpret_cast<const unsigned char*>(tail.data()) + i);

  std::array<std::uint8_t, 16> digest{};
  for (int i = 0; i < 16; ++i) digest[i] = state[i / 4] >> 8 * (i % 4) & 0xff;
  return digest;
}

std::string md5_hex(std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const std::uint8_t byte : md5(text)) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

double md5_unit(std::string_view text) {
  const auto d = md5(text);
  const std::uint32_t head = static_cast<std::uint32_t>(d[0]) << 24 | d[1] << 16 | d[2] << 8 | d[3];
  return head / 4294967296.0;
}

}  // namespace graft
