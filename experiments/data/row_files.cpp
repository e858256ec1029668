#include "experiments/data/row_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "experiments/data/text_clean.h"
#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"
#include "tensor/error.h"

namespace graft::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string text_of(const fs::path& file) {
  std::string text = read_file(file);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  const std::size_t bad = find_bad_utf8(text);
  if (bad != std::string::npos)
    fail("{}:{}: a byte that is not valid UTF-8", file.string(),
         1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n'));
  check_no_zero_bytes(text, file.string());
  return text;
}

// Lines with their numbers; a last line break ends the last line, it does not begin another.
std::vector<std::pair<std::string_view, int>> lines_of(std::string_view text) {
  std::vector<std::pair<std::string_view, int>> lines;
  int number = 0;
  for (std::string_view line : split(text, '\n')) {
    ++number;
    if (line.empty() && line.data() == text.data() + text.size()) break;
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line, number);
  }
  return lines;
}

void check_columns(const RowFile& f) {
  const std::set<std::string> different(f.columns.begin(), f.columns.end());
  check(different.size() == f.columns.size(), "{}: a column is there twice among {}", f.name,
        fmt::join(f.columns, ", "));
}

void add(RowFile& f, std::vector<std::string> fields, int line) {
  check(fields.size() == f.columns.size(), "{}:{}: {} fields; there are {} columns ({})", f.name,
        line, fields.size(), f.columns.size(), fmt::join(f.columns, ", "));
  f.rows.push_back(std::move(fields));
  f.line.push_back(line);
}

RowFile done(RowFile f) {
  check(!f.rows.empty(), "{}: no rows", f.name);
  return f;
}

// One record of a CSV file from `at` on, which moves behind it, and `line` with it.
std::vector<std::string> csv_record(std::string_view text, std::size_t& at, int& line,
                                    const std::string& name) {
  std::vector<std::string> fields(1);
  const int begun = line;
  bool quoted = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '"' && at + 1 < text.size() && text[at + 1] == '"') {
        fields.back() += '"', ++at;
      } else if (c == '"') {
        quoted = false;
        const char next = at + 1 < text.size() ? text[at + 1] : '\n';
        check(next == ',' || next == '\n' || next == '\r',
              "{}:{}: text behind a closing quote; a quote within a field is doubled", name, line);
      } else {
        if (c == '\n') ++line;
        fields.back() += c;
      }
    } else if (c == '"' && fields.back().empty()) {
      quoted = true;
    } else if (c == '"') {
      fail("{}:{}: a quote in the middle of a field that does not begin with one", name, line);
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      ++at, ++line;
      return fields;
    } else if (c != '\r' || (at + 1 < text.size() && text[at + 1] != '\n')) {
      fields.back() += c;
    }
  }
  check(!quoted, "{}:{}: a quote that never closes", name, begun);
  return fields;
}

std::string field_of(const ordered_json& value, const std::string& where, const std::string& key) {
  if (value.is_string()) return value.get<std::string>();
  check(value.is_number() || value.is_boolean(), "{}: {} is {}; need a text or a number", where,
        key, value.is_null() ? "null" : value.type_name());
  return value.dump();
}

// Rows of one set of keys, in whatever order each has them; of those that are wanted, or of all.
class Objects {
 public:
  Objects(RowFile& f, const std::vector<std::string>& wanted, const std::string& may_lack)
      : f_(f), chosen_(!wanted.empty()), may_lack_(may_lack) {
    f_.columns = wanted;
  }

  void add(const ordered_json& object, int line) {
    const std::string where = fmt::format("{}:{}", f_.name, line);
    check(object.is_object() && !object.empty(), "{}: {}; need an object with a key", where,
          object.is_object() ? "an empty object" : object.type_name());
    if (chosen_) return add_chosen(object, line, where);
    if (f_.columns.empty())
      for (const auto& item : object.items()) {
        index_.emplace(item.key(), f_.columns.size());
        f_.columns.push_back(item.key());
      }
    std::vector<std::string> fields(f_.columns.size());
    std::vector<bool> given(f_.columns.size());
    for (const auto& item : object.items()) {
      const auto at = index_.find(item.key());
      check(at != index_.end(), "{}: key '{}', which the first row lacks", where, item.key());
      fields[at->second] = field_of(item.value(), where, item.key());
      given[at->second] = true;
    }
    const auto lacks = std::find(given.begin(), given.end(), false) - given.begin();
    if (lacks < static_cast<std::ptrdiff_t>(given.size()))
      fail("{}: no key '{}', which the first row has", where,
           f_.columns[static_cast<std::size_t>(lacks)]);
    data::add(f_, std::move(fields), line);
  }

