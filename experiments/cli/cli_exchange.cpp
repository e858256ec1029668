// graft import, export: adapters from and to the folders of Hugging Face's PEFT and of
// AdapterHub.
#include <algorithm>
#include <climits>
#include <optional>

#include "experiments/cli/cli.h"
#include "experiments/cli/loaded.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/out_folder.h"
#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"
#include "nn/models/folder.h"
#include "nn/models/heads.h"
#include "peft/adapterhub.h"
#include "peft/files.h"
#include "peft/training_state.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct ImportOptions {
  std::string folder, model = "encoder", task, out, pool = "mean";
  bool pool_given = false, max_given = false;
  int max_tokens = 128;
};

struct ExportOptions {
  std::string adapter, out, base_name;
  bool without_state = false;
};

// --- graft.json: what PEFT's files have no place for, beside them
// ---------------------------------

constexpr const char* kHandedOn = "graft.json";
constexpr const char* kHandedOnFormat = "graft-handed-on-1";
constexpr const char* kNeeded[] = {"task", "labels", "head", "pool", "max_tokens"};
// How the texts were put to the model in training, and what its answers are.
constexpr const char* kPut[] = {"joined", "prefix", "fields", "words", "columns", "values"};

// A task's folder stays behind: it is this machine's. Nothing of an adapter that knows no task.
void write_handed_on(const fs::path& folder, const AdapterFile& file, const Arch& arch,
                     const Tokenizer& tokenizer) {
  const json& more = file.more;
  std::error_code none;
  fs::remove(folder / kHandedOn, none);  // another adapter's
  for (const char* key : kNeeded)
    if (!more.contains(key)) return;
  json out{{"format", kHandedOnFormat}};
  for (const char* key :
       {"task", "labels", "language", "text", "max_tokens", "head", "pool", "base_hash"})
    if (more.contains(key)) out[key] = more.at(key);
  for (const char* key : kPut)
    if (more.contains(key)) out[key] = more.at(key);
  const std::string named = more.value("task_folder", "");
  if (std::ranges::find(task_names(), named) != task_names().end()) out["task_folder"] = named;
  if (const std::string note = how_to_ask(file, arch, tokenizer); !note.empty()) out["note"] = note;
  write_file_atomically(folder / kHandedOn, out.dump(2) + "\n");
}

// Nothing where the folder was written by another program.
std::optional<json> read_handed_on(const std::string& folder) {
  const fs::path at = fs::path(folder) / kHandedOn;
  if (!fs::exists(at)) return std::nullopt;
  const std::string file = at.string();
  json told = parse_strict(file, read_file(at));
  check(told.is_object() && told.value("format", json()) == kHandedOnFormat,
        "import: '{}' is no {} of this program; take it away to import the adapter without", file,
        kHandedOn);
  check_told(file, told);
  for (const char* key : kNeeded)
    check(told.contains(key), "import: '{}' lacks '{}'; take it away to import the adapter without",
          file, key);
  const json& most = told.at("max_tokens");
  check(most.is_number_unsigned() && most.get<std::uint64_t>() <= INT_MAX,
        "import: '{}': max_tokens is {}; need a number of tokens", file, most.dump());
  return told;
}

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

// Whether what the folder tells of its task is of this adapter: a head of that many rows is there,
// or the answers are words. AdapterHub's folders leave heads behind.
bool tells_of(const json& told, const PeftAdapter& read, bool crosses) {
  if (told.value("language", false)) return read.head.head.empty();
  if (crosses || told.at("head") == "cloze") return read.head.head.empty();
  const std::size_t rows = std::max<std::size_t>(1, told.at("labels").size());
  return read.head.rows == static_cast<int>(rows);
}

// What --task tells of the adapter, into `more`.
void add_task(const ImportOptions& o, const PeftAdapter& read, bool crosses, json& more) {
  const TaskData data = task_named(o.task);
  const bool language = data.kind == TaskData::Kind::language;
  const bool text = language || crosses;  // an encoder-decoder answers in words
  const std::size_t rows = data.kind == TaskData::Kind::regression ? 1 : data.labels.size();
  const bool cloze = more.at("head") == "cloze";
  check(text || cloze ? read.head.head.empty() : read.head.rows == static_cast<int>(rows),
        "import: task {} needs {}; '{}' has {}", data.name,
        text ? "no head" : fmt::format("a head of {} rows", rows), o.folder,
        read.head.head.empty() ? "none" : fmt::format("one of {} rows", read.head.rows));
  more["task"] = data.name, more["task_folder"] = whole_task_name(o.task);
  more["labels"] = data.labels, more["language"] = language, more["joined"] = data.joined;
  more["text"] = text && !language;
}

