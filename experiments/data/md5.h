// MD5 (RFC 1321), used as a portable hash for data splits; it protects nothing.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace graft {

// The 16 bytes of the digest of `text`.
std::array<std::uint8_t, 16> md5(std::string_view text);

// The digest as 32 lower-case hexadecimal digits.
std::string md5_hex(std::string_view text);

// The first 8 hexadecimal digits of the digest as a number in [0, 1).
double md5_unit(std::string_view text);

}  // namespace graft
