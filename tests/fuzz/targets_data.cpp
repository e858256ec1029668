// Files of rows, and the folders of them that are tasks.
#include <string>

#include "experiments/data/row_files.h"
#include "experiments/data/task_files.h"
#include "experiments/data/task_folders.h"
#include "experiments/data/text_clean.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {

// The first byte says which kind, the rest is the file.
void read_rows(std::string_view bytes) {
  if (bytes.empty()) return;
  const Scratch folder;
  folder.put("rows", bytes.substr(1));
  const std::string file = folder / "rows";
  data::RowFile rows;
  switch (bytes[0]) {
    case 'c':
      rows = data::read_csv(file);
      break;
    case 't':
      rows = data::read_tab_separated(file);
      break;
    case 'n':
      rows = data::read_tab_separated(file, {"source", "label", "mark", "sentence"});
      break;
    case 'l':
      rows = data::read_json_rows(file, false);
      break;
    case 'j':
      rows = data::read_json_rows(file, true);
      break;
    case 'e':
      rows = data::read_lines(file, "||", {"slots", "text"});
      break;
    case 'z':
      (void)data::inflate(bytes.substr(1), "rows");
      return;
    default:
      rows = data::read_lines(file, "", {"text"});
  }
  for (std::size_t i = 0; i < rows.rows.size(); ++i) (void)rows.rows[i].at(rows.columns.size() - 1);
  (void)rows.where(rows.rows.size() - 1);
  (void)rows.column("no such column");  // throws, unless there is one
}

// Parts: task.json; a file "train", also there as train.tsv; a file "dev", also there as dev.tsv
// and test.tsv.
void read_task(std::string_view bytes) {
  const auto part = parts(bytes, 3);
  const Scratch folder;
  folder.put("task.json", part[0]);
  for (const char* name : {"train", "train.tsv"}) folder.put(name, part[1]);
  for (const char* name : {"dev", "dev.tsv", "test.tsv"}) folder.put(name, part[2]);
  if (is_published_folder(folder.path())) {
    (void)kind_of_published_folder(folder.path());
    (void)load_published_folder(folder.path());
  } else {
    (void)load_tsv_task(folder.path());
  }
}

}  // namespace graft::fuzz
