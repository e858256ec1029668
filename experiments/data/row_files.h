// Files of rows with named columns: CSV, tab-separated text, JSON lines and JSON arrays.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace graft::data {

// Every row has a field for each column.
struct RowFile {
  std::string name;  // for messages
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::vector<int> line;  // of the file, on which each row begins; from 1
  bool by_row = false;    // `line` counts rows, not lines

  // Index of a column; throws, listing those that there are.
  std::size_t column(const std::string& name) const;
  // "file.csv:12", or "file.json, row 12"
  std::string where(std::size_t row) const;
};

// All of these throw Error with file and line for bytes that are not UTF-8 or are zero, a row with
// another number of fields than there are columns, a column that is there twice, and a file without
// rows.

// RFC 4180: commas; a field may stand in double quotes, hold commas, line breaks and doubled quotes
// then. The first row names the columns. A byte order mark is dropped.
RowFile read_csv(const std::filesystem::path& file);
// Tab-separated, one row on each line, no quoting: quotes are text. Without `columns` the first
// line names them.
RowFile read_tab_separated(const std::filesystem::path& file,
                           const std::vector<std::string>& columns = {});
// One JSON object on each line, or (`array`) one array of them. The columns are the keys of the
// first; strings are taken as they are, numbers, true and false as JSON writes them; anything else,
// and a key that another object lacks, has besides or has twice, is an Error.
// With `wanted` the columns are those: what else an object has is not looked at. The one of them
// that `may_lack` names may be missing or null, and is empty then.
RowFile read_json_rows(const std::filesystem::path& file, bool array,
                       const std::vector<std::string>& wanted = {},
                       const std::string& may_lack = {});
// Each line a row of two columns, what stands before and behind the first `separator`; or, where
// that is empty, of the one column that `columns` names. Empty lines are left out, or (`all`) rows.
RowFile read_lines(const std::filesystem::path& file, const std::string& separator,
                   const std::vector<std::string>& columns, bool all = false);

// A score as files have it, with spaces around it or a plus sign. Throws where it is no finite
// number.
float score_of(std::string_view text, const std::string& where);

}  // namespace graft::data
