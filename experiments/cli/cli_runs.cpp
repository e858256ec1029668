// graft train, replay: single runs.
#include <climits>
#include <set>

#include "experiments/ablations/lab.h"
#include "experiments/ablations/replay.h"
#include "experiments/cli/cli_training.h"
#include "experiments/cli/loaded.h"
#include "experiments/data/metrics.h"
#include "experiments/harness/progress.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/out_folder.h"
#include "experiments/runs/prompt_words.h"
#include "experiments/runs/start.h"
#include "experiments/runs/step_log.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/models/generation.h"
#include "nn/models/heads.h"
#include "nn/text/json_entry.h"
#include "peft/files.h"
#include "peft/training_state.h"
#include "tensor/cuda/runtime.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

// The options that train and replay share.
struct TrainOptions {
  std::string model, task, out;
  RunSpec run;
  EncodeSpec encode;
  double state_seconds = 3;
  bool head_given = false;  // else a checkpoint's own head is gone on from where it fits the task
  std::string init, log;
  std::optional<Start> start;  // of init
  std::string init_hash;       // its values'
  std::string resume;          // the folder of an adapter that goes on
  int stop_after = 0;          // epochs
  bool without_state = false;
  int frozen_mb = 1024;
};

// Reads the adapter that a run starts from, which settles the method.
void read_init(TrainOptions& o, const Given& given) {
  if (o.init.empty()) return;
  o.start = read_start(o.init, load_arch(base_folder(o.model)));
  settle(*o.start, o.run, given);
  o.init_hash = o.start->hash;
  o.head_given |= !o.start->head.empty();
}

// What a run's state says of it beside RunSpec, for read_resume.
nlohmann::json settings_of(const TrainOptions& o) {
  return {{"model", o.model},
          {"task", o.task},
          {"max_tokens", o.encode.max_tokens},
          {"train_rows", o.encode.train_rows},
          {"dev_rows", o.encode.dev_rows},
          {"test_rows", o.encode.test_rows},
          {"init", o.init},
          {"init_hash", o.init_hash}};
}
void read_rows(Entry& from, EncodeSpec& encode) {
  const auto rows = [&](const char* key) { return int(from.count(key, INT_MAX)); };
  encode.max_tokens = rows("max_tokens"), encode.train_rows = rows("train_rows");
  encode.dev_rows = rows("dev_rows"), encode.test_rows = rows("test_rows");
}

// Takes up a run where it ended: all its settings are those that it had. A base or a task that lies
// elsewhere by now may be given; that it is the same one is checked by its hash.
void read_resume(TrainOptions& o, bool epochs_given) {
  if (o.resume.empty()) return;
  auto about = kept_training_state(o.resume).about;
  const int epochs = o.run.epochs;
  o.run = RunSpec::from(parse_strict(o.resume, about["run"]));
  if (epochs_given) o.run.epochs = epochs;
  const nlohmann::json all = parse_strict(o.resume, about["settings"]);
  Entry settings("resume: " + o.resume, all);
  if (o.model.empty()) o.model = settings.text("model");
  if (o.task.empty()) o.task = settings.text("task");
  read_rows(settings, o.encode);
  o.init = settings.text("init"), o.init_hash = settings.text("init_hash");
  o.head_given = true;
}

// Hands the run its start; says what becomes of the saved head.
void start_from(const Start& start, const TrainOptions& o, const EncodedTask& task,
                const Model& base, bool quiet, RunPlaces& places) {
  std::vector<std::string> notes = start.notes;
  const bool with_head = keeps_head(start, o.run, task, notes);
  if (with_head) check_pooler(start, base);
  if (!quiet) {
    fmt::print("starts from {}: {}\n", start.folder, start.spec);
    for (const std::string& note : notes) fmt::print("{}\n", note);
  }
  places.start = [&start, with_head](const Parameters& p) { begin_at(start, p, with_head); };
}

