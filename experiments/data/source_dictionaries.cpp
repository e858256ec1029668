// The dictionaries of the corpus: GCIDE, FOLDOC, the Jargon File and the Devil's Dictionary (dictd
// format).
#include <algorithm>
#include <map>
#include <set>

#include "experiments/data/sources.h"
#include "experiments/data/text_clean.h"
#include "nn/files/atomic.h"
#include "tensor/error.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;

// A number in dictd's base 64, most significant digit first.
std::uint64_t base64_number(std::string_view digits, const std::string& where) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::uint64_t value = 0;
  for (const char c : digits) {
    const auto digit = kDigits.find(c);
    check(digit != std::string_view::npos, "{}: '{}' is not a base-64 number", where, digits);
    value = value * 64 + digit;
  }
  return value;
}

// The position behind the bracket that closes text[open], or npos.
std::size_t behind_bracket(std::string_view text, std::size_t open) {
  int depth = 0;
  for (std::size_t i = open; i < text.size(); ++i) {
    depth += (text[i] == '[') - (text[i] == ']');
    if (depth == 0) return i + 1;
  }
  return std::string_view::npos;
}

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_letter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

// "[=o]" is GCIDE's o with a macron, "[ae]" a ligature: the letters stay, the marks go. "[R.]" and
// "[Obs.]" are remarks on use: they go, as longer brackets inside a sentence stay.
std::string without_marks(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{' || text[i] == '}') continue;
    const auto end = text[i] == '[' ? behind_bracket(text, i) : std::string_view::npos;
    if (end == std::string_view::npos) {
      out.push_back(text[i]);
      continue;
    }
    const auto inside = text.substr(i + 1, end - i - 2);
    const bool accent = inside.size() <= 4 && inside.find_first_of(" .") == std::string_view::npos;
    const bool remark = (inside.size() <= 30 && inside.ends_with('.') && is_upper(inside[0])) ||
                        inside.find("1913") != std::string_view::npos;
    if (accent) {
      for (const char c : inside.substr(0, inside.size() > 2 ? 2 : inside.size()))
        if (is_letter(c)) out.push_back(c);
    } else if (!remark) {
      out.push_back('[');
      continue;
    }
    i = end - 1;
  }
  return out;
}

// Drops the author behind a quotation, as in `... to be hoped for. --Locke.`
void drop_author(std::string& text) {
  const auto dash = text.rfind("--");
  if (dash == std::string::npos || dash + 2 >= text.size() || text.size() - dash > 48) return;
  if (is_upper(text[dash + 2])) text.resize(text.find_last_not_of(" -", dash) + 1);
}

// Drops "1. ", "(a) " and the like.
void drop_number(std::string& text) {
  std::size_t i = 0;
  while (i < text.size() && text[i] >= '0' && text[i] <= '9') ++i;
  if (i > 0 && i <= 3 && text.compare(i, 2, ". ") == 0) text.erase(0, i + 2);
  if (text.size() > 4 && text[0] == '(' && text[2] == ')' && text[3] == ' ') text.erase(0, 4);
}

std::string clean_sense(std::string_view raw) {
  std::string text = clean_text(without_marks(clean_text(raw)));
  drop_number(text), drop_number(text);
  drop_author(text);
  replace_all(text, " ,", ",");
  replace_all(text, " .", ".");
  return is_prose(text, 0.6) ? text : std::string();
}

// How many bytes at the start of `text` name a part of speech: "n.", "v. t.", "a. & n.".
std::size_t part_of_speech(std::string_view text) {
  static const std::set<std::string_view> kParts = {
      "n.",        "a.",      "adj.",  "v.",       "t.",       "i.",      "adv.",  "prep.",
      "conj.",     "interj.", "pron.", "pl.",      "p.",       "pr.",     "vb.",   "imp.",
      "sing.",     "&",       "or",    "pref.",    "suff.",    "prefix.", "poss.", "obj.",
      "auxiliary", "masc.",   "fem.",  "collect.", "definite", "article."};
  std::size_t end = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto stop = std::min(text.find(' ', at), text.size());
    if (!kParts.contains(text.substr(at, stop - at))) break;
    end = stop, at = stop + 1;
  }
  return end;
}

