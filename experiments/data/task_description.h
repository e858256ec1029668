// What a folder of data files is, whoever says so: GLUE's own headers, or a task.json.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "experiments/data/tasks.h"

namespace graft::data {

struct Description {
  std::string name, format, metric;
  TaskData::Kind kind = TaskData::Kind::classification;
  std::map<std::string, std::string> files;  // by split
  std::string a, b, label;                   // columns; language: prompt in a, continuation in b
  std::vector<std::string> labels, header;  // header: the columns of a file that does not name them
  std::map<std::string, int> rows;
  std::string note;
  std::string known_by;  // what nobody said: a header that tells of GLUE; "" where a task.json says
  bool joined = false;   // as TaskData's
  std::string prefix;    // as TaskData's
  std::vector<std::string> fields, words;  // as TaskData's
};

std::string folder_name(const std::filesystem::path&);
// A folder of GLUE (Wang et al. 2018, 1804.07461) as published, known by its train.tsv's first
// line; none for any other.
std::optional<Description> glue_folder(const std::filesystem::path&);

}  // namespace graft::data
