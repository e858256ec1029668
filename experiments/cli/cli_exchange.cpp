// graft import, export: adapters from and to the folders of Hugging Face's PEFT and of
// AdapterHub.
#include <optional>

#include "experiments/cli/cli.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "nn/models/folder.h"
#include "nn/models/heads.h"
#include "peft/adapterhub.h"
#include "peft/files.h"
#include "peft/training_state.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

struct ImportOptions {
  std::string folder, model = "encoder", task, out, pool = "mean";
  bool pool_given = false;
  int max_tokens = 128;
};

// A head that fits what is saved of one; the task's rows are not needed for that.
std::unique_ptr<Head> head_for(const Model& model, std::vector<std::string> labels,
                               const RunSpec& run) {
  EncodedTask task;
  task.goal = labels.empty() ? Goal::regression : Goal::classification;
  task.labels = std::move(labels);
  return make_head(task, run, model);
}

// What `graft train --resume` needs goes along, where there is any and it is this adapter's.
std::optional<TrainingState> state_of(const std::string& folder) {
  if (!has_training_state(folder)) return std::nullopt;
  if (is_state_of_adapter(folder)) return kept_training_state(folder);
  fmt::print("{} in '{}' is left behind: the adapter there has other values by now\n",
             kTrainingState, folder);
  return std::nullopt;
}

void hand_on_state(const std::optional<TrainingState>& state, const std::string& to) {
  if (!state) return;
  keep_training_state(to, *state);
  fmt::print("with the state of its training: `graft train --resume {}` goes on\n", to);
}

Parameters all_of(const Adaptation& adaptation, Model& model) {
  Parameters all = adaptation.stored();
  const Parameters head = train_head(model);
  all.insert(all.end(), head.begin(), head.end());
  return all;
}

// What an adapter of ours says of itself beside its spec: the labels of its head need a task.
nlohmann::json about(const ImportOptions& o, const PeftAdapter& read, const RunSpec& run,
                     bool crosses, std::uint64_t base_hash) {
  nlohmann::json more{
      {"model", o.model},
      {"base_hash", fmt::format("{:016x}", base_hash)},
      {"head", run.head},
      {"pool", run.pool},
      {"max_tokens", o.max_tokens},
      {"joined", true},
      {"language", read.task_type == "CAUSAL_LM" || read.task_type == "SEQ_2_SEQ_LM"},
      {"text", crosses},
      {"labels", std::vector<std::string>()}};
  check(!o.task.empty() || read.head.head.empty(),
        "import: '{}' has a head of {} rows; give --task, for their labels", o.folder,
        read.head.rows);
  if (o.task.empty()) return more;
  const TaskData data = task_named(o.task);
  const bool language = data.kind == TaskData::Kind::language;
  const bool text = language || crosses;  // an encoder-decoder answers in words
  const std::size_t rows = data.kind == TaskData::Kind::regression ? 1 : data.labels.size();
  check(text ? read.head.head.empty() : read.head.rows == static_cast<int>(rows),
        "import: task {} needs {}; '{}' has {}", data.name,
        text ? "no head" : fmt::format("a head of {} rows", rows), o.folder,
        read.head.head.empty() ? "none" : fmt::format("one of {} rows", read.head.rows));
  more["task"] = data.name, more["task_folder"] = o.task, more["labels"] = data.labels;
  more["language"] = language, more["joined"] = data.joined;
  more["text"] = text && !language;
  return more;
}