// A record shows a score as a reader knows it: a loss is not negated.
nlohmann::json record_of(const TrainOptions& o, const std::string& metric, const Model& model,
                         std::uint64_t base_hash, const RunResult& r) {
  std::vector<double> dev;
  for (const double score : r.dev) dev.push_back(turned(metric, score));
  nlohmann::json record{{"model", o.model},
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
  if (model.build().device == Device::cuda) record["device_name"] = cuda::device_name();
  if (!o.init.empty()) record["init"] = o.init, record["init_hash"] = o.init_hash;
  if (o.stop_after > 0) record["stop_after"] = o.stop_after;
  return record;
}

struct Trained {
  nlohmann::json record;
  RunResult result;
};

using Save = std::function<void(Model&, Adaptation&, const EncodedTask&, std::uint64_t base_hash)>;

// Whether what a run trains is a whole model.
bool is_whole(const RunSpec& run) {
  return run.method == "full" || run.method.starts_with("full:");
}

// What a run begins with, for its user to read.
void announce(const TrainOptions& o, const TaskData& data, const EncodedTask& task,
              const Model& model) {
  if (is_task_folder(o.task)) fmt::print("task {}: {}\n", data.name, data.note);
  if (task.shortened > 0)
    fmt::print("{} texts were longer than {} tokens and were cut\n", task.shortened,
               o.encode.max_tokens);
  fmt::print("head: {}\n", head_in_words(task, o.run, model));
  const std::string why = why_not_handed_back(o.run, task.goal);
  if (is_whole(o.run) && !why.empty()) fmt::print("no model folder will be written: {}\n", why);
}

Trained run(TrainOptions& o, const Methods& methods, bool quiet, const Save& save) {
  const fs::path folder = base_folder(o.model);
  o.run = o.run.on(load_arch(folder));
  const auto model = load_model(folder);
  model->move_to(device_named(o.run.device));
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const TaskData data = task_named(o.task);
  o.run.method = with_tokens(o.run.method, tokenizer, data);
  if (!o.head_given && model->has_head() && data.kind != TaskData::Kind::language &&
      tells(model->head(), data.labels))
    o.run.head = "family";
  const EncodedTask task =
      encode_task(data, tokenizer, model->arch(), encode_for(o.run.head, o.encode));
  if (save && is_whole(o.run) && why_not_handed_back(o.run, task.goal).empty()) {
    (void)tokenizer_config(model->arch(), tokenizer, false);  // what does not fit is told now
    (void)read_generation(folder);
  }
  if (!quiet) announce(o, data, task, *model);
  const std::uint64_t base_hash = model->hash();
  RunPlaces places;
  if (!o.out.empty())
    places.state = fs::path(o.out) / "state.safetensors", places.state_seconds = o.state_seconds;
  StepProgress progress(stdout);
  if (!quiet)
    places.progress = [&](int step, int steps, double loss) { progress.at(step, steps, loss); };
  places.frozen_bytes = std::size_t(o.frozen_mb) << 20;
  places.started_from = o.init_hash;
  places.resume = o.resume, places.stop_after = o.stop_after;
  if (!o.out.empty() && !o.without_state)
    places.keep = fs::path(o.out) / "adapter", places.settings = settings_of(o).dump();
  if (o.start)
    check(o.start->base_hash.empty() || o.start->base_hash == fmt::format("{:016x}", base_hash),
          "train: the adapter in '{}' was trained on a base with other weights than '{}', on which "
          "its numbers mean nothing",
          o.start->folder, o.model);
  if (o.start) start_from(*o.start, o, task, *model, quiet, places);
  if (!o.log.empty()) places.log = StepLog(o.log);
  AtBest at_best;
  if (save)
    at_best = [&](Model& m, Adaptation& a, const EncodedTask& e) { save(m, a, e, base_hash); };
  Trained t;
  t.result = finetune(*model, task, o.run, methods, at_best, places);
  t.record = record_of(o, task.metric, *model, base_hash, t.result);
  return t;
}

void print_frozen(const RunResult& r) {
  if (r.frozen_blocks > 0)
    fmt::print("blocks 0..{} never change: computed once for each example, {:.1f} MB of rows\n",
               r.frozen_blocks - 1, double(r.frozen_bytes) / (1 << 20));
  if (r.frozen_blocks == 0 && r.drawing_blocks > 0)
    fmt::print("blocks 0..{} are frozen, but draw dropout: computed at every step\n",
               r.drawing_blocks - 1);
}

void train_command(TrainOptions o, const Methods& methods) {
  (void)device_named(o.run.device);  // before anything is written
  o.model = whole_base_name(o.model), o.task = whole_task_name(o.task);
  if (!o.init.empty() && fs::exists(o.init)) o.init = fs::canonical(o.init).string();
  std::error_code ignored;
  check(o.init.empty() || !fs::equivalent(o.init, fs::path(o.out) / "adapter", ignored),
        "train: the adapter to start from lies where this run's would go; give another --out");
  const OutFolder out("train", o.out);
  const fs::path done = fs::path(o.out) / "run.json";
  check(!fs::exists(done),
        "train: '{}' is a finished run; give another --out, and --resume to go on from it",
        done.string());
  bool whole = false;
  const Save save = [&](Model& model, Adaptation& adaptation, const EncodedTask& task,
                        std::uint64_t base_hash) {
    Parameters all = adaptation.stored();
    const Parameters head = train_head(model);
    all.insert(all.end(), head.begin(), head.end());
    save_adapter(fs::path(o.out) / "adapter", o.run.method, all,
                 about_adapter(o.model, o.task, task, o.run.on(model.arch()), o.encode.max_tokens,
                               base_hash));
    whole = is_whole(o.run) && why_not_handed_back(o.run, task.goal).empty();
    if (!whole) return;
    const Tokenizer tokenizer = Tokenizer::load(base_folder(o.model));
    save_model(model, fs::path(o.out) / "model", FileDtype::f32, &tokenizer, base_folder(o.model));
  };
  const Trained t = run(o, methods, false, save);
  const std::string metric = t.record.at("metric");
  print_frozen(t.result);
  write_file_atomically(done, t.record.dump(2) + "\n");
  fmt::print(
      "trainable params: {} (and {} of the head) of {}\n{}: dev {:.4f} (epoch {}), test {:.4f}; "
      "{:.0f} s\n"
      "weights {:016x}\nadapter in {}\n",
      t.result.trainable, t.result.head, t.result.base, metric, turned(metric, t.result.dev_best),
      t.result.best_epoch + 1, turned(metric, t.result.test), t.result.seconds,
      t.result.weights_hash, (fs::path(o.out) / "adapter").string());
  if (whole) fmt::print("model folder in {}\n", (fs::path(o.out) / "model").string());
}

void replay_command(const std::string& file, const std::string& key, const Methods& methods) {
  if (fs::is_directory(file)) {
    fmt::print("the same bits: {}\n", replay_arm(methods, base_folder, file, key));
    return;
  }
  check(key.empty(), "replay: --key goes with a results folder; '{}' is none", file);
  const nlohmann::json all = parse_strict(file, read_file(file));
  check(all.is_object() && all.contains("run") && all.contains("weights_hash"),
        "replay: '{}' is not a run.json", file);
  if (all.contains("multitask")) return replay_multitask(file, all, methods);
  Entry record("replay: " + file, all);
  check_core(record, file);
  TrainOptions o;
  o.head_given = true;
  o.model = record.text("model"), o.task = record.text("task"), o.run = RunSpec::from(all["run"]);
  check_device(record, o.run.device, file);
  read_rows(record, o.encode);
  if (record.find("stop_after")) o.stop_after = int(record.count("stop_after", INT_MAX));
  const std::string base_hash = record.text("base_hash");
  const std::string weights_hash = record.text("weights_hash");
  o.init = record.text("init", "");
  if (!o.init.empty()) {
    read_init(o, {true, true, true});
    check(record.text("init_hash") == o.start->hash,
          "replay: the adapter that the run started from, '{}', is another one by now", o.init);
  }
  const Trained t = run(o, methods, true, {});
  for (const auto& [key, was] :
       {std::pair{"base_hash", base_hash}, {"weights_hash", weights_hash}}) {
    const std::string is = t.record.at(key);
    check(was == is, "replay: {} is {}, the record says {}", key, is, was);
  }
  fmt::print("the same bits: weights {}\n", weights_hash);
}

}  // namespace

