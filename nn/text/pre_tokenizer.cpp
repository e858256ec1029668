#include "nn/text/pre_tokenizer.h"

#include <utility>

#include "nn/text/byte_level.h"
#include "nn/text/json_entry.h"
#include "nn/text/unicode.h"
#include "nn/text/word_patterns.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;

constexpr int kMostSteps = 32;  // of a Sequence: each may make the text anew and longer

// A stretch of a word: what a pattern matched, or what lies between two matches.
struct Stretch {
  std::size_t begin, end;
  bool match;
};

// What becomes of the matches; the names are tokenizer.json's.
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior read_behavior(Entry& entry) {
  const std::string name = entry.text("behavior", "Isolated");
  const std::pair<const char*, Behavior> known[] = {
      {"Removed", Behavior::removed},
      {"Isolated", Behavior::isolated},
      {"MergedWithPrevious", Behavior::merged_with_previous},
      {"MergedWithNext", Behavior::merged_with_next},
      {"Contiguous", Behavior::contiguous}};
  for (const auto& [text, behavior] : known)
    if (name == text) return behavior;
  fail(
      "{}: behavior is \"{}\"; need Removed, Isolated, MergedWithPrevious, MergedWithNext or "
      "Contiguous",
      entry.name(), name);
}

void merge_stretches(std::vector<Stretch>& all, Behavior behavior) {
  std::vector<Stretch> kept;
  bool merged = false;  // the last one kept has taken a match in already
  for (const Stretch& s : all) {
    if (s.begin == s.end || (behavior == Behavior::removed && s.match)) continue;
    bool join = false;
    if (!kept.empty() && kept.back().end == s.begin) {
      const Stretch& last = kept.back();
      if (behavior == Behavior::contiguous) join = last.match == s.match;
      if (behavior == Behavior::merged_with_previous) join = s.match && !last.match && !merged;
      if (behavior == Behavior::merged_with_next) join = last.match && !s.match;
    }
    merged = join && behavior == Behavior::merged_with_previous;
    if (join)
      kept.back() = {kept.back().begin, s.end, behavior == Behavior::contiguous && s.match};
    else
      kept.push_back(s);
  }
  all = std::move(kept);
}

// Cuts every word into the stretches that find(text, stretches) names in order, all of the text.
template <class F>
PreTokenizer cutter(Behavior behavior, F find) {
  return [=](Words& all) {
    std::vector<Word> words;
    std::vector<Stretch> stretches;
    for (const Word& word : all.words) {
      stretches.clear();
      find(word.text, stretches);
      if (behavior != Behavior::isolated) merge_stretches(stretches, behavior);
      for (const Stretch& s : stretches)
        if (s.end > s.begin)
          words.push_back({word.text.substr(s.begin, s.end - s.begin), word.first && s.begin == 0});
    }
    all.words = std::move(words);
  };
}

// A pattern that leaves nothing out.
PreTokenizer by_pattern(WordEnd end_of, Behavior behavior, bool invert = false) {
  return cutter(behavior, [=](std::string_view text, std::vector<Stretch>& stretches) {
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = end_of(text, begin);
      stretches.push_back({begin, end, !invert});
      begin = end;
    }
  });
}

// Single characters of the classes, and what lies between them.
PreTokenizer by_class(std::uint16_t classes, Behavior behavior) {
  return cutter(behavior, [=](std::string_view text, std::vector<Stretch>& stretches) {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const Char c = char_at(text, at);
      const std::size_t end = at + std::size_t(c.bytes);
      if (is(c.code, classes)) {
        if (at > done) stretches.push_back({done, at, false});
        stretches.push_back({at, end, true});
        done = end;
      }
      at = end;
    }
    if (done < text.size()) stretches.push_back({done, text.size(), false});
  });
}