void import_command(const ImportOptions& o, const Methods& methods) {
  check(!fs::exists(fs::path(o.out) / "adapter_config.json"),
        "import: '{}' has an adapter already; give another --out", o.out);
  const auto model = load_model(base_folder(o.model));
  const std::uint64_t base_hash = model->hash();
  PeftAdapter read = is_adapterhub_folder(o.folder)
                         ? read_adapterhub_folder(o.folder, model->arch())
                         : read_peft_folder(o.folder, model->arch());
  const bool headed = !read.head.head.empty(), family = read.head.head == "family";
  RunSpec run;
  run.head = headed ? read.head.head : model->arch().crosses() ? "text" : "linear";
  if (!family) run.pool = o.pool;
  check(!o.pool_given || !family,
        "import: --pool {}, but the head in '{}' is its family's own, which has its own way of "
        "pooling; leave it out",
        o.pool, o.folder);
  const nlohmann::json more = about(o, read, run, model->arch().crosses(), base_hash);
  const std::optional<TrainingState> state = state_of(o.folder);
  if (headed) {
    check(!read.head.base_pooler || saved_pooler(*model),
          "import: the head in '{}' begins with its base's matrix for pooling, which '{}' was "
          "saved without; give the base that the adapter was trained on",
          o.folder, o.model);
    model->set_head(head_for(*model, more.at("labels"), run));
  } else {
    model->set_head(nullptr);  // the base's own is not the adapter's
  }
  const Adaptation adaptation(methods, read.spec, *model);
  const Parameters all = all_of(adaptation, *model);
  if (read.head.base_pooler)  // the head was made with it
    for (const auto& p : all)
      if (p->site.part == Part::head_dense) read.values[p->label()] = p->value.value();
  set_adapter_values(read.values, all, o.folder);
  save_adapter(o.out, read.spec, all, more);
  for (const std::string& note : read.notes) fmt::print("{}\n", note);
  hand_on_state(state, o.out);
  if (headed && !family)
    fmt::print("the folder does not say how its head pools: pool={} is taken\n", run.pool);
  fmt::print("{} in {}\n", read.spec, o.out);
}

void export_command(const std::string& folder, const std::string& out, const Methods& methods) {
  const AdapterFile file = read_adapter_config(folder);
  for (const char* key : {"model", "base_hash", "head", "pool", "labels"})
    check(file.more.contains(key), "export: adapter '{}' lacks '{}' in its configuration", folder,
          key);
  const fs::path base = base_folder(file.more.at("model"));
  const auto model = load_model(base);
  check(file.more.at("base_hash") == fmt::format("{:016x}", model->hash()),
        "export: adapter '{}' was trained on a base with other weights than '{}'", folder,
        base.string());
  RunSpec run;
  run.head = file.more.at("head"), run.pool = file.more.at("pool");
  const bool language = file.more.value("language", false) || file.more.value("text", false);
  const AdapterValues values = read_adapter_values(folder);
  const std::string last = to_string(Site{model->arch().stack, -1, Part::head}) + " weight";
  const bool headed = values.contains(last);
  const Linear* pooler = saved_pooler(*model);
  std::unique_ptr<Head> of_base;  // it may hold the pooler
  of_base = model->set_head(headed ? head_for(*model, file.more.at("labels"), run) : nullptr);
  const Adaptation adaptation(methods, file.spec, *model);
  const Parameters all = all_of(adaptation, *model);
  set_adapter_values(values, all, folder);
  const bool hub = is_for_adapterhub(file.spec);
  const auto notes = (hub ? write_adapterhub_folder : write_peft_folder)(
      out, {model->arch(), file.spec, all, headed ? run.head : "", run.pool, language,
            fs::absolute(base).lexically_normal().string(), pooler});
  for (const std::string& note : notes) fmt::print("{}\n", note);
  hand_on_state(state_of(folder), out);
  fmt::print("{} folder in {}\n", hub ? "AdapterHub" : "PEFT", out);
}

}  // namespace

void add_exchange_commands(const Command& app, const Methods& methods) {
  static ImportOptions o;
  static std::string adapter, out;
  const Command in = app.add_subcommand(
      "import", "An adapter in a folder of PEFT's or AdapterHub's as one of graft's");
  in.add_option("folder", o.folder, "with adapter_config.json and its safetensors").required();
  in.add_option("--model", o.model, "the base it is for: a name or a model folder")
      .capture_default_str();
  in.add_option("--task", o.task, "the task that its head is for, or that it writes text of");
  const Option pool =
      in.add_option("--pool", o.pool, "how a head of your own pools").capture_default_str();
  in.add_option("--max-tokens", o.max_tokens, "of the task's texts").capture_default_str();
  in.add_option("--out", o.out, "folder of the adapter").required();
  in.callback([&, pool] {
    o.pool_given = pool.count() > 0;
    import_command(o, methods);
  });

  const Command to = app.add_subcommand(
      "export", "An adapter as a folder that PEFT opens; bottlenecks, AdapterHub");
  to.add_option("adapter", adapter, "the adapter's folder").required();
  to.add_option("--out", out, "folder of PEFT's or AdapterHub's files").required();
  to.callback([&] { export_command(adapter, out, methods); });
}

}  // namespace graft::cli
