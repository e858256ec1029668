// Tokenizers, from a tokenizer.json and from the older files.
#include <algorithm>
#include <span>
#include <string>

#include "nn/text/tokenizer.h"
#include "tensor/error.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {
namespace {

constexpr const char* kTexts[] = {
    "",
    " ",
    "Hello, wolf!  It's 1234567 o'clock\r\n\tnow",
    "caf\u00e9 cafe\u0301 \uFF21 \u4F60\u597D \U0001F469\u200D\U0001F680",
    "<s>[MASK] </s> <0x0A>a\u2581b",
    "\u0130\u01C5\u1E9E \u0958 \uAC01\u1100\u1161 \u00AD\u200B\uFEFF\u202E"};

// Every id that comes out must be a token that can be shown.
void encode(const Tokenizer& tokenizer, std::string_view text) {
  const MarkedIds one = tokenizer.encode_marked(text), two = tokenizer.encode_marked(text, "a b");
  const std::span<const int> some =
      std::span(one.ids).first(std::min<std::size_t>(one.ids.size(), 64));
  for (const int id : two.ids) (void)tokenizer.token(id);
  for (const bool skip : {false, true}) (void)tokenizer.decode(some, skip);
}

void use(const Tokenizer& tokenizer, std::string_view more) {
  for (const std::string_view text : kTexts) try {
      encode(tokenizer, text);
    } catch (const Error&) {  // of one text: an unknown character where there is no unk_token
    }
  encode(tokenizer, more);
}

}  // namespace

// Parts: tokenizer.json; a text.
void read_tokenizer(std::string_view bytes) {
  const auto part = parts(bytes, 2);
  const Scratch folder;
  folder.put("tokenizer.json", part[0]);
  use(Tokenizer::load(folder.path()), part[1]);
}

// Parts: the name of the kind; tokenizer_config.json; special_tokens_map.json; added_tokens.json;
// merges.txt; the vocabulary or the sentencepiece model.
void read_older_tokenizer(std::string_view bytes) {
  const auto part = parts(bytes, 6);
  const Scratch folder;
  folder.put("tokenizer_config.json", part[1]);
  folder.put("special_tokens_map.json", part[2]);
  folder.put("added_tokens.json", part[3]);
  folder.put("merges.txt", part[4]);
  for (const char* kind : {"vocab.json", "vocab.txt", "spiece.model", "tokenizer.model"})
    if (part[0] == kind) folder.put(kind, part[5]);
  use(Tokenizer::load(folder.path()), "a text of \u4F60\u597D");
}

}  // namespace graft::fuzz
