#include "nn/text/normalizer.h"

#include <memory>
#include <utility>
#include <vector>

#include "nn/text/charsmap.h"
#include "nn/text/json_entry.h"
#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;

// Steps that each replace a little by much could make a short text endless. The longest normal form
// of one character is eleven times its bytes.
void check_growth(std::size_t made, std::size_t from) {
  check(
      made <= kMostGrowth * from + kMostAdded,
      "tokenizer: its normalizer makes more than {} bytes of a text of {}; need {} times the text "
      "and {} at most",
      made, from, kMostGrowth, kMostAdded);
}

// The text with each character replaced by what f(code, bytes, made) appends.
template <class F>
std::string each_char(std::string_view text, F f) {
  std::string made;
  made.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Char c = char_at(text, at);
    f(c.code, text.substr(at, std::size_t(c.bytes)), made);
    at += std::size_t(c.bytes);
  }
  return made;
}

std::string without(std::string_view text, Class left_out) {
  return each_char(text, [&](char32_t c, std::string_view bytes, std::string& made) {
    if (!is(c, left_out)) made += bytes;
  });
}

std::string strip(std::string_view text, bool left, bool right) {
  std::size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const Char c = char_at(text, begin);
    if (!is(c.code, kSpace)) break;
    begin += std::size_t(c.bytes);
  }
  while (right && end > begin) {
    std::size_t start = end - 1;
    while ((static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!is(char_at(text, start).code, kSpace)) break;
    end = start;
  }
  return std::string(text.substr(begin, end - begin));
}

struct Bert {
  bool clean, ideographs, strip_accents, lowercase;

  std::string ascii(std::string text) const {
    std::size_t kept = 0;
    for (const char c : text) {
      const std::uint16_t classes = clean ? classes_of(char32_t(c)) : 0;
      if ((classes & kControl) != 0) continue;
      const char spaced = (classes & kSpace) != 0 ? ' ' : c;
      text[kept++] = lowercase && spaced >= 'A' && spaced <= 'Z' ? char(spaced + 32) : spaced;
    }
    text.resize(kept);
    return text;
  }

  std::string operator()(std::string text) const {
    if (is_ascii(text)) return ascii(std::move(text));
    text = each_char(text, [&](char32_t c, std::string_view bytes, std::string& made) {
      const std::uint16_t classes = classes_of(c);
      if (clean && (c == 0xFFFD || (classes & kControl) != 0)) return;
      const bool apart = ideographs && (classes & kIdeograph) != 0;
      if (apart) made += ' ';
      made += clean && (classes & kSpace) != 0 ? " " : bytes;
      if (apart) made += ' ';
    });
    if (strip_accents) text = without(normal_form(text, NormalForm::nfd), kNonspacing);
    return lowercase ? lower_case(text) : text;
  }
};

// Neural machine translation's clean-up, as sentencepiece's rule nmt_nfkc has it.
std::string nmt(std::string_view text) {
  return each_char(text, [](char32_t c, std::string_view bytes, std::string& made) {
    const bool space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    const bool gone = (c >= 0x01 && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    if (space)
      made += ' ';
    else if (!gone)
      made += bytes;
  });
}

std::string replace_all(std::string_view text, std::string_view old, std::string_view fresh) {
  std::string made;
  std::size_t done = 0;
  for (std::size_t at; (at = text.find(old, done)) != std::string_view::npos;) {
    made += text.substr(done, at - done);
    made += fresh;
    check_growth(made.size(), text.size());
    done = at + old.size();
  }
  return made += text.substr(done);
}

// Runs of `least` or more spaces (of any white space), each replaced.
std::string replace_runs(std::string_view text, bool any, std::size_t least,
                         std::string_view fresh) {
  std::string made;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at, count = 0;
    while (end < text.size()) {
      const Char c = char_at(text, end);
      if (any ? !is(c.code, kSpace) : c.code != ' ') break;
      end += std::size_t(c.bytes), ++count;
    }
    if (count >= least) {
      made += fresh;
      check_growth(made.size(), text.size());
    } else {
      if (count == 0) end = at + char_size(text[at]);
      made += text.substr(at, end - at);
    }
    at = end;
  }
  return made;
}

