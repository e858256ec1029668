// Sentencepiece's model files, as far as a tokenizer needs them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct SentencePiece {
  enum Type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  std::string text;
  float score = 0;
  int type = normal;
};

struct SentencePieceModel {
  enum Type { unigram = 1, bpe = 2 };
  std::vector<SentencePiece> pieces;  // by id
  int type = unigram;
  bool byte_fallback = false;
  std::string charsmap;  // precompiled (charsmap.h); empty where there is none
};

// Reads the bytes of a .model file: Protocol Buffers' wire format of sentencepiece_model.proto.
// Fields that the training alone needed are passed over. Throws Error, beginning with `name`, for
// bytes that are no such message, and for pieces that are not UTF-8 or very long.
SentencePieceModel read_sentencepiece(const std::string& name, std::string_view bytes);

}  // namespace graft
