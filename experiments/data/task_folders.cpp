#include "experiments/data/task_folders.h"

#include <algorithm>
#include <climits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/data/md5.h"
#include "experiments/data/metrics.h"
#include "experiments/data/row_files.h"
#include "experiments/data/task_description.h"
#include "experiments/data/task_rows.h"
#include "experiments/data/text_clean.h"
#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"
#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using data::Description;
using data::RowFile;
using Kind = TaskData::Kind;

// --- task.json ----------------------------------------------------------------------------------

class Keys {
 public:
  explicit Keys(const fs::path& file) : name_(file.string()) {
    json_ = parse_strict(name_, read_file(file));
    check(json_.is_object(), "{}: need an object", name_);
  }
  std::string text(const char* key, const std::string& otherwise) {
    asked_.insert(key);
    if (!json_.contains(key)) return otherwise;
    check(json_[key].is_string() && !json_[key].get<std::string>().empty(),
          "{}: {} is {}; need a text", name_, key, json_[key].dump());
    return json_[key];
  }
  bool flag(const char* key) {
    asked_.insert(key);
    if (!json_.contains(key)) return false;
    check(json_[key].is_boolean(), "{}: {} is {}; need true or false", name_, key,
          json_[key].dump());
    return json_[key];
  }
  std::vector<std::string> texts(const char* key) {
    std::vector<std::string> all;
    const nlohmann::json given = member(key, nlohmann::json::array(), "a list of texts");
    for (const nlohmann::json& item : given) {
      const bool text = item.is_string();
      check(text && std::find(all.begin(), all.end(), item.get<std::string>()) == all.end(),
            "{}: {} has {}{}", name_, key, item.dump(), text ? " twice" : "; need a list of texts");
      all.push_back(item);
    }
    return all;
  }
  std::map<std::string, int> counts(const char* key) {
    std::map<std::string, int> all;
    const nlohmann::json given = member(key, nlohmann::json::object(), "numbers by split");
    for (const auto& [split, item] : given.items()) {
      check(item.is_number_unsigned() && item.get<std::uint64_t>() <= INT_MAX,
            "{}: {} has {}; need a number of rows", name_, key, item.dump());
      all[split] = item.get<int>();
    }
    return all;
  }
  void done() const {
    for (const auto& item : json_.items())
      check(asked_.contains(item.key()),
            "{}: nothing asks for '{}' in a task like this, which may have {}; see {}", name_,
            item.key(), fmt::join(asked_, ", "), "experiments/data/task_folders.h");
  }
  const std::string& name() const { return name_; }

 private:
  // What must be of the kind of `none`, which it is where the key is absent.
  nlohmann::json member(const char* key, nlohmann::json none, const char* what) {
    asked_.insert(key);
    if (!json_.contains(key)) return none;
    check(json_[key].type() == none.type(), "{}: {} is {}; need {}", name_, key, json_[key].dump(),
          what);
    return json_[key];
  }

  std::string name_;
  nlohmann::json json_;
  std::set<std::string> asked_;
};

Kind kind_named(Keys& keys, const std::string& format) {
  if (format == "e2e" || format == "alpaca" || format == "text") return Kind::language;
  const std::string kind = keys.text("kind", "classification");
  for (const auto& [name, value] : {std::pair{"classification", Kind::classification},
                                    {"regression", Kind::regression},
                                    {"language", Kind::language}})
    if (kind == name) return value;
  fail("{}: kind is '{}'; need classification, regression or language", keys.name(), kind);
}

