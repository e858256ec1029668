// Strict reading: a row that is not understood stops the program rather than being skipped.
#include "experiments/data/task_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <set>
#include <string_view>

#include "experiments/data/text_clean.h"
#include "nn/files/atomic.h"
#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLanguage = "prompt\tcontinuation";
constexpr std::string_view kHeaders[] = {"label\ta", "label\ta\tb", "score\ta", "score\ta\tb",
                                         kLanguage};

struct RawRow {
  std::string_view label, a, b;  // language: no label
  int line;
};

// The rows of one file as views into `text`.
std::vector<RawRow> read_rows(const fs::path& path, std::string_view text,
                              std::string_view header) {
  const std::string name = path.string();
  data::check_no_zero_bytes(text, name);
  std::vector<RawRow> rows;
  int number = 0;
  for (auto line : data::split(text, '\n')) {
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    const bool behind_last = line.empty() && line.data() == text.data() + text.size();
    if (behind_last) break;
    const auto bad = data::find_bad_utf8(line);
    check(bad == std::string_view::npos, "{}:{}: byte {} is not valid UTF-8", name, number,
          bad + 1);
    if (number == 1) {
      check(line == header, "{}:1: header '{}'; the task's is '{}'", name, line, header);
      continue;
    }
    check(line != header, "{}:{}: the header stands here again; were files joined?", name, number);
    const auto fields = data::split(line, '\t');
    const std::size_t columns = std::count(header.begin(), header.end(), '\t') + 1;
    check(fields.size() == columns, "{}:{}: {} columns; the header has {} ('{}')", name, number,
          fields.size(), columns, header);
    for (const auto field : fields)
      check(!data::trim(field).empty(), "{}:{}: an empty column", name, number);
    if (header == kLanguage)
      rows.push_back({"", fields[0], fields[1], number});
    else
      rows.push_back({fields[0], fields[1], columns > 2 ? fields[2] : std::string_view(), number});
  }
  check(!rows.empty(), "{}: no rows", name);
  return rows;
}

std::string text_of(const fs::path& path) {
  std::string text = read_file(path);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  return text;
}

float read_score(std::string_view text, const std::string& where) {
  float value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size() && std::isfinite(value),
        "{}: score '{}' is not a finite number", where, text);
  return value;
}

std::vector<Example> read_split(const fs::path& path, std::string_view text,
                                std::string_view header, const TaskData& task, std::uint32_t& id) {
  std::vector<Example> split;
  for (const RawRow& row : read_rows(path, text, header)) {
    Example e{std::string(row.a), std::string(row.b), -1, 0, id++};
    const std::string where = fmt::format("{}:{}", path.string(), row.line);
    if (task.kind == TaskData::Kind::regression) {
      e.score = read_score(row.label, where);
    } else if (task.kind == TaskData::Kind::classification) {
      const std::string_view label = data::trim(row.label);
      const auto found = std::lower_bound(task.labels.begin(), task.labels.end(), label);
      check(found != task.labels.end() && *found == label,
            "{}: label '{}' does not occur in train.tsv; its labels are {}", where, label,
            fmt::join(task.labels, ", "));
      e.label = static_cast<int>(found - task.labels.begin());
    }
    split.push_back(std::move(e));
  }
  return split;
}

std::string known_header(const fs::path& path, std::string_view text) {
  std::string_view line = text.substr(0, text.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  for (const auto header : kHeaders)
    if (line == header) return std::string(header);
  fail(
      "{}:1: header '{}'; need 'label' or 'score', then 'a', then 'b' for pairs, or 'prompt' and "
      "'continuation', separated by tabs",
      path.string(), line.substr(0, 80));
}

TaskData::Kind kind_of(std::string_view header) {
  return header == kLanguage           ? TaskData::Kind::language
         : header.starts_with("score") ? TaskData::Kind::regression
                                       : TaskData::Kind::classification;
}

std::string header_of(const TaskData& task) {
  if (task.kind == TaskData::Kind::language) return std::string(kLanguage);
  return fmt::format("{}\ta{}", task.kind == TaskData::Kind::regression ? "score" : "label",
                     task.pair ? "\tb" : "");
}

std::string line_of(const TaskData& task, const Example& e) {
  std::string text = task.kind == TaskData::Kind::regression ? fmt::format("{}\t", e.score)
                     : task.kind == TaskData::Kind::language ? ""
                                                             : task.labels.at(e.label) + '\t';
  text += e.a;
  if (task.pair) text += '\t' + e.b;
  return text + '\n';
}

}  // namespace

void write_tsv_task(const TaskData& task, const fs::path& dir) {
  fs::create_directories(dir);
  const auto write = [&](const char* name, const std::vector<Example>& rows) {
    std::string text = header_of(task) + '\n';
    for (const Example& e : rows) {
      for (const std::string& field : {e.a, e.b})
        check(field.find_first_of("\t\r\n") == std::string::npos,
              "task {}: a text of {} holds a tab or a line break: '{}'", task.name, name, field);
      text += line_of(task, e);
    }
    write_file_atomically(dir / name, text);
  };
  write("train.tsv", task.train);
  write("dev.tsv", task.dev);
  write("test.tsv", task.test);
}

TaskData::Kind kind_of_tsv_task(const fs::path& dir) {
  const fs::path train = dir / "train.tsv";
  std::ifstream file(train);
  std::string line;
  check(static_cast<bool>(std::getline(file, line)), "{}: cannot read its header", train.string());
  if (line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  return kind_of(known_header(train, line));
}

TaskData load_tsv_task(const fs::path& dir) {
  const fs::path train = dir / "train.tsv";
  const std::string text = text_of(train);
  const std::string header = known_header(train, text);
  TaskData task;
  task.name = fs::absolute(dir).lexically_normal().filename().string();
  if (task.name.empty()) task.name = fs::absolute(dir).lexically_normal().parent_path().filename();
  task.kind = kind_of(header);
  task.pair = task.kind == TaskData::Kind::language || header.ends_with("\tb");
  task.metric = task.kind == TaskData::Kind::regression ? "pearson"
                : task.kind == TaskData::Kind::language ? "loss"
                                                        : "accuracy";
  task.note = fmt::format("read from {}", dir.string());
  if (task.kind == TaskData::Kind::classification) {
    std::set<std::string> labels;
    for (const RawRow& row : read_rows(train, text, header)) labels.emplace(data::trim(row.label));
    check(labels.size() > 1, "{}: only the label '{}'; need two or more", train.string(),
          *labels.begin());
    task.labels.assign(labels.begin(), labels.end());
  }
  std::uint32_t id = 0;
  task.train = read_split(train, text, header, task, id);
  task.dev = read_split(dir / "dev.tsv", text_of(dir / "dev.tsv"), header, task, id);
  task.test = read_split(dir / "test.tsv", text_of(dir / "test.tsv"), header, task, id);
  sort_by_hash(task.train), sort_by_hash(task.dev), sort_by_hash(task.test);
  return task;
}

}  // namespace graft
