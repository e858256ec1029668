// Tasks as folders of tab-separated files, to look at them and to bring one's own.
//
// A file is UTF-8 text. Its first line is a header: `label TAB a` for one text per row, `label TAB
// a TAB b` for pairs; `score` in place of `label` makes it a regression task; `prompt TAB
// continuation` makes it a language task. Each further line is one row. Texts hold no tabs and no
// line breaks and are not empty; there is no quoting.
#pragma once

#include <filesystem>

#include "experiments/data/tasks.h"

namespace graft {

// Writes dir/train.tsv, dev.tsv and test.tsv. Throws Error for a text that does not fit on a line.
void write_tsv_task(const TaskData& task, const std::filesystem::path& dir);

// Reads such a folder. The task is named after the folder; its labels are those of train.tsv in
// alphabetical order, without spaces around them; rows are in the order of the texts'
// hash; ids count rows as they stand through train, dev and test; metric:
// accuracy, pearson or loss. Throws Error naming file and line for: a wrong or repeated header, a
// wrong number of columns, an empty text, bytes that are not UTF-8, a score that is no finite
// number, or a label of dev.tsv or test.tsv that train.tsv lacks; also for fewer than two labels
// and for a file without rows.
TaskData load_tsv_task(const std::filesystem::path& dir);
// By train.tsv's header alone.
TaskData::Kind kind_of_tsv_task(const std::filesystem::path& dir);

}  // namespace graft