Description described(const fs::path& folder) {
  Keys keys(folder / "task.json");
  Description d;
  d.name = data::folder_name(folder);
  d.format = keys.text("format", "");
  static const std::set<std::string> formats{"csv", "tsv",    "jsonl", "json",
                                             "e2e", "alpaca", "text"};
  check(formats.contains(d.format), "{}: format is '{}'; need {}", keys.name(), d.format,
        fmt::join(formats, ", "));
  d.kind = kind_named(keys, d.format);
  for (const char* split : {"train", "dev", "test"})
    if (const std::string file = keys.text(split, ""); !file.empty()) d.files[split] = file;
  check(d.files.contains("train"), "{}: no train; name the file with the training rows",
        keys.name());
  if (d.kind != Kind::language) {
    d.a = keys.text("a", "a"), d.b = keys.text("b", "");
    const char* label = d.kind == Kind::regression ? "score" : "label";
    d.label = keys.text(label, label);
    d.metric = keys.text("metric", d.kind == Kind::regression ? "pearson" : "accuracy");
    d.prefix = keys.text("prefix", "");
    d.fields = {d.a};
    if (!d.b.empty()) d.fields.push_back(d.b);
    if (d.kind == Kind::classification) {
      d.labels = keys.texts("labels");
      d.words = keys.texts("words");
      check(d.words.size() == (d.words.empty() ? 0 : d.labels.size()),
            "{}: {} words for {} labels; words say what labels, in the same order, are called in "
            "an encoder-decoder's answers",
            keys.name(), d.words.size(), d.labels.size());
    }
  } else if (d.format != "e2e" && d.format != "alpaca" && d.format != "text") {
    d.a = keys.text("prompt", "prompt"), d.b = keys.text("continuation", "continuation");
    d.joined = keys.flag("joined");
  }
  if (d.kind == Kind::language) d.metric = "loss";
  d.rows = keys.counts("rows");
  for (const auto& [split, rows] : d.rows)
    check(d.files.contains(split), "{}: rows: {} has no file", keys.name(), split);
  keys.done();
  d.note = fmt::format("read as {} says", keys.name());
  if (!d.files.contains("dev")) d.note += "; dev is a tenth of train";
  if (!d.files.contains("test")) d.note += "; test is a tenth of train";
  return d;
}

// --- rows ---------------------------------------------------------------------------------------

RowFile rows_of(const Description& d, const fs::path& file) {
  if (d.format == "csv") return data::read_csv(file);
  if (d.format == "tsv") return data::read_tab_separated(file, d.header);
  std::vector<std::string> wanted{d.a};
  if (!d.b.empty()) wanted.push_back(d.b);
  if (!d.label.empty()) wanted.push_back(d.label);
  if (d.format == "jsonl") return data::read_json_rows(file, false, wanted);
  if (d.format == "json") return data::read_json_rows(file, true, wanted);
  if (d.format == "e2e") return data::read_lines(file, "||", {"slots", "text"});
  if (d.format == "text") return data::read_lines(file, "", {"text"});
  return data::read_json_rows(file, true, {"instruction", "input", "output"}, "input");  // alpaca
}

// What a reader may not know of a folder whose files do not fit.
std::string hint(const Description& d) { return d.known_by.empty() ? "" : "; it is " + d.known_by; }

int label_of(const Description& d, const TaskData& task, const std::string& field,
             const std::string& where) {
  const std::string text(data::trim(field));  // a space around it makes no other label
  const auto at = std::find(task.labels.begin(), task.labels.end(), text);
  check(at != task.labels.end(), "{}: label '{}'; the labels are {}{}", where, text,
        fmt::join(task.labels, ", "), hint(d));
  return static_cast<int>(at - task.labels.begin());
}

std::vector<Example> examples_of(const Description& d, const RowFile& f, const TaskData& task) {
  const auto text = [&](std::size_t row, const std::string& column) -> const std::string& {
    const std::string& field = f.rows[row][f.column(column)];
    check(!data::trim(field).empty(), "{}: column {} is empty", f.where(row), column);
    return field;
  };
  std::vector<Example> all;
  for (std::size_t i = 0; i < f.rows.size(); ++i) {
    Example e;
    if (d.format == "alpaca")
      e.a = alpaca_prompt(text(i, "instruction"), f.rows[i][f.column("input")]),
      e.b = text(i, "output");
    else if (d.format == "e2e")
      e.a = text(i, "slots"), e.b = text(i, "text");
    else if (d.format == "text")
      e.b = text(i, "text");
    else
      e.a = text(i, d.a), e.b = d.b.empty() ? "" : text(i, d.b);
    if (d.kind == Kind::regression) e.score = data::score_of(text(i, d.label), f.where(i));
    if (d.kind == Kind::classification) e.label = label_of(d, task, text(i, d.label), f.where(i));
    all.push_back(std::move(e));
  }
  return all;
}

void find_labels(const Description& d, const RowFile& train, TaskData& task) {
  std::set<std::string> found;
  for (const auto& row : train.rows) found.emplace(data::trim(row[train.column(d.label)]));
  check(found.size() > 1, "{}: only the label '{}'; need two or more", train.name, *found.begin());
  task.labels = d.labels;
  if (task.labels.empty()) task.labels.assign(found.begin(), found.end());
  for (const std::string& label : task.labels)
    check(found.contains(label), "{}: no row has the label '{}'; it has {}", train.name, label,
          fmt::join(found, ", "));
}