// "Head \pron\ (respelling), n. [etymology] (Field.) ..." -> "Head, n." and what stands behind the
// etymology. The pronunciation and the etymology are full of marks that no other text has. Several
// heads may share an article: "Anyway \..\, Anyways \..\, adv.".
std::string take_head(std::string& text) {
  std::string head;
  for (int heads = 0;; ++heads) {
    const auto open = text.find('\\');
    const auto close = open == std::string::npos ? open : text.find('\\', open + 1);
    if (close == std::string::npos || (heads > 0 && open > 40)) break;
    head += (heads ? ", " : "") + std::string(trim(std::string_view(text).substr(0, open)));
    text.erase(0, close + 1);
    if (text.starts_with(" (")) {  // the respelling may hold brackets, never parentheses
      const auto end = text.find(')');
      if (end != std::string::npos && end < 80) text.erase(0, end + 1);
    }
    text.erase(0, std::min(text.find_first_not_of(" ;,"), text.size()));
  }
  const std::size_t part = part_of_speech(text);
  if (part > 0) head += ", " + text.substr(0, part);
  text.erase(0, std::min(text.find_first_not_of(" ;,", part), text.size()));
  while (!head.empty() && text.starts_with('[')) {
    const auto after = behind_bracket(text, 0);
    if (after == std::string::npos) break;
    text.erase(0, std::min(text.find_first_not_of(" ;,", after), text.size()));
  }
  return head;
}

// A line that names who wrote the sense above it, such as `[1913 Webster +PJC]`. Lines of other
// brackets are text.
bool is_credit(std::string_view line) {
  if (!line.starts_with('[') || !line.ends_with(']')) return false;
  for (const char* who : {"Webster", "WordNet", "PJC", "Century", "AS]", "RDH", "RP]", "Worcester"})
    if (line.find(who) != std::string_view::npos) return true;
  return false;
}

bool starts_sense(std::string_view line) {
  std::size_t digits = 0;
  while (digits < line.size() && line[digits] >= '0' && line[digits] <= '9') ++digits;
  if (digits > 0 && digits <= 3 && line.substr(digits).starts_with(". ")) return true;
  return line.size() > 4 && line[0] == '(' && line[2] == ')' && line[3] == ' ';
}

// Gathers the senses of one GCIDE article; what a credit to WordNet closes is forgotten.
struct GcideReader {
  Entry entry;
  int dropped = 0;
  std::vector<std::string> pending;  // senses whose credit has not come yet
  std::string sense;
  bool wordnet = false, first = true;

  void end_sense() {
    if (first && !sense.empty())
      entry.head = clean_text(without_marks(take_head(sense))), first = false;
    std::string clean = clean_sense(sense);
    sense.clear();
    if (!clean.empty()) pending.push_back(std::move(clean));
  }
  void credit(bool to_wordnet) {
    end_sense();
    if (to_wordnet)
      dropped += static_cast<int>(pending.size()), wordnet = true;
    else
      entry.parts.insert(entry.parts.end(), pending.begin(), pending.end());
    pending.clear();
  }
  void line(std::string_view raw) {
    const auto text = trim(raw);
    if (text.empty()) return end_sense();
    const bool wordnet_line = text.find("[WordNet") != std::string_view::npos;
    if (is_credit(text) || wordnet_line)
      return credit(wordnet_line || text.find("WordNet") != std::string_view::npos);
    if (starts_sense(text)) end_sense();
    sense.append(text).push_back(' ');
  }
  // Text behind the last credit belongs to nobody; it is kept only where WordNet wrote none of the
  // rest.
  void finish() { credit(wordnet); }
};