void add_training_options(const Command& app, RunSpec& run, EncodeSpec& encode) {
  app.add_option("--optimizer", run.optimizer).capture_default_str();
  app.add_option("--schedule", run.schedule).capture_default_str();
  app.add_option("--lr", run.lr).capture_default_str();
  app.add_option("--decay", run.decay).capture_default_str();
  app.add_option("--clip", run.clip).capture_default_str();
  app.add_option("--warmup", run.warmup, "part of all steps").capture_default_str();
  app.add_option("--epochs", run.epochs).capture_default_str();
  app.add_option("--batch", run.batch, "sequences per step").capture_default_str();
  app.add_option("--micro", run.micro, "sequences per pass, 0 for all").capture_default_str();
  app.add_option("--seed", run.seed).capture_default_str();
  app.add_option("--max-tokens", encode.max_tokens).capture_default_str();
  app.add_option("--train-rows", encode.train_rows, "the first so many; 0 for all");
  app.add_option("--dev-rows", encode.dev_rows);
  app.add_option("--test-rows", encode.test_rows);
  app.add_option("--checkpoint", run.checkpoint,
                 "trade time for memory: none; of each block forget what lies within its "
                 "sub-layers (inner) or all (blocks), and compute it again")
      .capture_default_str();
}

void check_core(Entry& record, const std::string& file) {
  const std::string core = record.text("core");
  check(core == core_name(),
        "replay: '{}' was made by kernels for {}, these are for {}: the bits would differ", file,
        core, core_name());
}

