#include "nn/text/decoder.h"

#include <climits>
#include <optional>
#include <utility>

#include "nn/text/byte_level.h"
#include "nn/text/json_entry.h"
#include "nn/text/normalizer.h"
#include "nn/text/pre_tokenizer.h"
#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;
using Tokens = std::vector<std::string>;

void replace(std::string& text, std::string_view old, std::string_view fresh) {
  if (old.empty()) return;
  std::string made;
  std::size_t done = 0;
  for (std::size_t at; (at = text.find(old, done)) != std::string::npos; done = at + old.size())
    made.append(text, done, at - done).append(fresh);
  text = made.append(text, done);
}

void byte_level(Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += unspell(token).value_or(token);
  tokens.assign(1, replace_invalid_utf8(std::move(bytes)));
}

// English as BERT's vocabulary takes it apart, put together again within one token.
void clean_up(std::string& token) {
  static const std::pair<const char*, const char*> rules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [old, fresh] : rules) replace(token, old, fresh);
}

Decoder word_piece(Entry& entry) {
  const std::string prefix = entry.text("prefix", "##");
  const bool clean = entry.flag("cleanup", true);
  return [=](Tokens& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && tokens[i].starts_with(prefix))
        tokens[i].erase(0, prefix.size());
      else if (i > 0)
        tokens[i].insert(0, 1, ' ');
      if (clean) clean_up(tokens[i]);
    }
  };
}

Decoder metaspace(const Metaspace& rule) {
  return [=](Tokens& tokens) {
    const bool drop = rule.prepend != Metaspace::Prepend::never;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      replace(tokens[i], rule.mark, i == 0 && drop ? "" : " ");
  };
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The byte that a token such as <0x0A> stands for; the reference also takes a plus for a digit.
std::optional<char> fallback_byte(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = token[3] == '+' ? 0 : hex_digit(token[3]), low = hex_digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return char(16 * high + low);
}

// Runs of bytes become text; where a run is not UTF-8, one U+FFFD for each of its bytes.
void byte_fallback(Tokens& tokens) {
  Tokens made;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (find_invalid_utf8(bytes) == std::string::npos)
      made.push_back(bytes);
    else
      for (std::size_t i = 0; i < bytes.size(); ++i) made.emplace_back("\uFFFD");
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = fallback_byte(token)) {
      bytes += *byte;
      continue;
    }
    flush();
    made.push_back(std::move(token));
  }
  flush();
  tokens = std::move(made);
}

void fuse(Tokens& tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  tokens.assign(1, std::move(all));
}

// Up to `start` of the character at the start of each token and up to `stop` at its end go.
Decoder strip(Entry& entry) {
  const std::string content = entry.text("content");
  check(count_chars(content) == 1, "{}: content is '{}'; need one character", entry.name(),
        content);
  const std::size_t start = entry.count("start", INT_MAX), stop = entry.count("stop", INT_MAX);
  return [=](Tokens& tokens) {
    for (std::string& token : tokens) {
      std::size_t begin = 0, end = token.size();
      const auto part = [&] { return std::string_view(token).substr(begin, end - begin); };
      for (std::size_t i = 0; i < start && part().starts_with(content); ++i)
        begin += content.size();
      for (std::size_t i = 0; i < stop && part().ends_with(content); ++i) end -= content.size();
      token = token.substr(begin, end - begin);
    }
  };
}

Decoder suffix_ends_word(Entry& entry) {
  return [suffix = entry.text("suffix", "</w>")](Tokens& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      replace(tokens[i], suffix, i + 1 == tokens.size() ? "" : " ");
  };
}

Decoder sequence(Entry& entry) {
  std::vector<Decoder> steps;
  for (const json& step : entry.array("decoders"))
    steps.push_back(
        read_decoder(fmt::format("{}[{}]", entry.inside("decoders"), steps.size()), step));
  return [steps](Tokens& tokens) {
    for (const Decoder& step : steps) step(tokens);
  };
}

Decoder read_kind(const std::string& type, Entry& entry) {
  if (type == "WordPiece") return word_piece(entry);
  if (type == "BPEDecoder") return suffix_ends_word(entry);
  if (type == "ByteFallback") return byte_fallback;
  if (type == "Fuse") return fuse;
  if (type == "Strip") return strip(entry);
  if (type == "Sequence") return sequence(entry);
  if (type == "ByteLevel") {
    for (const char* unused : {"add_prefix_space", "trim_offsets", "use_regex"})
      entry.flag(unused, true);  // they are the pre-tokenizer's
    return byte_level;
  }
  fail(
      "{}: type is \"{}\"; need one of ByteLevel, WordPiece, Metaspace, BPEDecoder, ByteFallback, "
      "Fuse, Strip, Replace, Sequence",
      entry.name(), type);
}

}  // namespace

Decoder read_decoder(const std::string& name, const json& value) {
  const std::string type = type_of(name, value);
  if (type == "Metaspace") return metaspace(read_metaspace(name, value));
  if (type == "Replace")
    return [change = read_replace(name, value)](Tokens& tokens) {
      for (std::string& token : tokens) token = change(std::move(token));
    };
  Entry entry(name, value);
  Decoder made = read_kind(entry.type(), entry);
  entry.done();
  return made;
}

}  // namespace graft
