// Strict reading: a row that is not understood stops the program rather than being skipped.
#include "experiments/data/task_files.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "experiments/data/row_files.h"
#include "experiments/data/task_folders.h"
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

std::vector<Example> read_split(const fs::path& path, std::string_view text,
                                std::string_view header, const TaskData& task, std::uint32_t& id) {
  std::vector<Example> split;
  for (const RawRow& row : read_rows(path, text, header)) {
    Example e{std::string(row.a), std::string(row.b), -1, 0, id++};
    const std::string where = fmt::format("{}:{}", path.string(), row.line);
    if (task.kind == TaskData::Kind::regression) {
      e.score = data::score_of(row.label, where);
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
      "'continuation', separated by tabs. Other columns are read by a task.json beside it, such as "
      "{}",
      path.string(), line.substr(0, 80), suggested_task_json(path));
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

namespace {

// As far as the file's first line names them.
std::vector<std::string> columns_named(const fs::path& file, const std::string& format) {
  constexpr std::size_t kMost = 10'000;
  std::ifstream in(file);
  std::string line;
  std::vector<std::string> all;
  if (!Lines(in).next(line) || line.size() > kMost ||
      data::find_bad_utf8(line) != std::string::npos)
    return all;
  if (format == "jsonl") {
    const auto row = nlohmann::ordered_json::parse(line, nullptr, false);
    if (row.is_object())
      for (const auto& item : row.items()) all.push_back(item.key());
  } else if (format == "csv" || format == "tsv") {
    for (std::string_view name : data::split(line, format == "csv" ? ',' : '\t')) {
      if (name.size() > 1 && name.front() == '"' && name.back() == '"')
        name = name.substr(1, name.size() - 2);
      all.emplace_back(name);
    }
  }
  return all;
}

// A file's columns, taken one by one for what they may be.
class Guess {
 public:
  explicit Guess(std::vector<std::string> columns) : columns_(std::move(columns)) {
    for (const char* number : {"", "id", "idx", "index", "guid"}) take({number});
  }
  // The first of these names that is among them; "" for none.
  std::string take(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const auto at = std::ranges::find(columns_, name);
      if (at == columns_.end()) continue;
      columns_.erase(at);
      return name;
    }
    return "";
  }
  std::string take_first(const char* otherwise) {
    return columns_.empty() ? otherwise : take({columns_.front()});
  }
  std::string take_last(const char* otherwise) {
    return columns_.empty() ? otherwise : take({columns_.back()});
  }
  bool has(const char* name) const { return std::ranges::find(columns_, name) != columns_.end(); }

 private:
  std::vector<std::string> columns_;
};

void add_columns(Guess columns, nlohmann::ordered_json& task) {
  const std::string label =
      columns.take({"label", "labels", "gold_label", "class", "category", "sentiment"});
  const std::string score = label.empty() ? columns.take({"score", "rating", "stars"}) : "";
  if (label.empty() && score.empty()) {
    Guess rest = columns;
    const std::string prompt = rest.take({"prompt", "instruction", "question", "input"});
    const std::string answer =
        rest.take({"continuation", "completion", "response", "output", "answer", "target"});
    if (!prompt.empty() && !answer.empty()) {
      task["kind"] = "language", task["prompt"] = prompt, task["continuation"] = answer;
      return;
    }
  }
  if (!score.empty()) task["kind"] = "regression";
  constexpr std::pair<const char*, const char*> kPairs[] = {{"sentence1", "sentence2"},
                                                            {"premise", "hypothesis"},
                                                            {"question1", "question2"},
                                                            {"text1", "text2"},
                                                            {"a", "b"}};
  for (const auto& [a, b] : kPairs)
    if (columns.has(a) && columns.has(b))
      task["a"] = columns.take({a}), task["b"] = columns.take({b});
  if (!task.contains("a")) {
    const std::string text = columns.take({"text", "sentence", "review", "content", "a"});
    task["a"] = text.empty() ? columns.take_first("the text's column") : text;
  }
  if (!score.empty())
    task["score"] = score;
  else
    task["label"] = label.empty() ? columns.take_last("the label's column") : label;
}

}  // namespace

std::string suggested_task_json(const fs::path& file) {
  const std::string end = file.extension().string();
  static const std::set<std::string> kEnds{".csv", ".tsv", ".jsonl", ".json", ".txt"};
  if (!kEnds.contains(end)) return "";
  const std::string format = end == ".txt" ? "text" : end.substr(1);
  nlohmann::ordered_json task{{"format", format}, {"train", file.filename().string()}};
  std::error_code ignored;
  for (const auto& [split, names] :
       {std::pair{"dev", "dev validation valid val"}, {"test", "test"}})
    for (const auto name : data::split(names, ' ')) {
      const fs::path other = std::string(name) + end;
      if (other != file.filename() && fs::is_regular_file(file.parent_path() / other, ignored))
        task[split] = other.string();
    }
  if (format != "text") add_columns(Guess(columns_named(file, format)), task);
  return task.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

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