PreTokenizer by_string(std::string mark, Behavior behavior, bool invert) {
  return cutter(behavior, [=](std::string_view text, std::vector<Stretch>& stretches) {
    std::size_t done = 0;
    for (std::size_t at; (at = text.find(mark, done)) != std::string_view::npos;) {
      if (at > done) stretches.push_back({done, at, invert});
      stretches.push_back({at, at + mark.size(), !invert});
      done = at + mark.size();
    }
    if (done < text.size()) stretches.push_back({done, text.size(), invert});
  });
}

// Words of letters, marks, digits and connectors, and runs of what is neither that nor space:
// \w+|[^\w\s]+
PreTokenizer by_word_characters() {
  return cutter(Behavior::removed, [](std::string_view text, std::vector<Stretch>& stretches) {
    const auto kind = [](char32_t c) { return is(c, kWord) ? 0 : is(c, kSpace) ? 1 : 2; };
    for (std::size_t at = 0; at < text.size();) {
      const int first = kind(char_at(text, at).code);
      std::size_t end = at;
      while (end < text.size() && kind(char_at(text, end).code) == first)
        end += char_size(text[end]);
      stretches.push_back({at, end, first == 1});
      at = end;
    }
  });
}

// Gives words a new text: make(word, made) appends it.
template <class F>
void rewrite(Words& all, std::size_t most, F make) {
  std::string& made = all.made.emplace_back();
  made.reserve(most);  // never exceeded: the words point into it
  for (Word& word : all.words) {
    const std::size_t begin = made.size();
    make(word, made);
    word.text = std::string_view(made).substr(begin);
  }
}

std::size_t bytes_of(const Words& all) {
  std::size_t bytes = 0;
  for (const Word& word : all.words) bytes += word.text.size();
  return bytes;
}

PreTokenizer by_metaspace(const Metaspace& rule) {
  PreTokenizer split = [](Words&) {};
  if (rule.split)
    split = cutter(Behavior::isolated,
                   [mark = rule.mark](std::string_view text, std::vector<Stretch>& stretches) {
                     std::size_t begin = 0;
                     while (begin < text.size()) {
                       const std::size_t end = std::min(text.find(mark, begin + 1), text.size());
                       stretches.push_back({begin, end, false});
                       begin = end;
                     }
                   });
  return [=](Words& all) {
    const std::size_t most = (bytes_of(all) + all.words.size()) * rule.mark.size();
    rewrite(all, most, [&](const Word& word, std::string& made) {
      const bool marked = word.text.starts_with(' ') || word.text.starts_with(rule.mark);
      const bool wanted = rule.prepend == Metaspace::Prepend::always ||
                          (rule.prepend == Metaspace::Prepend::first && word.first);
      if (wanted && !marked) made += rule.mark;
      for (std::size_t at = 0; at < word.text.size();) {
        const std::size_t space = std::min(word.text.find(' ', at), word.text.size());
        made += word.text.substr(at, space - at);
        if (space < word.text.size()) made += rule.mark;
        at = space + 1;
      }
    });
    split(all);
  };
}

PreTokenizer by_byte_level(Entry& entry) {
  const bool prefix = entry.flag("add_prefix_space", true);
  const bool regex = entry.flag("use_regex", true);
  entry.flag("trim_offsets", true);  // offsets only
  const PreTokenizer cut = regex ? by_pattern(word_end, Behavior::isolated) : nullptr;
  return [=](Words& all) {
    if (prefix)
      rewrite(all, bytes_of(all) + all.words.size(), [](const Word& word, std::string& made) {
        if (!word.text.starts_with(' ')) made += ' ';
        made += word.text;
      });
    if (cut) cut(all);
  };
}

PreTokenizer read_split(Entry& entry) {
  const Behavior behavior = read_behavior(entry);
  const bool invert = entry.flag("invert", false);
  Entry pattern = entry.inner("pattern");
  if (pattern.find("String") != nullptr) {
    const std::string mark = pattern.text("String");
    check(!mark.empty(), "{}: the pattern is empty", entry.name());
    pattern.done();
    return by_string(mark, behavior, invert);
  }
  const std::string regex = pattern.text("Regex");
  pattern.done();
  const WordEnd end = word_pattern(regex);
  check(end != nullptr,
        "{}: the pattern is the Regex '{}'; this version knows GPT-2's, GPT-4's, LLaMA 3's and "
        "Qwen2's (word_patterns.cpp), each as a function",
        entry.name(), regex);
  return by_pattern(end, behavior, invert);
}

