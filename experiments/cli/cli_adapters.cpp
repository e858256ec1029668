// graft eval, merge: adapters that were trained, and models with a head.
#include "experiments/cli/cli.h"
#include "experiments/data/metrics.h"
#include "experiments/runs/exact_match.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "nn/models/folder.h"
#include "nn/models/generation.h"
#include "nn/models/heads.h"
#include "peft/files.h"
#include "peft/folder.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

struct EvalOptions {
  std::string adapter, model, task, split = "test";
  bool write = false;
  int max_tokens = EncodeSpec{}.max_tokens;
};

struct MergeOptions {
  std::string adapter, out, dtype = "f32";
  bool without_head = false;
};

// Another model is never written over: it may be a base that adapters need.
void check_free(const MergeOptions& o) {
  check(!fs::exists(fs::path(o.out) / "config.json"),
        "merge: '{}' holds a model already; give another --out", o.out);
}

void save_merged(Model& model, const fs::path& base, const MergeOptions& o) {
  const Tokenizer tokenizer = Tokenizer::load(base);
  const FileDtype dtype = o.dtype == "f16"    ? FileDtype::f16
                          : o.dtype == "bf16" ? FileDtype::bf16
                                              : FileDtype::f32;
  save_model(model, o.out, dtype, &tokenizer);
  keep_generation(base, o.out);
}

struct Loaded {
  std::unique_ptr<Model> model;
  EncodedTask task;
  RunSpec run;  // its head and pool
  std::unique_ptr<Adaptation> adaptation;
};

// The base, the adapter and its task, as they were saved.
Loaded load(const std::string& folder, const std::string& other_task, const Methods& methods) {
  const AdapterFile file = read_adapter_config(folder);
  for (const char* key :
       {"model", "task", "task_folder", "labels", "head", "pool", "max_tokens", "base_hash"})
    check(file.more.contains(key), "adapter: '{}' lacks '{}' in its configuration", folder, key);
  Loaded l;
  const fs::path base = base_folder(file.more.at("model"));
  l.model = load_model(base);
  check(file.more.at("base_hash") == fmt::format("{:016x}", l.model->hash()),
        "adapter: '{}' was trained on a base with other weights than '{}'", folder, base.string());
  RunSpec& run = l.run;
  run.head = file.more.at("head"), run.pool = file.more.at("pool");
  const TaskData data =
      task_named(other_task.empty() ? file.more.at("task_folder").get<std::string>() : other_task);
  check(data.labels == file.more.at("labels").get<std::vector<std::string>>(),
        "eval: task {} has other labels than the adapter was trained for", data.name);
  const bool language = file.more.value("language", false);
  check((data.kind == TaskData::Kind::language) == language,
        "eval: task {} is {} language task; the adapter was trained for {}", data.name,
        language ? "no" : "a", file.more.at("task").dump());
  l.task = encode_task(data, Tokenizer::load(base), l.model->arch(),
                       encode_for(run.head, {.max_tokens = file.more.at("max_tokens")}));
  l.model->set_head(make_head(l.task, run, *l.model));
  l.adaptation = std::make_unique<Adaptation>(methods, file.spec, *l.model);
  Parameters all = l.adaptation->stored();
  const Parameters head = train_head(*l.model);
  all.insert(all.end(), head.begin(), head.end());
  load_adapter_values(folder, all);
  return l;
}

// A model folder by itself: its head for whole texts, or a decoder's loss on a language task.
Loaded load_model_alone(const EvalOptions& o) {
  const fs::path folder = base_folder(o.model);
  check(!o.task.empty(), "eval: --model {} needs --task", o.model);
  Loaded l;
  l.model = load_model(folder);
  const TaskData data = task_named(o.task);
  if (data.kind != TaskData::Kind::language && !l.model->encoder) {
    l.run.head = "family";
    check(l.model->has_head(),
          "eval: '{}' has no head for whole texts; give the folder of an adapter, or train one",
          folder.string());
    const Head& head = l.model->head();
    check(tells(head, data.labels), "eval: task {} has {}; the head of '{}' is for {}", data.name,
          labels_in_words(data.labels), folder.string(), labels_in_words(head.labels));
  }
  l.task = encode_task(data, Tokenizer::load(folder), l.model->arch(),
                       encode_for(l.run.head, {.max_tokens = o.max_tokens}));
  l.model->set_head(make_head(l.task, l.run, *l.model));
  return l;
}