void check_device(Entry& record, const std::string& device, const std::string& file) {
  if (device_named(device) == Device::cpu) return;
  const std::string made_on = record.text("device_name");
  check(made_on == cuda::device_name(),
        "replay: '{}' was made on {}, this is {}: the bits would differ", file, made_on,
        cuda::device_name());
}

void add_run_commands(const Command& app, const Methods& methods) {
  static TrainOptions o;
  static std::string record, key;
  const Command train = app.add_subcommand("train", "Adapt a model to a task; save the adapter");
  train.add_option("--model,--base", o.model, "a base's name or a model folder [encoder]");
  train.add_option("--task", o.task, "a task's name, or a folder of data files");
  const Option method = train.add_option("--method", o.run.method).capture_default_str();
  train.add_option("--init", o.init, "start from this adapter: graft's folder or PEFT's");
  train.add_option("--out", o.out, "folder for the adapter and run.json; resumes if unfinished")
      .required();
  const Option head = train.add_option(
      "--head", o.run.head,
      "linear (the standard), dense, cloze, or family: the one that transformers has for the "
      "model's family; of an encoder-decoder text alone. Not given: the checkpoint's own, if it "
      "tells the labels");
  const Option pool =
      train.add_option("--pool", o.run.pool, "mean, cls or last").capture_default_str();
  add_training_options(train, o.run, o.encode);
  train.add_option("--device", o.run.device, kDeviceHelp).capture_default_str();
  train.add_option("--compute", o.run.compute, kComputeHelp).capture_default_str();
  train.add_option("--state-seconds", o.state_seconds, "between checkpoints of the whole state")
      .not_negative()
      .capture_default_str();
  train.add_option("--log", o.log, "a file: each step's loss, rate and examples, as JSON lines");
  const Option resume = train.add_option(
      "--resume", o.resume,
      "go on from this adapter, saved by an earlier run (or exported from one): to the end of its "
      "epochs, or for more; all settings are that run's");
  const std::set<std::string> free{"--resume",        "--out",           "--epochs",   "--log",
                                   "--state-seconds", "--model",         "--task",     "--help",
                                   "--stop-after",    "--without-state", "--frozen-mb"};
  train.add_option("--stop-after", o.stop_after, "stop after so many of the epochs");
  train.add_flag("--without-state", o.without_state,
                 "do not keep beside the adapter what --resume needs");
  train
      .add_option("--frozen-mb", o.frozen_mb,
                  "memory for rows of blocks that never change, which later epochs do not compute "
                  "again; 0: none. The weights are the same")
      .not_negative()
      .capture_default_str();
  for (const Option& option : train.options())  // the rest is settled by what goes on
    if (!free.contains(option.name())) option.excludes(resume);
  train.callback([&, train, method, head, pool] {
    o.head_given = head.count() + pool.count() > 0;
    check(o.stop_after > 0 || train.option("--stop-after").count() == 0,
          "train: --stop-after {}; need at least 1 epoch", o.stop_after);
    read_resume(o, train.option("--epochs").count() > 0);
    check(!o.task.empty(), "train: give --task, or an adapter to --resume");
    if (o.model.empty()) o.model = "encoder";
    if (!o.resume.empty()) return train_command(o, methods);
    read_init(o, {method.count() > 0, head.count() > 0, pool.count() > 0});
    (void)RunSpec::from(o.run.json());
    train_command(o, methods);
  });

  const Command replay =
      app.add_subcommand("replay", "Run a recorded run again and compare its bits");
  replay.add_option("record", record, "a run.json, or an experiment's results folder").required();
  replay.add_option("--key", key, "of the folder's runs the one whose key begins so");
  replay.callback([&] { replay_command(record, key, methods); });
}

}  // namespace graft::cli
