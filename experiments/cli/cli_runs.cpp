// graft train, eval, merge, replay: single runs.
#include "experiments/ablations/lab.h"
#include "experiments/cli/cli.h"
#include "experiments/data/metrics.h"
#include "experiments/harness/progress.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "peft/files.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

// The options that train and replay share.
struct TrainOptions {
  std::string model = "encoder", task, out;
  RunSpec run;
  EncodeSpec encode;
  double state_seconds = 3;
};

// A record shows a score as a reader knows it: a loss is not negated.
nlohmann::json record_of(const TrainOptions& o, const std::string& metric, const Model& model,
                         std::uint64_t base_hash, const RunResult& r) {
  std::vector<double> dev;
  for (const double score : r.dev) dev.push_back(turned(metric, score));
  return {{"model", o.model},
          {"task", o.task},
          {"run", o.run.json()},
          {"max_tokens", o.encode.max_tokens},
          {"train_rows", o.encode.train_rows},
          {"dev_rows", o.encode.dev_rows},
          {"test_rows", o.encode.test_rows},
          {"family", model.arch().family},
          {"core", core_name()},
          {"versions", versions()},
          {"base_hash", fmt::format("{:016x}", base_hash)},
          {"weights_hash", fmt::format("{:016x}", r.weights_hash)},
          {"metric", metric},
          {"dev", dev},
          {"train_loss", r.train_loss},
          {"best_epoch", r.best_epoch},
          {"test", turned(metric, r.test)},
          {"trainable", r.trainable},
          {"head", r.head},
          {"base", r.base},
          {"seconds", r.seconds},
          {"peak_bytes", r.peak_bytes}};
}

struct Trained {
  nlohmann::json record;
  RunResult result;
};

using Save = std::function<void(Model&, Adaptation&, const EncodedTask&, std::uint64_t base_hash)>;

Trained run(const TrainOptions& o, const Methods& methods, bool quiet, const Save& save) {
  const fs::path folder = base_folder(o.model);
  const auto model = load_model(folder);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  EncodeSpec encode = o.encode;
  encode.cloze = o.run.head == "cloze";
  const TaskData data = task_named(o.task);
  if (!quiet && is_task_folder(o.task)) fmt::print("task {}: {}\n", data.name, data.note);
  const EncodedTask task = encode_task(data, tokenizer, model->arch(), encode);
  if (!quiet && task.shortened > 0)
    fmt::print("{} texts were longer than {} tokens and were cut\n", task.shortened,
               o.encode.max_tokens);
  const std::uint64_t base_hash = model->hash();
  RunPlaces places;
  if (!o.out.empty())
    places.state = fs::path(o.out) / "state.safetensors", places.state_seconds = o.state_seconds;
  StepProgress progress(stdout);
  if (!quiet)
    places.progress = [&](int step, int steps, double loss) { progress.at(step, steps, loss); };
  AtBest at_best;
  if (save)
    at_best = [&](Model& m, Adaptation& a, const EncodedTask& e) { save(m, a, e, base_hash); };
  Trained t;
  t.result = finetune(*model, task, o.run, methods, at_best, places);
  t.record = record_of(o, task.metric, *model, base_hash, t.result);
  return t;
}