// What an adapter of ours says of itself beside its spec: as its folder tells it, if graft wrote
// that, or as --task does, which the labels of a head need then.
json about(const ImportOptions& o, const PeftAdapter& read, const RunSpec& run, bool crosses,
           std::uint64_t base_hash, const std::optional<json>& told) {
  json more{{"model", whole_base_name(o.model)},
            {"base_hash", fmt::format("{:016x}", base_hash)},
            {"head", run.head},
            {"pool", run.pool},
            {"max_tokens", told && !o.max_given ? told->at("max_tokens") : json(o.max_tokens)},
            {"joined", true},
            {"language", read.task_type == "CAUSAL_LM" || read.task_type == "SEQ_2_SEQ_LM"},
            {"text", crosses},
            {"labels", std::vector<std::string>()}};
  const bool tells = told && tells_of(*told, read, crosses);
  check(!o.task.empty() || tells || read.head.head.empty(),
        "import: '{}' has a head of {} rows; give --task, for their labels", o.folder,
        read.head.rows);
  if (!o.task.empty()) add_task(o, read, crosses, more);
  if (!tells) return more;
  if (o.task.empty()) {
    const bool language = told->value("language", false);
    more["task"] = told->at("task"), more["labels"] = told->at("labels");
    more["language"] = language, more["text"] = crosses && !language;
    if (told->contains("task_folder")) more["task_folder"] = told->at("task_folder");
  }
  check(more.at("labels") == told->at("labels"),
        "import: the labels of '{}' are {}; the adapter was trained for {}, as {} there says",
        o.task, more.at("labels").dump(), told->at("labels").dump(), kHandedOn);
  for (const char* key : kPut)  // other rows are put to the model as those of its training
    if (told->contains(key)) more[key] = told->at(key);
  if (told->contains("base_hash") && told->at("base_hash") != more.at("base_hash"))
    fmt::print("the adapter was trained on a base with other weights than '{}'\n", o.model);
  return more;
}

void import_command(const ImportOptions& o, const Methods& methods) {
  check(!fs::exists(fs::path(o.out) / "adapter_config.json"),
        "import: '{}' has an adapter already; give another --out", o.out);
  const OutFolder place("import", o.out);
  const auto model = load_model(base_folder(o.model));
  const std::uint64_t base_hash = model->hash();
  PeftAdapter read = is_adapterhub_folder(o.folder)
                         ? read_adapterhub_folder(o.folder, model->arch())
                         : read_peft_folder(o.folder, model->arch());
  const bool headed = !read.head.head.empty(), family = read.head.head == "family";
  RunSpec run;
  run.head = headed ? read.head.head : model->arch().crosses() ? "text" : "linear";
  const std::optional<json> told = read_handed_on(o.folder);
  const bool tells = told && tells_of(*told, read, model->arch().crosses());
  if (tells && told->at("head") == "cloze") run.head = "cloze";
  const bool tells_pool = headed && tells && !o.pool_given;
  if (!family) run.pool = tells_pool ? told->at("pool").get<std::string>() : o.pool;
  check(!o.pool_given || !family,
        "import: --pool {}, but the head in '{}' is its family's own, which has its own way of "
        "pooling; leave it out",
        o.pool, o.folder);
  const json more = about(o, read, run, model->arch().crosses(), base_hash, told);
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
  if (headed && !family && !tells_pool && !o.pool_given)
    fmt::print("the folder does not say how its head pools: pool={} is taken\n", run.pool);
  fmt::print("{} in {}\n", read.spec, o.out);
}

void export_command(const ExportOptions& o, const Methods& methods) {
  const std::string &folder = o.adapter, &out = o.out;
  const OutFolder place("export", out);
  const AdapterFile file = read_adapter_config(folder);
  check_told(folder, file.more);
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
      out,
      {model->arch(), file.spec, all, headed ? run.head : "", run.pool, language,
       o.base_name.empty() ? fs::absolute(base).lexically_normal().string() : o.base_name, pooler});
  for (const std::string& note : notes) fmt::print("{}\n", note);
  const Tokenizer tokenizer = Tokenizer::load(base);
  write_handed_on(out, file, model->arch(), tokenizer);
  if (const std::string note = how_to_ask(file, model->arch(), tokenizer); !note.empty())
    fmt::print("{}\n", note);
  if (!o.without_state) hand_on_state(state_of(folder), out);
  fmt::print("{} folder in {}\n", hub ? "AdapterHub" : "PEFT", out);
}

}  // namespace

void add_exchange_commands(const Command& app, const Methods& methods) {
  static ImportOptions o;
  static ExportOptions e;
  const Command in = app.add_subcommand(
      "import", "An adapter in a folder of PEFT's or AdapterHub's as one of graft's");
  in.add_option("folder", o.folder, "with adapter_config.json and its safetensors").required();
  in.add_option("--model", o.model, "the base it is for: a name or a model folder")
      .capture_default_str();
  in.add_option("--task", o.task,
                "the task that its head is for, or that it writes text of; a folder that graft "
                "exported says that itself");
  const Option pool =
      in.add_option("--pool", o.pool, "how a head of your own pools").capture_default_str();
  const Option most =
      in.add_option("--max-tokens", o.max_tokens, "of the task's texts").capture_default_str();
  in.add_option("--out", o.out, "folder of the adapter").required();
  in.callback([&, pool, most] {
    o.pool_given = pool.count() > 0, o.max_given = most.count() > 0;
    import_command(o, methods);
  });

  const Command to = app.add_subcommand(
      "export", "An adapter as a folder that PEFT opens; bottlenecks, AdapterHub");
  to.add_option("adapter", e.adapter, "the adapter's folder").required();
  to.add_option("--out", e.out, "folder of PEFT's or AdapterHub's files").required();
  to.add_option("--base-name", e.base_name,
                "what the base is called there, as on the hub; else its folder on this machine");
  to.add_flag("--without-state", e.without_state, "leave behind what training goes on from");
  to.callback([&] { export_command(e, methods); });
}

}  // namespace graft::cli