std::vector<std::string> without_references(std::string_view text) {
  std::vector<std::string> out;
  for (std::string& p : paragraphs(text)) {
    for (const char* mark : {"{", "}", "_"}) replace_all(p, mark, "");
    if (is_prose(p, 0.75) && p.size() > 12) out.push_back(std::move(p));
  }
  return out;
}

// Articles whose first line is the headword; the paragraphs behind it are the parts.
Source read_plain(const fs::path& packages, const std::string& name) {
  Source source{name, {{}}, 0};
  for (const Article& article : read_dictd(packages, name)) {
    std::string_view text = article.text;
    text.remove_prefix(std::min(text.find_first_not_of("\r\n"), text.size()));
    const auto line_end = std::min(text.find('\n'), text.size());
    Entry entry;
    entry.head = clean_text(text.substr(0, line_end)) + ":";
    // Further headwords of the article follow at the margin.
    text.remove_prefix(line_end);
    while (text.size() > 1 && text[1] != ' ' && text[1] != '\n')
      text.remove_prefix(std::min(text.find('\n', 1), text.size()));
    entry.parts = without_references(text);
    if (!entry.parts.empty()) source.documents[0].entries.push_back(std::move(entry));
  }
  return source;
}

}  // namespace

std::vector<Article> read_dictd(const fs::path& packages, const std::string& name) {
  const fs::path stem = packages / "usr/share/dictd" / name;
  const std::string where = stem.string() + ".dict.dz";
  const std::string text = inflate(read_file(where), where);
  const std::string index = read_file(stem.string() + ".index");
  std::map<std::uint64_t, std::pair<std::uint64_t, std::string>> ranges;  // offset -> length, head
  int number = 0;
  for (const auto line : split(index, '\n')) {
    ++number;
    if (line.empty()) continue;
    const std::string at = fmt::format("{}.index:{}", stem.string(), number);
    const auto fields = split(line, '\t');
    check(fields.size() >= 3, "{}: {} columns; need headword, offset, length", at, fields.size());
    const auto offset = base64_number(fields[1], at), length = base64_number(fields[2], at);
    check(offset + length <= text.size(), "{}: the article lies outside {}", at, where);
    ranges.try_emplace(offset, length, std::string(fields[0]));
  }
  std::vector<Article> articles;
  std::uint64_t covered = 0;
  for (const auto& [offset, range] : ranges) {
    const auto& [length, head] = range;
    if (offset < covered) continue;
    covered = offset + length;
    if (!head.starts_with("00")) articles.push_back({head, text.substr(offset, length)});
  }
  return articles;
}

Source read_gcide(const fs::path& packages) {
  Source source{"gcide", {}, 0};
  char letter = '\0';
  for (const Article& article : read_dictd(packages, "gcide")) {
    GcideReader reader;
    for (const auto line : split(article.text, '\n')) reader.line(line);
    reader.finish();
    source.dropped_wordnet += reader.dropped;
    if (reader.entry.parts.empty()) continue;
    const char first =
        article.text[std::min(article.text.find_first_not_of(" \n"), article.text.size())];
    const char initial = is_letter(first) ? first | 32 : '\0';
    if (source.documents.empty() || initial != letter) source.documents.emplace_back();
    letter = initial;
    source.documents.back().entries.push_back(std::move(reader.entry));
  }
  return source;
}

Source read_foldoc(const fs::path& packages) { return read_plain(packages, "foldoc"); }

Source read_jargon(const fs::path& packages) { return read_plain(packages, "jargon"); }

// The head is part of the sentence here: "MONDAY, n.  In Christian countries, ..."
Source read_devil(const fs::path& packages) {
  Source source{"devil", {{}}, 0};
  for (const Article& article : read_dictd(packages, "devil")) {
    Entry entry{"", without_references(article.text)};
    if (!entry.parts.empty()) source.documents[0].entries.push_back(std::move(entry));
  }
  return source;
}

}  // namespace graft::data