void train_command(const TrainOptions& o, const Methods& methods) {
  std::error_code error;
  fs::create_directories(o.out, error);
  check(!error, "train: cannot make folder '{}': {}", o.out, error.message());
  const fs::path done = fs::path(o.out) / "run.json";
  check(!fs::exists(done), "train: '{}' is a finished run; give another --out", done.string());
  const Save save = [&](Model& model, Adaptation& adaptation, const EncodedTask& task,
                        std::uint64_t base_hash) {
    Parameters all = adaptation.parameters();
    const Parameters head = train_head(model);
    all.insert(all.end(), head.begin(), head.end());
    save_adapter(fs::path(o.out) / "adapter", o.run.method, all,
                 {{"model", o.model},
                  {"task", task.name},
                  {"labels", task.labels},
                  {"language", task.goal == Goal::language},
                  {"joined", task.joined},
                  {"task_folder", o.task},
                  {"max_tokens", o.encode.max_tokens},
                  {"base_hash", fmt::format("{:016x}", base_hash)},
                  {"head", o.run.head},
                  {"pool", o.run.pool}});
  };
  const Trained t = run(o, methods, false, save);
  const std::string metric = t.record.at("metric");
  write_file_atomically(done, t.record.dump(2) + "\n");
  fmt::print(
      "trainable params: {} (and {} of the head) of {}\n{}: dev {:.4f} (epoch {}), test {:.4f}; "
      "{:.0f} s\n"
      "weights {:016x}\nadapter in {}\n",
      t.result.trainable, t.result.head, t.result.base, metric, turned(metric, t.result.dev_best),
      t.result.best_epoch + 1, turned(metric, t.result.test), t.result.seconds,
      t.result.weights_hash, (fs::path(o.out) / "adapter").string());
}

void replay_command(const std::string& file, const Methods& methods) {
  const auto record = nlohmann::json::parse(read_file(file), nullptr, false);
  check(record.is_object() && record.contains("run") && record.contains("weights_hash"),
        "replay: '{}' is not a run.json", file);
  for (const char* key :
       {"model", "task", "base_hash", "core", "max_tokens", "train_rows", "dev_rows", "test_rows"})
    check(record.contains(key), "replay: '{}' lacks '{}'", file, key);
  check(record.at("core") == core_name(),
        "replay: '{}' was made by kernels for {}, these are for {}: the bits would differ", file,
        record.at("core").dump(), core_name());
  TrainOptions o;
  o.model = record.at("model"), o.task = record.at("task"), o.run = RunSpec::from(record.at("run"));
  o.encode.max_tokens = record.at("max_tokens"), o.encode.train_rows = record.at("train_rows");
  o.encode.dev_rows = record.at("dev_rows"), o.encode.test_rows = record.at("test_rows");
  const Trained t = run(o, methods, true, {});
  for (const char* key : {"base_hash", "weights_hash"}) {
    const std::string was = record.at(key), is = t.record.at(key);
    check(was == is, "replay: {} is {}, the record says {}", key, is, was);
  }
  fmt::print("the same bits: weights {}\n", std::string(record.at("weights_hash")));
}

struct Loaded {
  std::unique_ptr<Model> model;
  EncodedTask task;
  std::unique_ptr<Adaptation> adaptation;
};

// The base, the adapter and its task, as they were saved.
Loaded load(const std::string& folder, const std::string& other_task, const Methods& methods) {
  const AdapterFile file = read_adapter_config(folder);
  Loaded l;
  const fs::path base = base_folder(file.more.at("model"));
  l.model = load_model(base);
  for (const char* key :
       {"model", "task", "task_folder", "labels", "head", "pool", "max_tokens", "base_hash"})
    check(file.more.contains(key), "adapter: '{}' lacks '{}' in its configuration", folder, key);
  check(file.more.at("base_hash") == fmt::format("{:016x}", l.model->hash()),
        "adapter: '{}' was trained on a base with other weights than '{}'", folder, base.string());
  RunSpec run;
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
                       {.max_tokens = file.more.at("max_tokens"), .cloze = run.head == "cloze"});
  l.model->set_head(make_head(l.task, run, *l.model));
  l.adaptation = std::make_unique<Adaptation>(methods, file.spec, *l.model);
  Parameters all = l.adaptation->parameters();
  const Parameters head = train_head(*l.model);
  all.insert(all.end(), head.begin(), head.end());
  load_adapter_values(folder, all);
  return l;
}

void eval_command(const std::string& folder, const std::string& task, const std::string& split,
                  const Methods& methods) {
  Loaded l = load(folder, task, methods);
  check(split == "dev" || split == "test", "eval: split '{}'; there are dev and test", split);
  const Score s = evaluate(*l.model, l.task, split == "dev" ? l.task.dev : l.task.test);
  fmt::print("{} {} {:.4f} on {} examples\n", split, l.task.metric, turned(l.task.metric, s.metric),
             s.rows.size());
}