// Whether rows are told apart by their prompts: a prompt with several continuations then belongs to
// one split. Too few prompts cannot be divided.
bool by_prompt(const std::vector<Example>& rows, Kind kind) {
  constexpr std::size_t kFew = 50;
  std::set<std::string_view> prompts;
  for (const Example& e : rows) prompts.insert(e.a);
  return kind == Kind::language && prompts.size() >= kFew;
}

// Moves a tenth of the rows, by their texts or by their prompts alone.
std::vector<Example> take_tenth(std::vector<Example>& from, const std::string& split,
                                bool prompts) {
  const auto key = [&](const Example& e) {
    return split + '\x1f' + e.a + (prompts ? "" : '\x1f' + e.b);
  };
  std::vector<Example> taken, left;
  for (Example& e : from) (md5_unit(key(e)) < 0.1 ? taken : left).push_back(std::move(e));
  from = std::move(left);
  return taken;
}

TaskData load(const Description& d, const fs::path& folder) {
  TaskData task;
  task.name = d.name, task.kind = d.kind, task.metric = d.metric, task.note = d.note;
  task.pair = !d.b.empty() || d.kind == Kind::language;
  task.joined = d.joined || d.format == "alpaca";
  task.prefix = d.prefix, task.fields = d.fields, task.words = d.words;
  task.columns = {d.a};
  if (!d.b.empty()) task.columns.push_back(d.b);
  std::map<std::string, std::vector<Example>> splits;
  for (const char* split : {"train", "dev", "test"}) {
    if (!d.files.contains(split)) continue;
    const RowFile f = rows_of(d, folder / d.files.at(split));
    if (d.rows.contains(split))
      check(static_cast<int>(f.rows.size()) == d.rows.at(split),
            "{}: {} rows; {} of {} has {}. Was it cut off?{}", f.name, f.rows.size(), split, d.name,
            d.rows.at(split), d.known_by.empty() ? "" : " It is " + d.known_by);
    if (d.kind == Kind::classification && task.labels.empty()) find_labels(d, f, task);
    if (d.kind != Kind::language && splits.empty()) check_metric(d.metric, task.labels.size());
    splits[split] = examples_of(d, f, task);
  }
  const bool prompts = by_prompt(splits["train"], d.kind);
  for (const char* split : {"test", "dev"})
    if (!d.files.contains(split)) {
      splits[split] = take_tenth(splits["train"], split, prompts);
      check(!splits[split].empty() && !splits["train"].empty(),
            "{}: {} rows are too few to take {} from", folder.string(), splits["train"].size(),
            split);
    }
  std::uint32_t id = 0;
  for (const char* split : {"train", "dev", "test"}) {
    if (split != std::string_view("test")) sort_by_hash(splits[split]);
    for (Example& e : splits[split]) e.id = id++;
  }
  sort_by_hash(splits["test"]);  // an id is a row's place in its file
  task.train = std::move(splits["train"]);
  task.dev = std::move(splits["dev"]);
  task.test = std::move(splits["test"]);
  return task;
}

Description description_of(const fs::path& folder) {
  if (fs::exists(folder / "task.json")) return described(folder);
  const auto glue = data::glue_folder(folder);
  check(glue.has_value(), "{}: no task.json, and no GLUE header in train.tsv", folder.string());
  return *glue;
}

}  // namespace

std::string alpaca_prompt(const std::string& instruction, const std::string& input) {
  const std::string context =
      input.empty() ? ". " : ", paired with an input that provides further context. ";
  std::string text =
      "Below is an instruction that describes a task" + context +
      "Write a response that appropriately completes the request.\n\n### Instruction:\n" +
      instruction + "\n\n";
  if (!input.empty()) text += "### Input:\n" + input + "\n\n";
  return text + "### Response:";
}

bool is_published_folder(const fs::path& folder) {
  std::error_code ignored;  // a name that no file can have is no folder's
  return fs::exists(folder / "task.json", ignored) ||
         (fs::is_regular_file(folder / "train.tsv", ignored) && data::glue_folder(folder));
}

TaskData load_published_folder(const fs::path& folder) {
  return load(description_of(folder), folder);
}

Kind kind_of_published_folder(const fs::path& folder) { return description_of(folder).kind; }

}  // namespace graft
