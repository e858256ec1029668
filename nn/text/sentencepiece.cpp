#include "nn/text/sentencepiece.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

constexpr std::size_t kLongestPiece = 1000;  // bytes; sentencepiece itself makes 16 characters

// One message of the wire format, field by field.
class Message {
 public:
  Message(const std::string& name, std::string_view bytes) : name_(name), rest_(bytes) {}

  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    field_ = key >> 3;
    number_ = 0, bytes_ = {};
    switch (key & 7) {
      case 0:
        number_ = varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        fail("{}: no sentencepiece model: wire type {}", name_, key & 7);
    }
    return true;
  }
  std::uint64_t field() const { return field_; }
  std::uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }
  float real() const {
    check(bytes_.size() == 4, "{}: no sentencepiece model: a score of {} bytes", name_,
          bytes_.size());
    std::uint32_t bits = 0;
    for (int i = 3; i >= 0; --i)
      bits = bits << 8 | static_cast<unsigned char>(bytes_[std::size_t(i)]);
    return std::bit_cast<float>(bits);
  }

 private:
  std::string_view take(std::uint64_t size) {
    check(size <= rest_.size(), "{}: no sentencepiece model: {} bytes announced, {} left", name_,
          size, rest_.size());
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("{}: no sentencepiece model: a number of more than 64 bits", name_);
  }

  const std::string& name_;
  std::string_view rest_, bytes_;
  std::uint64_t field_ = 0, number_ = 0;
};

SentencePiece read_piece(const std::string& name, std::string_view bytes) {
  SentencePiece piece;
  for (Message m(name, bytes); m.next();) {
    if (m.field() == 1) piece.text = m.bytes();
    if (m.field() == 2) piece.score = m.real();
    if (m.field() == 3) piece.type = int(m.number() & 0xFF);
  }
  check(!piece.text.empty() && piece.text.size() <= kLongestPiece &&
            find_invalid_utf8(piece.text) == std::string::npos && std::isfinite(piece.score),
        "{}: a piece has {} bytes and score {}; need 1..{} bytes of UTF-8 and a finite score", name,
        piece.text.size(), piece.score, kLongestPiece);
  return piece;
}

}  // namespace

SentencePieceModel read_sentencepiece(const std::string& name, std::string_view bytes) {
  SentencePieceModel model;
  for (Message m(name, bytes); m.next();) {
    if (m.field() == 1) model.pieces.push_back(read_piece(name, m.bytes()));
    if (m.field() == 2)
      for (Message trainer(name, m.bytes()); trainer.next();) {
        if (trainer.field() == 3) model.type = int(trainer.number() & 0xFF);
        if (trainer.field() == 35) model.byte_fallback = trainer.number() != 0;
      }
    if (m.field() == 3)
      for (Message normalizer(name, m.bytes()); normalizer.next();)
        if (normalizer.field() == 2) model.charsmap = normalizer.bytes();
  }
  check(!model.pieces.empty(), "{}: no sentencepiece model: it has no pieces", name);
  return model;
}

}  // namespace graft