void merge_command(const std::string& folder, const std::string& out, const Methods& methods) {
  Loaded l = load(folder, "", methods);
  const Score before = evaluate(*l.model, l.task, l.task.dev);
  l.adaptation->merge();
  const Score after = evaluate(*l.model, l.task, l.task.dev);
  const Tokenizer tokenizer =
      Tokenizer::load(base_folder(read_adapter_config(folder).more.at("model")));
  save_model(*l.model, out, FileDtype::f32, &tokenizer);
  fmt::print(
      "merged model in {}; dev {} {:.4f} unmerged, {:.4f} merged\n"
      "the task's head is no part of the model folder; it stays in the adapter's\n",
      out, l.task.metric, turned(l.task.metric, before.metric),
      turned(l.task.metric, after.metric));
}

}  // namespace

void add_run_commands(CLI::App& app, const Methods& methods) {
  static TrainOptions o;
  static std::string adapter, task, split = "test", out, record;
  CLI::App* train = app.add_subcommand("train", "Adapt a model to a task; save the adapter");
  train->add_option("--model,--base", o.model, "a base's name or a model folder")
      ->capture_default_str();
  train->add_option("--task", o.task, "a task's name, or a folder of data files")->required();
  train->add_option("--method", o.run.method)->capture_default_str();
  train->add_option("--out", o.out, "folder for the adapter and run.json; resumes if unfinished")
      ->required();
  train->add_option("--head", o.run.head, "linear, dense or cloze")->capture_default_str();
  train->add_option("--pool", o.run.pool, "mean, cls or last")->capture_default_str();
  train->add_option("--optimizer", o.run.optimizer)->capture_default_str();
  train->add_option("--schedule", o.run.schedule)->capture_default_str();
  train->add_option("--lr", o.run.lr)->capture_default_str();
  train->add_option("--decay", o.run.decay)->capture_default_str();
  train->add_option("--clip", o.run.clip)->capture_default_str();
  train->add_option("--warmup", o.run.warmup, "part of all steps")->capture_default_str();
  train->add_option("--epochs", o.run.epochs)->capture_default_str();
  train->add_option("--batch", o.run.batch, "sequences per step")->capture_default_str();
  train->add_option("--micro", o.run.micro, "sequences per pass, 0 for all")->capture_default_str();
  train->add_option("--seed", o.run.seed)->capture_default_str();
  train->add_option("--max-tokens", o.encode.max_tokens)->capture_default_str();
  train->add_option("--train-rows", o.encode.train_rows, "the first so many; 0 for all");
  train->add_option("--dev-rows", o.encode.dev_rows);
  train->add_option("--test-rows", o.encode.test_rows);
  train->add_option("--state-seconds", o.state_seconds, "between checkpoints of the whole state")
      ->capture_default_str();
  train->add_flag("--checkpoint-blocks", o.run.checkpoint_blocks, "trade time for memory");
  train->callback([&] {
    (void)RunSpec::from(o.run.json());
    train_command(o, methods);
  });

  CLI::App* eval = app.add_subcommand("eval", "Score a saved adapter");
  eval->add_option("adapter", adapter, "the adapter's folder")->required();
  eval->add_option("--task", task, "other rows with the same labels");
  eval->add_option("--split", split, "dev or test")->capture_default_str();
  eval->callback([&] { eval_command(adapter, task, split, methods); });

  CLI::App* merge =
      app.add_subcommand("merge", "Fold an adapter into its base; save a model folder");
  merge->add_option("adapter", adapter, "the adapter's folder")->required();
  merge->add_option("--out", out)->required();
  merge->callback([&] { merge_command(adapter, out, methods); });

  CLI::App* replay = app.add_subcommand("replay", "Run a recorded run again and compare its bits");
  replay->add_option("record", record, "a run.json")->required();
  replay->callback([&] { replay_command(record, methods); });
}

}  // namespace graft::cli
