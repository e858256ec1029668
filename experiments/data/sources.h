// One reader per source of the pretraining corpus: package files in, clean entries out.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace graft::data {

// A dictionary entry or a paragraph: `head` (may be empty) and the parts that stand after it, each
// small enough to be dropped alone. All text is clean UTF-8 on one line.
struct Entry {
  std::string head;
  std::vector<std::string> parts;
};

struct Document {
  std::vector<Entry> entries;
};

struct Source {
  std::string name;
  std::vector<Document> documents;
  int dropped_wordnet = 0;  // senses that the source itself credits to WordNet
};

// Each takes the folder into which the packages were unpacked and throws Error naming the file that
// is missing or malformed.
Source read_gcide(const std::filesystem::path& packages);
Source read_foldoc(const std::filesystem::path& packages);
Source read_jargon(const std::filesystem::path& packages);
Source read_devil(const std::filesystem::path& packages);
Source read_fortunes(const std::filesystem::path& packages);
Source read_kjv(const std::filesystem::path& packages);
Source read_web(const std::filesystem::path& packages);
Source read_austen(const std::filesystem::path& packages);

// One verse with its reference, for what pairs two translations. Psalm titles, introductions and
// the Apocrypha are left out.
struct Verse {
  int book = 0;  // 0 Genesis ... 65 Revelation
  int chapter = 0, verse = 0;
  std::string text;
};
std::vector<Verse> read_kjv_verses(const std::filesystem::path& packages);
std::vector<Verse> read_web_verses(const std::filesystem::path& packages);

// One article of a dictd dictionary, markup and all, in file order. The articles that describe the
// database itself are left out.
struct Article {
  std::string head;  // its first headword
  std::string text;
};
std::vector<Article> read_dictd(const std::filesystem::path& packages, const std::string& name);

}  // namespace graft::data
