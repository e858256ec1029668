// graft predict: labels or values for rows that have none.
#include <cmath>

#include "experiments/cli/cli.h"
#include "experiments/cli/loaded.h"
#include "experiments/cli/on_device.h"
#include "experiments/data/task_folders.h"
#include "experiments/runs/predict.h"
#include "nn/files/atomic.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct PredictOptions {
  std::string adapter, model, rows, out, a, b, format = "jsonl";
  int max_tokens = EncodeSpec{}.max_tokens;
  Computing computing;
};

// What the rows' columns are called: as the task's files call them, where nothing else is said.
std::vector<std::string> columns_of(const PredictOptions& o, std::vector<std::string> columns) {
  if (!o.a.empty()) columns[0] = o.a;
  check(o.b.empty() || columns.size() == 2,
        "predict: --b {}, but the adapter was trained on single texts", o.b);
  if (!o.b.empty()) columns[1] = o.b;
  return columns;
}

Loaded with_adapter(const PredictOptions& o, const Methods& methods, Device device) {
  return load_adapted(o.adapter, methods, device,
                      [&](const AdapterFile& file, const Model& model, const fs::path& base) {
                        check(!file.more.value("language", false),
                              "predict: '{}' was trained to write text; graft generate does",
                              o.adapter);
                        TaskData data = task_without_rows(file);
                        data.test = read_unlabelled(o.rows, columns_of(o, data.columns));
                        return encoded(file, data, model, base, true);
                      });
}

Loaded with_own_head(const PredictOptions& o, Device device) {
  return load_model_alone(o.model, device, o.max_tokens, true, [&](const Model& model) {
    check(model.has_head(),
          "predict: '{}' has no head for whole texts; give the folder of an adapter", o.model);
    TaskData data;
    data.name = "predict", data.labels = model.head().labels;
    data.kind = data.labels.empty() ? TaskData::Kind::regression : TaskData::Kind::classification;
    data.columns = {o.a.empty() ? "a" : o.a};
    if (!o.b.empty()) data.columns.push_back(o.b);
    data.pair = data.columns.size() == 2;
    data.test = read_unlabelled(o.rows, data.columns);
    return data;
  });
}

double shown(double x) { return std::round(x * 1e6) / 1e6; }

std::string as_json(const EncodedTask& task, const Predicted& p) {
  nlohmann::ordered_json line;
  if (p.label < 0) {
    line["value"] = p.value;
  } else {
    const auto at = static_cast<std::size_t>(p.label);
    line["label"] = task.labels[at], line["probability"] = shown(p.probabilities[at]);
    for (std::size_t i = 0; i < task.labels.size(); ++i)
      line["probabilities"][task.labels[i]] = shown(p.probabilities[i]);
  }
  return line.dump() + "\n";
}

// As GLUE takes its test sets' answers.
std::string as_tsv(const EncodedTask& task, const std::vector<Predicted>& all) {
  std::string text = "index\tprediction\n";
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Predicted& p = all[i];
    if (p.label < 0) {
      text += fmt::format("{}\t{:.3f}\n", i, p.value);
      continue;
    }
    const std::string& label = task.labels[static_cast<std::size_t>(p.label)];
    check(label.find_first_of("\t\n") == std::string::npos,
          "predict: label '{}' does not fit into a column; take --format jsonl", label);
    text += fmt::format("{}\t{}\n", i, label);
  }
  return text;
}

void predict_command(const PredictOptions& o, const Methods& methods) {
  check(o.adapter.empty() != o.model.empty(),
        "predict: give an adapter's folder, or --model FOLDER");
  const Device device = device_of(o.computing);
  if (!o.out.empty()) check_writable(o.out);
  const Loaded l = o.model.empty() ? with_adapter(o, methods, device) : with_own_head(o, device);
  const auto half = computing_in(*l.model, o.computing.compute,
                                 l.adaptation ? l.adaptation->stored() : Parameters{});
  const std::vector<Predicted> all = with_progress(l.task.test.size(), [&](const RowsDone& done) {
    return predict(*l.model, l.task, l.task.test, done);
  });
  std::string text;
  if (o.format == "tsv")
    text = as_tsv(l.task, all);
  else
    for (const Predicted& p : all) text += as_json(l.task, p);
  if (l.task.shortened > 0)
    fmt::print(stderr,
               "{} texts were longer than the model takes in, or --max-tokens, and were cut\n",
               l.task.shortened);
  if (o.out.empty()) {
    fmt::print("{}", text);
    return;
  }
  write_file_atomically(o.out, text);
  fmt::print("{} rows in {}\n", all.size(), o.out);
}

}  // namespace

void add_predict(const Command& app, const Methods& methods) {
  static PredictOptions o;
  const Command c = app.add_subcommand(
      "predict", "Labels or values for rows that have none, by an adapter or a model");
  c.add_option("adapter", o.adapter, "the adapter's folder; its task's files need not be there");
  const Option model =
      c.add_option("--model", o.model, "in its place: a model folder that has a head");
  c.add_option("--rows", o.rows, "a .csv, .tsv, .jsonl or .json with columns; a .txt of lines")
      .required();
  c.add_option("--a", o.a,
               "the column of the text, or of a pair's first; not given: as in training");
  c.add_option("--b", o.b, "the column of a pair's second text");
  c.add_option("--out", o.out, "a file; not given: standard output");
  c.add_option("--format", o.format, "jsonl; or tsv as GLUE takes answers: index, prediction")
      .one_of({"jsonl", "tsv"})
      .capture_default_str();
  c.add_option("--max-tokens", o.max_tokens, "of the model's texts; an adapter has its own")
      .needs(model)
      .capture_default_str();
  add_computing(c, o.computing);
  c.callback([&] { predict_command(o, methods); });
}

}  // namespace graft::cli