 private:
  void add_chosen(const ordered_json& object, int line, const std::string& where) {
    std::vector<std::string> fields;
    for (const std::string& key : f_.columns) {
      const auto at = object.find(key);
      if (key == may_lack_ && (at == object.end() || at->is_null())) {
        fields.emplace_back();
        continue;
      }
      if (at == object.end()) fail("{}: no key '{}'; there are {}", where, key, keys_of(object));
      fields.push_back(field_of(*at, where, key));
    }
    data::add(f_, std::move(fields), line);
  }
  static std::string keys_of(const ordered_json& object) {
    std::vector<std::string> keys;
    for (const auto& item : object.items()) keys.push_back(item.key());
    return fmt::format("{}", fmt::join(keys, ", "));
  }

  RowFile& f_;
  bool chosen_;
  std::string may_lack_;
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace

float score_of(std::string_view text, const std::string& where) {
  std::string_view digits = trim(text);
  if (digits.starts_with('+') && !digits.starts_with("+-")) digits.remove_prefix(1);
  float value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [at, error] = std::from_chars(digits.data(), end, value);
  check(error == std::errc() && at == end && std::isfinite(value),
        "{}: score '{}' is not a finite number", where, text);
  return value;
}

std::size_t RowFile::column(const std::string& wanted) const {
  const auto at = std::find(columns.begin(), columns.end(), wanted);
  check(at != columns.end(), "{}: no column '{}'; there are {}", name, wanted,
        fmt::join(columns, ", "));
  return static_cast<std::size_t>(at - columns.begin());
}

std::string RowFile::where(std::size_t row) const {
  return fmt::format("{}{}{}", name, by_row ? ", row " : ":", line.at(row));
}

RowFile read_csv(const fs::path& file) {
  const std::string text = text_of(file);
  RowFile f{file.string(), {}, {}, {}};
  std::size_t at = 0;
  int line = 1;
  while (at < text.size()) {
    const int begun = line;
    std::vector<std::string> fields = csv_record(text, at, line, f.name);
    if (f.columns.empty()) {
      f.columns = std::move(fields);
      check_columns(f);
    } else {
      add(f, std::move(fields), begun);
    }
  }
  return done(std::move(f));
}

RowFile read_tab_separated(const fs::path& file, const std::vector<std::string>& columns) {
  const std::string text = text_of(file);
  RowFile f{file.string(), columns, {}, {}};
  for (const auto& [line, number] : lines_of(text)) {
    std::vector<std::string> fields;
    for (const auto field : split(line, '\t')) fields.emplace_back(field);
    if (f.columns.empty()) {
      f.columns = std::move(fields);
      check_columns(f);
    } else {
      add(f, std::move(fields), number);
    }
  }
  return done(std::move(f));
}

RowFile read_json_rows(const fs::path& file, bool array, const std::vector<std::string>& wanted,
                       const std::string& may_lack) {
  const std::string text = text_of(file);
  RowFile f{file.string(), {}, {}, {}};
  Objects objects(f, wanted, may_lack);
  if (array) {
    const ordered_json all = parse_strict_ordered(f.name, text);
    check(all.is_array(), "{}: {}; need an array of objects", f.name, all.type_name());
    f.by_row = true;  // they have no line of their own here
    int number = 0;
    for (const ordered_json& object : all) objects.add(object, ++number);
  } else {
    for (const auto& [line, number] : lines_of(text))
      if (!trim(line).empty())
        objects.add(parse_strict_ordered(fmt::format("{}:{}", f.name, number), line), number);
  }
  return done(std::move(f));
}

RowFile read_lines(const fs::path& file, const std::string& separator,
                   const std::vector<std::string>& columns, bool all) {
  const std::string text = text_of(file);
  RowFile f{file.string(), columns, {}, {}};
  for (const auto& [line, number] : lines_of(text)) {
    if (!all && trim(line).empty()) continue;
    if (separator.empty()) {
      add(f, {std::string(line)}, number);
      continue;
    }
    const std::size_t at = line.find(separator);
    check(at != std::string_view::npos, "{}:{}: no '{}'", f.name, number, separator);
    add(f,
        {std::string(trim(line.substr(0, at))),
         std::string(trim(line.substr(at + separator.size())))},
        number);
  }
  return done(std::move(f));
}

}  // namespace graft::data
