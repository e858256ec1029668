// The books of the corpus: fortune files, the King James Bible, the World English Bible, Jane
// Austen's novels.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <set>
#include <utility>

#include "experiments/data/sources.h"
#include "experiments/data/text_clean.h"
#include "nn/files/atomic.h"
#include "tensor/error.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeb = "usr/share/sword/modules/texts/ztext/engWEB2015eb";

std::uint32_t big32(std::string_view bytes, std::size_t at, const std::string& where) {
  check(at + 4 <= bytes.size(), "{}: the file ends at byte {}; a number was due", where, at);
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

std::uint32_t little(std::string_view bytes, std::size_t at, int width) {
  std::uint32_t value = 0;
  for (int i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// One block as the Unix `compress` program writes it (LZW, 9 to 16 bits, code 256 clears), without
// its header. Codes come in groups of eight of one width, so a change of width skips what is left
// of a group.
std::string unpack_lzw(std::string_view packed, std::size_t most, const std::string& where) {
  constexpr int kClear = 256;
  std::vector<std::pair<int, char>>
      table;  // code - 257 -> (code of all but the last byte, last byte)
  std::string out, word;
  int width = 9, previous = -1;
  std::size_t bit = 0, group = 0;
  const auto align = [&] {
    const std::size_t bits = 8 * width;
    bit = group + (bit - group + bits - 1) / bits * bits;
    group = bit;
  };
  while (out.size() < most && bit + width <= 8 * packed.size()) {
    int code = 0;
    for (int i = 0; i < width; ++i)
      code |= (static_cast<unsigned char>(packed[(bit + i) / 8]) >> (bit + i) % 8 & 1) << i;
    bit += width;
    if (code == kClear) {
      align();
      table.clear(), width = 9, previous = -1;
      continue;
    }
    const int known = 257 + static_cast<int>(table.size());
    check(code < known || (code == known && previous >= 0), "{}: damaged compressed text", where);
    const char first_of_previous = word.empty() ? '\0' : word.front();
    word.clear();
    int c = code;
    if (c == known) word.push_back(first_of_previous), c = previous;
    for (; c > kClear; c = table[c - 257].first) word.push_back(table[c - 257].second);
    word.push_back(static_cast<char>(c));
    std::reverse(word.begin(), word.end());
    out += word;
    if (previous >= 0 && known < 65536) table.emplace_back(previous, word.front());
    previous = code;
    if (257 + static_cast<int>(table.size()) >= 1 << width && width < 16) {
      align();
      ++width;
    }
  }
  return out;
}

// Text of an OSIS fragment: notes, titles and tags go; a note between two words leaves a space.
std::string osis_text(std::string_view xml) {
  std::string out;
  int hidden = 0;
  for (std::size_t i = 0; i < xml.size();) {
    if (xml[i] != '<') {
      if (hidden == 0) out.push_back(xml[i]);
      ++i;
      continue;
    }
    const auto end = xml.find('>', i);
    if (end == std::string_view::npos) break;
    const auto tag = xml.substr(i + 1, end - i - 1);
    const bool hides = tag.starts_with("note") || tag.starts_with("title");
    const bool shows = tag.starts_with("/note") || tag.starts_with("/title");
    if (hides && !tag.ends_with('/')) ++hidden;
    if (shows) --hidden;
    // Poetry and paragraphs are marked by empty tags between lines; words by a pair around each.
    if (shows || tag.ends_with('/')) out.push_back(' ');
    i = end + 1;
  }
  for (const auto& [from, to] :
       {std::pair{"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}})
    replace_all(out, from, to);
  std::string clean = clean_text(out);
  for (const auto& [from, to] :
       {std::pair{" ,", ","}, {" .", "."}, {" ;", ";"}, {" ?", "?"}, {" !", "!"}})
    replace_all(clean, from, to);
  return clean;
}

// Calls f(slot, whether a book begins, its XML) for every slot of one testament that holds
// something: each verse has a slot, and so has what stands before a book and before a chapter.
template <class F>
void each_slot(const fs::path& stem, const F& f) {
  const std::string blocks = read_file(stem.string() + ".bzs");
  const std::string slots = read_file(stem.string() + ".bzv");
  const std::string packed = read_file(stem.string() + ".bzz");
  std::string book;
  std::uint32_t open = ~0u;
  for (std::size_t v = 0; v + 10 <= slots.size(); v += 10) {
    const std::uint32_t block = little(slots, v, 4), start = little(slots, v + 4, 4);
    const std::uint32_t size = little(slots, v + 8, 2);
    if (size == 0) continue;
    const bool begins = block != open;
    if (begins) {  // a block is a book
      const std::size_t at = 12 * std::size_t{block};
      check(at + 12 <= blocks.size(), "{}.bzv: verse in block {}", stem.string(), block);
      const std::uint32_t from = little(blocks, at, 4), length = little(blocks, at + 4, 4);
      check(from + std::size_t{length} <= packed.size(), "{}.bzz is cut off", stem.string());
      book = inflate(std::string_view(packed).substr(from, length), stem.string() + ".bzz");
      open = block;
    }
    check(start + std::size_t{size} <= book.size(), "{}.bzv: verse beyond its book", stem.string());
    f(static_cast<int>(v / 10), begins, std::string_view(book).substr(start, size));
  }
}

void read_testament(const fs::path& stem, std::vector<Document>& out) {
  bool in_chapter = false;
  each_slot(stem, [&](int, bool begins, std::string_view xml) {
    if (begins) in_chapter = false, out.emplace_back();
    // What precedes a book's first chapter is an introduction or a table of contents.
    in_chapter = in_chapter || xml.find("<chapter") != std::string_view::npos;
    std::string text = in_chapter ? osis_text(xml) : std::string();
    if (!text.empty()) out.back().entries.push_back({"", {std::move(text)}});
  });
}

constexpr std::array<std::string_view, 66> kBooks = {
    "Gen",   "Exod", "Lev",  "Num",  "Deut", "Josh", "Judg",  "Ruth",   "1Sam",   "2Sam",  "1Kgs",
    "2Kgs",  "1Chr", "2Chr", "Ezra", "Neh",  "Esth", "Job",   "Ps",     "Prov",   "Eccl",  "Song",
    "Isa",   "Jer",  "Lam",  "Ezek", "Dan",  "Hos",  "Joel",  "Amos",   "Obad",   "Jonah", "Mic",
    "Nah",   "Hab",  "Zeph", "Hag",  "Zech", "Mal",  "Matt",  "Mark",   "Luke",   "John",  "Acts",
    "Rom",   "1Cor", "2Cor", "Gal",  "Eph",  "Phil", "Col",   "1Thess", "2Thess", "1Tim",  "2Tim",
    "Titus", "Phlm", "Heb",  "Jas",  "1Pet", "2Pet", "1John", "2John",  "3John",  "Jude",  "Rev"};

// "Gen.1" of `<chapter osisID="Gen.1" ...>`, where `xml` opens a chapter; a tag that closes one
// stands behind its last verse and has no osisID.
std::string_view opened_chapter(std::string_view xml) {
  constexpr std::string_view kId = "osisID=\"";
  for (auto tag = xml.find("<chapter "); tag != xml.npos; tag = xml.find("<chapter ", tag + 1)) {
    const auto text = xml.substr(tag, xml.find('>', tag) - tag);
    if (const auto at = text.find(kId); at != text.npos)
      return text.substr(at + kId.size(), text.find('"', at + kId.size()) - at - kId.size());
  }
  return {};
}

// A chapter's first slot names it; the n-th after that holds its verse n.
void read_verses(const fs::path& stem, std::vector<Verse>& out) {
  Verse place{-1, 0, 0, ""};
  int opened = 0;
  each_slot(stem, [&](int slot, bool, std::string_view xml) {
    if (const auto id = opened_chapter(xml); !id.empty()) {
      const auto dot = std::min(id.find('.'), id.size());
      const auto book = std::find(kBooks.begin(), kBooks.end(), id.substr(0, dot));
      place.book = book == kBooks.end() ? -1 : static_cast<int>(book - kBooks.begin());
      place.chapter = dot < id.size() ? std::atoi(std::string(id.substr(dot + 1)).c_str()) : 0;
      opened = slot;
      return;
    }
    std::string text = place.book < 0 ? std::string() : osis_text(xml);
    if (!text.empty()) out.push_back({place.book, place.chapter, slot - opened, std::move(text)});
  });
}

// The lines of an R character vector (XDR serialisation, version 2 or 3).
std::string r_lines(std::string_view xdr, const std::string& where) {
  constexpr std::uint32_t kStrings = 16;
  check(xdr.starts_with("X\n"), "{}: not an R object in XDR form", where);
  std::size_t at = 14;
  if (big32(xdr, 2, where) == 3) at += 4 + big32(xdr, 14, where);
  check((big32(xdr, at, where) & 0xff) == kStrings, "{}: not an R character vector", where);
  const std::uint32_t count = big32(xdr, at + 4, where);
  at += 8;
  std::string lines;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t length = big32(xdr, at + 4, where);
    at += 8;
    if (length != ~0u) {  // ~0 is R's NA
      check(at + length <= xdr.size(), "{}: line {} is cut off", where, i);
      lines.append(xdr.substr(at, length));
      at += length;
    }
    lines.push_back('\n');
  }
  return lines;
}

}  // namespace

Source read_fortunes(const fs::path& packages) {
  static const std::set<std::string> kNoProse = {"ascii-art", "translate-me"};
  const fs::path dir = packages / "usr/share/games/fortunes";
  check(fs::is_directory(dir), "data: {} is missing; run experiments/data/fetch.sh", dir.string());
  std::set<fs::path> files;
  for (const auto& file : fs::directory_iterator(dir))
    if (!file.path().has_extension() && file.is_regular_file() &&
        !kNoProse.contains(file.path().filename().string()))
      files.insert(file.path());
  Source source{"fortunes", {}, 0};
  for (const fs::path& file : files) {
    Document document;
    std::string joined;
    const std::string text = read_file(file) + "\n%\n";
    for (const auto line : split(text, '\n')) {
      if (line != "%") {
        joined.append(line).push_back('\n');
        continue;
      }
      std::string clean = clean_text(joined);
      joined.clear();
      if (is_prose(clean, 0.75)) document.entries.push_back({"", {std::move(clean)}});
    }
    source.documents.push_back(std::move(document));
  }
  return source;
}

std::vector<Verse> read_kjv_verses(const fs::path& packages) {
  const fs::path path = packages / "usr/lib/bible.data";
  const std::string where = path.string(), data = read_file(path);
  check(data.starts_with("EC02"), "{}: not an EC02 file", where);
  const std::uint32_t window = big32(data, 0x54, where), count = big32(data, 0x58, where);
  std::string text;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t from = big32(data, 0x5c + 4 * i, where);
    const std::uint32_t to = big32(data, 0x60 + 4 * i, where);
    check(from <= to && to <= data.size(), "{}: block {} lies outside the file", where, i);
    text += unpack_lzw(std::string_view(data).substr(from, to - from), window, where);
  }
  std::vector<Verse> verses;
  std::string_view book;
  int number = -1;
  for (const auto line : split(text, '\n')) {
    const auto space = line.find(' '), colon = line.find(':');
    if (space == std::string_view::npos || colon == std::string_view::npos || colon > space)
      continue;
    // "1Ch12:3 text": the book is the reference without its chapter and verse.
    const auto reference = line.substr(0, colon);
    const auto name = reference.substr(0, reference.find_last_not_of("0123456789") + 1);
    if (name != book) ++number;
    book = name;
    verses.push_back({number, std::atoi(std::string(reference.substr(name.size())).c_str()),
                      std::atoi(std::string(line.substr(colon + 1, space - colon - 1)).c_str()),
                      clean_text(line.substr(space))});
  }
  return verses;
}

Source read_kjv(const fs::path& packages) {
  Source source{"kjv", {}, 0};
  int book = -1;
  for (Verse& v : read_kjv_verses(packages)) {
    if (v.book != book) source.documents.emplace_back();
    book = v.book;
    source.documents.back().entries.push_back({"", {std::move(v.text)}});
  }
  return source;
}

Source read_web(const fs::path& packages) {
  Source source{"web", {}, 0};
  for (const char* testament : {"ot", "nt"})
    read_testament(packages / kWeb / testament, source.documents);
  return source;
}

std::vector<Verse> read_web_verses(const fs::path& packages) {
  std::vector<Verse> verses;
  for (const char* testament : {"ot", "nt"}) read_verses(packages / kWeb / testament, verses);
  return verses;
}

Source read_austen(const fs::path& packages) {
  const fs::path path = packages / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb";
  const std::string where = path.string(), data = read_file(path);
  Source source{"austen", {}, 0};
  // One novel after the other: four bytes of length, then a zlib stream.
  for (std::size_t at = 0, used = 0; at < data.size(); at += 4 + used) {
    big32(data, at, where);
    const std::string novel = inflate(std::string_view(data).substr(at + 4), where, &used);
    Document document;
    for (std::string& paragraph : paragraphs(r_lines(novel, where))) {
      replace_all(paragraph, "_", "");
      document.entries.push_back({"", {std::move(paragraph)}});
    }
    source.documents.push_back(std::move(document));
  }
  return source;
}

}  // namespace graft::data
