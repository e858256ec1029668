// Where the classes and lower case of Hugging Face's tokenizers differ from utf8proc's: newer or
// older versions of Unicode in the libraries beneath it.
//
// Measured on every code point with tokenizers 0.23 against utf8proc 2.8 (Unicode 15). Its pattern
// matcher and letter case know Unicode 16, its punctuation and accents stop at Unicode 8.
#pragma once

#include <cstdint>
#include <span>

namespace graft {

struct CodeRange {
  char32_t first, last;
};

// For the codes in `yes` the answer is yes, in `no` no; for all others it is utf8proc's.
struct ClassCorrection {
  std::uint16_t of;  // a Class
  std::span<const CodeRange> yes, no;
};
std::span<const ClassCorrection> class_corrections();

struct LowerCorrection {
  char32_t first, last;
  std::int32_t shift;
};
std::span<const LowerCorrection> lower_corrections();

// Characters that are newer than the reference's normal forms: it neither decomposes them nor moves
// them, nor anything across them. In order.
std::span<const CodeRange> unnormalized();

}  // namespace graft