Normalizer read_bert(Entry& entry) {
  Bert bert{};
  bert.clean = entry.flag("clean_text", true);
  bert.ideographs = entry.flag("handle_chinese_chars", true);
  bert.lowercase = entry.flag("lowercase", true);
  bert.strip_accents = entry.flag("strip_accents", bert.lowercase);
  return bert;
}

Normalizer read_normalizers(Entry& entry) {
  std::vector<Normalizer> steps;
  for (const json& step : entry.array("normalizers"))
    steps.push_back(
        read_normalizer(fmt::format("{}[{}]", entry.inside("normalizers"), steps.size()), step));
  return [steps](std::string text) {
    const std::size_t from = text.size();
    for (const Normalizer& step : steps) {
      text = step(std::move(text));
      check_growth(text.size(), from);
    }
    return text;
  };
}

Normalizer read_kind(const std::string& type, Entry& entry) {
  const std::pair<const char*, NormalForm> forms[] = {{"NFC", NormalForm::nfc},
                                                      {"NFD", NormalForm::nfd},
                                                      {"NFKC", NormalForm::nfkc},
                                                      {"NFKD", NormalForm::nfkd}};
  for (const auto& [name, form] : forms)
    if (type == name) return [form = form](std::string text) { return normal_form(text, form); };
  if (type == "Lowercase") return lower_case;
  if (type == "StripAccents") return [](std::string text) { return without(text, kCombining); };
  if (type == "Nmt") return nmt;
  if (type == "BertNormalizer") return read_bert(entry);
  if (type == "Sequence") return read_normalizers(entry);
  if (type == "Strip") {
    const bool left = entry.flag("strip_left", true), right = entry.flag("strip_right", true);
    return [=](std::string text) { return strip(text, left, right); };
  }
  if (type == "Prepend")
    return [before = entry.text("prepend")](std::string text) {
      check_growth(before.size(), text.size());
      return text.empty() ? text : before + text;
    };
  if (type == "Precompiled") {
    const std::string name = entry.inside("precompiled_charsmap");
    const auto map =
        std::make_shared<Charsmap>(name, from_base64(name, entry.text("precompiled_charsmap")));
    return [map](std::string text) { return map->normalize(text); };
  }
  fail(
      "{}: type is \"{}\"; need one of NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, "
      "Prepend, Replace, BertNormalizer, Nmt, Precompiled, Sequence",
      entry.name(), type);
}

}  // namespace

Normalizer read_replace(const std::string& name, const json& value) {
  Entry entry(name, value);
  entry.need("type", "Replace", nullptr);
  const std::string fresh = entry.text("content");
  Entry pattern = entry.inner("pattern");
  entry.done();
  if (pattern.find("String") != nullptr) {
    const std::string old = pattern.text("String");
    check(!old.empty(), "{}: the pattern is empty", name);
    pattern.done();
    return [=](std::string text) { return replace_all(text, old, fresh); };
  }
  const std::string regex = pattern.text("Regex");
  pattern.done();
  check(regex == " {2,}" || regex == "\\s+",
        "{}: the pattern is the Regex '{}'; this version knows ' {{2,}}' and '\\s+'", name, regex);
  const bool any = regex == "\\s+";
  return [=](std::string text) { return replace_runs(text, any, any ? 1 : 2, fresh); };
}

Normalizer read_normalizer(const std::string& name, const json& value) {
  Entry entry(name, value);
  const std::string type = entry.type();
  if (type == "Replace") return read_replace(name, value);
  Normalizer made = read_kind(type, entry);
  entry.done();
  return made;
}

}  // namespace graft
