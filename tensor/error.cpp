#include "tensor/error.h"

#include <string_view>

namespace graft {
namespace {

constexpr std::size_t kLongest = 10'000, kTail = 1000;  // bytes of a message, and of its end

unsigned byte(std::string_view text, std::size_t at) {
  return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
}

// Bytes of the printable character at `at`; 0 where none stands there. The first byte bounds the
// second so that no character has two spellings and no surrogate has one (Unicode, table 3-7).
std::size_t printable(std::string_view text, std::size_t at) {
  const unsigned first = byte(text, at), second = byte(text, at + 1);
  if (first < 0x80) return first == '\n' || first == '\t' || (first >= 0x20 && first != 0x7F);
  if (first < 0xC2 || first > 0xF4) return 0;
  const unsigned least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : first == 0xC2 ? 0xA0 : 0x80;
  const unsigned most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (second < least || second > most) return 0;  // from C2 80 to C2 9F they are controls
  const std::size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  for (std::size_t i = 2; i < size; ++i)
    if ((byte(text, at + i) & 0xC0) != 0x80) return 0;
  return size;
}

std::string printed(std::string_view text) {
  std::string made;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = printable(text, at);
    if (size > 0)
      made += text.substr(at, size);
    else
      made += fmt::format("\\x{:02x}", byte(text, at));
    at += size > 0 ? size : 1;
  }
  return made;
}

}  // namespace

void throw_error(std::string message) {
  if (message.size() > kLongest) {
    const auto continues = [&](std::size_t at) { return (byte(message, at) & 0xC0) == 0x80; };
    std::size_t head = kLongest - kTail, tail = message.size() - kTail;
    for (int i = 0; i < 3 && continues(head); ++i) --head;
    for (int i = 0; i < 3 && continues(tail); ++i) ++tail;
    const std::string left_out = fmt::format(" ... ({} bytes left out) ... ", tail - head);
    message.replace(head, tail - head, left_out);
  }
  throw Error(printed(message));
}

}  // namespace graft