void eval_command(const EvalOptions& o, const Methods& methods) {
  check(o.adapter.empty() != o.model.empty(), "eval: give an adapter's folder, or --model FOLDER");
  check(o.split == "dev" || o.split == "test", "eval: split '{}'; there are dev and test", o.split);
  Loaded l = o.model.empty() ? load(o.adapter, o.task, methods) : load_model_alone(o);
  const auto& examples = o.split == "dev" ? l.task.dev : l.task.test;
  const Score s = evaluate(*l.model, l.task, examples);
  fmt::print("{} {} {:.4f} on {} examples\n", o.split, l.task.metric,
             turned(l.task.metric, s.metric), s.rows.size());
  if (!o.write) return;
  const ExactMatch m = exact_match(*l.model, l.task, examples);
  fmt::print("{} exact match {:.4f}: {} of {} written answers\n", o.split, m.share(), m.right,
             m.of);
}

// An adapter that knows no task: its model writes text.
void merge_alone(const MergeOptions& o, const AdapterFile& file, const Methods& methods) {
  check(file.more.contains("model"), "adapter: '{}' lacks 'model' in its configuration", o.adapter);
  const fs::path base = base_folder(file.more.at("model"));
  const auto model = load_model(base);
  const auto adaptation = load_adapter(o.adapter, methods, *model);
  adaptation->merge();
  save_merged(*model, base, o);
  fmt::print("merged model in {}\n", o.out);
}

void merge_command(const MergeOptions& o, const Methods& methods) {
  check_free(o);
  const AdapterFile file = read_adapter_config(o.adapter);
  if (!file.more.contains("task_folder")) return merge_alone(o, file, methods);
  Loaded l = load(o.adapter, "", methods);
  const std::string why = why_not_handed_back(l.run, l.task.goal);
  check(o.without_head || why.empty(),
        "merge: {}, or --without-head saves the model alone (the head stays in the adapter)", why);
  const Score before = evaluate(*l.model, l.task, l.task.dev);
  l.adaptation->merge();
  const Score after = evaluate(*l.model, l.task, l.task.dev);
  if (o.without_head) l.model->set_head(nullptr);
  save_merged(*l.model, base_folder(file.more.at("model")), o);
  fmt::print("merged model in {}; dev {} {:.4f} unmerged, {:.4f} merged\n", o.out, l.task.metric,
             turned(l.task.metric, before.metric), turned(l.task.metric, after.metric));
}

}  // namespace

void add_adapter_commands(CLI::App& app, const Methods& methods) {
  static EvalOptions e;
  static MergeOptions m;
  CLI::App* eval = app.add_subcommand("eval", "Score a saved adapter, or a model with a head");
  eval->add_option("adapter", e.adapter, "the adapter's folder");
  auto* model = eval->add_option("--model", e.model, "a model folder or a base, by itself");
  eval->add_option("--task", e.task, "of the model; of an adapter: other rows, the same labels");
  eval->add_option("--split", e.split, "dev or test")->capture_default_str();
  eval->add_option("--max-tokens", e.max_tokens, "of the model's texts; an adapter has its own")
      ->needs(model)
      ->capture_default_str();
  eval->add_flag("--generate", e.write, "of a language task: also count answers written exactly");
  eval->callback([&] { eval_command(e, methods); });

  CLI::App* merge =
      app.add_subcommand("merge", "Fold an adapter into its base; save a model folder");
  merge->add_option("adapter", m.adapter, "the adapter's folder")->required();
  merge->add_option("--out", m.out)->required();
  merge->add_option("--dtype", m.dtype, "of the file")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  merge->add_flag("--without-head", m.without_head, "leave the task's head out");
  merge->callback([&] { merge_command(m, methods); });
}

}  // namespace graft::cli
