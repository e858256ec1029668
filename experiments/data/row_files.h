// Files of rows with named columns: CSV, tab-separated text, JSON lines and JSON arrays.
#pragma once

#include <filesystem>
#include <string>
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
RowFile read_json_rows(const std::filesystem::path& file, bool array);
// Each line a row of two columns, what stands before and behind the first `separator`; or, where
// that is empty, of the one column "text" (empty lines are left out).
RowFile read_lines(const std::filesystem::path& file, const std::string& separator,
                   const std::vector<std::string>& columns);

}  // namespace graft::data
