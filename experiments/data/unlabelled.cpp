// Rows to predict.
#include "experiments/data/row_files.h"
#include "experiments/data/task_folders.h"
#include "experiments/data/text_clean.h"
#include "tensor/error.h"

namespace graft {
namespace {

using data::RowFile;

RowFile rows_of(const std::filesystem::path& file, const std::vector<std::string>& columns) {
  const std::string kind = file.extension().string();
  if (kind == ".csv") return data::read_csv(file);
  if (kind == ".tsv") return data::read_tab_separated(file);
  if (kind == ".jsonl") return data::read_json_rows(file, false, columns);
  if (kind == ".json") return data::read_json_rows(file, true, columns);
  check(kind == ".txt", "'{}': a file of rows ends in .csv, .tsv, .jsonl, .json or .txt",
        file.string());
  check(columns.size() == 1,
        "'{}': a row is a pair of texts ({}); give a .csv, .tsv, .jsonl or .json with such columns",
        file.string(), fmt::join(columns, ", "));
  return data::read_lines(file, "", columns, true);  // a row's number is its line's
}

}  // namespace

std::vector<Example> read_unlabelled(const std::filesystem::path& file,
                                     const std::vector<std::string>& columns) {
  check(columns.size() == 1 || columns.size() == 2, "'{}': {} columns; need one, or a pair's two",
        file.string(), columns.size());
  const RowFile f = rows_of(file, columns);
  std::vector<Example> all;
  for (std::size_t i = 0; i < f.rows.size(); ++i) {
    Example e;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const std::string& text = f.rows[i][f.column(columns[c])];
      check(!data::trim(text).empty(), "{}: {}", f.where(i),
            file.extension() == ".txt" ? "the line is empty; each line is a row"
                                       : fmt::format("column {} is empty", columns[c]));
      (c == 0 ? e.a : e.b) = text;
    }
    e.id = static_cast<std::uint32_t>(i);
    all.push_back(std::move(e));
  }
  return all;
}

}  // namespace graft