PreTokenizerFile read_pre_tokenizers(Entry& entry) {
  std::vector<PreTokenizer> steps;
  bool byte_level = false;
  int count = 0;
  for (const json& value : entry.array("pretokenizers")) {
    const std::string name = fmt::format("{}[{}]", entry.inside("pretokenizers"), steps.size());
    check(!byte_level, "{}: this version reads ByteLevel only as the last step", name);
    PreTokenizerFile step = read_pre_tokenizer(name, value);
    byte_level = step.byte_level;
    steps.push_back(std::move(step.cut));
    count += step.steps;
    check(count <= kMostSteps, "{}: more than {} steps", entry.name(), kMostSteps);
  }
  const auto all_steps = [steps](Words& all) {
    for (const PreTokenizer& step : steps) step(all);
  };
  return {all_steps, byte_level, count};
}

PreTokenizerFile read_kind(Entry& entry) {
  const std::string type = entry.type();
  if (type == "ByteLevel") return {by_byte_level(entry), true};
  if (type == "Sequence") return read_pre_tokenizers(entry);
  if (type == "Split") return {read_split(entry)};
  if (type == "Whitespace") return {by_word_characters()};
  if (type == "WhitespaceSplit") return {by_class(kSpace, Behavior::removed)};
  if (type == "Punctuation") return {by_class(kPunctuation, read_behavior(entry))};
  if (type == "Digits") {
    const bool each = entry.flag("individual_digits", false);
    return {by_class(kNumeric, each ? Behavior::isolated : Behavior::contiguous)};
  }
  if (type == "BertPreTokenizer")
    return {[spaces = by_class(kSpace, Behavior::removed),
             signs = by_class(kPunctuation, Behavior::isolated)](Words& all) {
      spaces(all);
      signs(all);
    }};
  fail(
      "{}: type is \"{}\"; need one of ByteLevel, Split, Whitespace, WhitespaceSplit, "
      "BertPreTokenizer, Metaspace, Punctuation, Digits, Sequence",
      entry.name(), type);
}

}  // namespace

Metaspace read_metaspace(const std::string& name, const json& value) {
  Entry entry(name, value);
  entry.need("type", "Metaspace", nullptr);
  entry.text("str_rep", "");  // older files: the replacement once more
  Metaspace made;
  made.mark = entry.text("replacement");
  check(count_chars(made.mark) == 1, "{}: replacement is '{}'; need one character", name,
        made.mark);
  const std::string scheme = entry.text("prepend_scheme", "always");
  check(scheme == "always" || scheme == "first" || scheme == "never",
        "{}: prepend_scheme is '{}'; need always, first or never", name, scheme);
  made.prepend = scheme == "always"  ? Metaspace::Prepend::always
                 : scheme == "first" ? Metaspace::Prepend::first
                                     : Metaspace::Prepend::never;
  // Files older than prepend_scheme say it with this flag; true says no more than the scheme does.
  if (!entry.flag("add_prefix_space", true)) {
    check(entry.find("prepend_scheme") == nullptr || scheme == "never",
          "{}: add_prefix_space is false, prepend_scheme is '{}'", name, scheme);
    made.prepend = Metaspace::Prepend::never;
  }
  made.split = entry.flag("split", true);
  entry.done();
  return made;
}

PreTokenizerFile read_pre_tokenizer(const std::string& name, const json& value) {
  if (type_of(name, value) == "Metaspace") return {by_metaspace(read_metaspace(name, value))};
  Entry entry(name, value);
  PreTokenizerFile made = read_kind(entry);
  entry.done();
  return made;
}

}  // namespace graft
