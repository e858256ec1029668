#include "experiments/cli/loaded.h"

#include <algorithm>
#include <fstream>

#include "experiments/cli/cli.h"
#include "experiments/data/text_clean.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/run_parts.h"
#include "experiments/runs/text_form.h"
#include "nn/files/atomic.h"
#include "nn/files/lines.h"
#include "nn/models/folder.h"
#include "nn/models/heads.h"
#include "peft/folder.h"

namespace graft::cli {

namespace fs = std::filesystem;

nlohmann::json about_adapter(const std::string& base, const std::string& named,
                             const EncodedTask& task, const RunSpec& run, int max_tokens,
                             std::uint64_t base_hash) {
  return {{"model", base},
          {"task", task.name},
          {"labels", task.labels},
          {"language", task.goal == Goal::language},
          {"text", task.text()},
          {"joined", task.joined},
          {"prefix", task.prefix},
          {"fields", task.fields},
          {"words", task.words},
          {"columns", task.columns},
          {"values", task.values},
          {"task_folder", named},
          {"max_tokens", max_tokens},
          {"base_hash", fmt::format("{:016x}", base_hash)},
          {"head", run.head},
          {"pool", run.pool}};
}

std::string whole_base_name(const std::string& name) {
  const auto found = find_base(name);
  return found && *found == name ? fs::canonical(name).string() : name;
}

namespace {

// Adapters of encoders have no prefix and, from earlier versions, no words.
void put_as_trained(const nlohmann::json& more, TaskData& data) {
  if (const std::string prefix = more.value("prefix", ""); !prefix.empty()) {
    data.prefix = prefix;
    data.fields = more.value("fields", data.fields);
  }
  if (const auto words = more.value("words", std::vector<std::string>()); !words.empty())
    data.words = words;
  data.joined = more.value("joined", data.joined);
}

}  // namespace

TaskOf encoded(const AdapterFile& file, const TaskData& data, const Model& model,
               const fs::path& base, bool only_test) {
  TaskOf t;
  t.run.head = file.more.at("head"), t.run.pool = file.more.at("pool");
  const EncodeSpec spec{.max_tokens = file.more.at("max_tokens"), .only_test = only_test};
  t.task = encode_task(data, Tokenizer::load(base), model.arch(), encode_for(t.run.head, spec));
  return t;
}

TaskOf task_of(const AdapterFile& file, const std::string& other_task, const Model& model,
               const fs::path& base) {
  check(!other_task.empty() || file.more.contains("task_folder"),
        "adapter: it does not say where the rows of its task {} are; give --task",
        file.more.at("task").dump());
  TaskData data =
      task_named(other_task.empty() ? file.more.at("task_folder").get<std::string>() : other_task);
  check(data.labels == file.more.at("labels").get<std::vector<std::string>>(),
        "eval: task {} has other labels than the adapter was trained for", data.name);
  const bool language = file.more.value("language", false);
  check((data.kind == TaskData::Kind::language) == language,
        "eval: task {} is {} language task; the adapter was trained for {}", data.name,
        language ? "no" : "a", file.more.at("task").dump());
  // Other rows are put to the model as those were that it was trained on.
  put_as_trained(file.more, data);
  return encoded(file, data, model, base, false);
}

TaskData task_without_rows(const AdapterFile& file) {
  const nlohmann::json& more = file.more;
  const bool language = more.value("language", false);
  if (!more.contains("columns")) {
    check(more.contains("task_folder"),
          "adapter: an earlier version saved it, without what its texts are called; import it with "
          "--task");
    TaskData data = task_named(more.at("task_folder").get<std::string>());
    check(data.labels == more.at("labels").get<std::vector<std::string>>(),
          "adapter: task {} has other labels by now than the adapter was trained for", data.name);
    if (data.columns.empty()) data.columns = {"a"};
    if (data.pair && data.columns.size() == 1) data.columns.emplace_back("b");
    if (data.kind != TaskData::Kind::regression) data.train.clear();
    data.dev.clear(), data.test.clear();
    put_as_trained(more, data);
    return data;
  }
  TaskData data;
  data.name = more.at("task"), data.labels = more.at("labels").get<std::vector<std::string>>();
  data.kind = language              ? TaskData::Kind::language
              : data.labels.empty() ? TaskData::Kind::regression
                                    : TaskData::Kind::classification;
  data.columns = more.at("columns").get<std::vector<std::string>>();
  data.pair = language || data.columns.size() == 2;
  data.joined = more.value("joined", false);
  data.prefix = more.value("prefix", ""), data.fields = more.value("fields", data.fields);
  data.words = more.value("words", data.words);
  // An encoder-decoder's answers lie between the least and the greatest of training.
  for (const float value : more.value("values", std::vector<float>())) {
    data.train.emplace_back().a = data.name;
    data.train.back().b = data.pair ? data.name : "";
    data.train.back().score = value;
  }
  return data;
}

TaskOf task_alone(const AdapterFile& saved, const Model& model, const fs::path& base) {
  AdapterFile file = saved;
  nlohmann::json& more = file.more;
  if (!more.contains("columns")) {  // an earlier version's; what texts are called does not matter
    check(!model.arch().crosses() || more.value("language", false) || !more.at("labels").empty(),
          "adapter: an earlier version saved it without its answers, which its task's rows tell; "
          "give --task");
    more["columns"] = more.value("fields", std::vector<std::string>()).size() == 2
                          ? std::vector<std::string>{"a", "b"}
                          : std::vector<std::string>{"a"};
  }
  TaskData data = task_without_rows(file);
  data.test.emplace_back().a = data.name;  // there must be a row; it says nothing
  if (data.pair) data.test.back().b = data.name;
  TaskOf t = encoded(file, data, model, base, true);
  t.task.test.clear();
  return t;
}

int end_token(const Arch& arch, const Tokenizer& tokenizer) {
  if (arch.sep >= 0) return arch.sep;
  return tokenizer.sep() >= 0 ? tokenizer.sep() : tokenizer.eos();
}

std::string how_to_ask(const AdapterFile& file, const Arch& arch, const Tokenizer& tokenizer) {
  const nlohmann::json& more = file.more;
  if (more.value("language", false)) {
    const int end = end_token(arch, tokenizer);
    if (arch.crosses() || more.value("joined", false) || end < 0) return "";
    return fmt::format(
        "each prompt was followed by '{}' in training; put it at the end of prompts elsewhere",
        tokenizer.token(end));
  }
  if (!more.value("text", false) || !more.contains("columns") || !more.contains("task")) return "";
  std::string form;
  for (const TextForm::Part& part : text_form(task_without_rows(file)).parts)
    form += part.before + " ...";
  return fmt::format("texts were put as '{}' in training; put them so elsewhere", form);
}

std::vector<std::pair<std::string, int>> read_text_lines(const std::string& command,
                                                         const std::string& file) {
  std::ifstream stream(file);
  std::error_code ignored;
  check(stream.good() && !fs::is_directory(file, ignored), "{}: cannot read '{}'", command, file);
  std::vector<std::pair<std::string, int>> lines;
  Lines in(stream);
  for (std::string line; in.next(line);) {
    const std::size_t bad = data::find_bad_utf8(line);
    check(bad == std::string::npos, "{}: {}:{}: byte {} is not valid UTF-8", command, file,
          in.number(), bad + 1);
    check(line.find('\0') == std::string::npos,
          "{}: {}:{}: a zero byte; need text in UTF-8 (is the file UTF-16?)", command, file,
          in.number());
    lines.emplace_back(line, in.number());
  }
  return lines;
}

void check_writable(const std::string& file) { const AtomicFile tried(file); }

void check_told(const std::string& file, const nlohmann::json& more) {
  const auto is = [&](const char* key, bool list, auto kind, const char* needed) {
    const auto at = more.find(key);
    if (at == more.end()) return;
    check(list ? at->is_array() && std::ranges::all_of(*at, kind) : kind(*at),
          "adapter: '{}': {} is {}; need {}", file, key, at->dump(), needed);
  };
  const auto text = [](const nlohmann::json& value) { return value.is_string(); };
  const auto flag = [](const nlohmann::json& value) { return value.is_boolean(); };
  for (const char* key : {"task", "task_folder", "prefix", "head", "pool", "base_hash"})
    is(key, false, text, "a text");
  for (const char* key : {"language", "text", "joined"}) is(key, false, flag, "true or false");
  for (const char* key : {"labels", "fields", "words", "columns"})
    is(key, true, text, "a list of texts");
  is(
      "values", true, [](const nlohmann::json& value) { return value.is_number(); },
      "a list of numbers");
  const auto columns = more.find("columns");
  check(columns == more.end() || columns->size() == 1 || columns->size() == 2,
        "adapter: '{}': columns is {}; need one name, or a pair's two", file,
        columns == more.end() ? "" : columns->dump());
}

AdapterFile read_whole_config(const std::string& folder) {
  AdapterFile file = read_adapter_config(folder);
  for (const char* key : {"model", "task", "labels", "head", "pool", "max_tokens", "base_hash"})
    check(file.more.contains(key), "adapter: '{}' lacks '{}' in its configuration", folder, key);
  check_told(folder, file.more);
  return file;
}

void check_base(const AdapterFile& file, const std::string& folder, std::uint64_t hash,
                const fs::path& base) {
  check(file.more.at("base_hash") == fmt::format("{:016x}", hash),
        "adapter: '{}' was trained on a base with other weights than '{}'", folder, base.string());
}

Loaded load_adapted(const std::string& folder, const Methods& methods, Device device,
                    const TaskFor& task_for) {
  const AdapterFile file = read_whole_config(folder);
  Loaded l;
  const fs::path base = base_folder(file.more.at("model"));
  l.model = load_model(base);
  check_base(file, folder, l.model->hash(), base);
  l.model->move_to(device);
  TaskOf t = task_for(file, *l.model, base);
  l.task = std::move(t.task), l.run = std::move(t.run);
  l.model->set_head(make_head(l.task, l.run, *l.model));
  l.adaptation = std::make_unique<Adaptation>(methods, file.spec, *l.model);
  Parameters all = l.adaptation->stored();
  const Parameters head = train_head(*l.model);
  all.insert(all.end(), head.begin(), head.end());
  load_adapter_values(folder, all);
  return l;
}

Loaded load_model_alone(const std::string& name, Device device, int max_tokens, bool only_test,
                        const std::function<TaskData(const Model&)>& of) {
  const fs::path folder = base_folder(name);
  Loaded l;
  l.model = load_model(folder);
  l.model->move_to(device);
  const TaskData data = of(*l.model);
  if (data.kind != TaskData::Kind::language && !l.model->encoder) {
    l.run.head = "family";
    check(l.model->has_head(),
          "'{}' has no head for whole texts; give the folder of an adapter, or train one",
          folder.string());
    const Head& head = l.model->head();
    check(tells(head, data.labels), "task {} has {}; the head of '{}' is for {}", data.name,
          labels_in_words(data.labels), folder.string(), labels_in_words(head.labels));
  }
  l.task = encode_task(data, Tokenizer::load(folder), l.model->arch(),
                       encode_for(l.run.head, {.max_tokens = max_tokens, .only_test = only_test}));
  l.model->set_head(make_head(l.task, l.run, *l.model));
  return l;
}

}  // namespace graft::cli
