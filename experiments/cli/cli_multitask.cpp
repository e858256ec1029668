// graft multitask: one adapter over several tasks.
#include <climits>
#include <cmath>
#include <optional>
#include <sstream>

#include "experiments/ablations/lab.h"
#include "experiments/cli/cli_training.h"
#include "experiments/cli/loaded.h"
#include "experiments/data/metrics.h"
#include "experiments/harness/progress.h"
#include "experiments/runs/multitask.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/out_folder.h"
#include "experiments/runs/prompt_words.h"
#include "experiments/runs/run_parts.h"
#include "experiments/runs/step_log.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/text/json_entry.h"
#include "peft/files.h"
#include "tensor/cuda/runtime.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct MultitaskOptions {
  std::string model = "encoder", out, log;
  std::vector<std::string> tasks;  // names or folders
  MultitaskSpec spec;
  EncodeSpec encode;
  double state_seconds = 3;
  bool alone = false;  // train each task by itself, too
};

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  for (const std::string& p : parts)
    check(!p.empty(), "multitask: --tasks {}; need names with commas between them", text);
  return parts;
}

struct Bench {
  explicit Bench(MultitaskOptions& o) {
    (void)o.spec.settled();  // throws before anything is read
    const fs::path folder = base_folder(o.model);
    model = load_model(folder);
    const Tokenizer tokenizer = Tokenizer::load(folder);
    const RunSpec run = o.spec.run.on(model->arch());
    check(o.spec.run.method.find("init=labels") == std::string::npos,
          "multitask: init=labels is of one task; give init=text and a text");
    for (const std::string& name : o.tasks) {
      const TaskData data = task_named(name);
      o.spec.run.method = with_tokens(o.spec.run.method, tokenizer, data);
      tasks.push_back(encode_task(data, tokenizer, model->arch(), encode_for(run.head, o.encode)));
    }
    base_hash = model->hash();
    model->move_to(device_named(run.device));
  }
  std::unique_ptr<Model> model;
  std::vector<EncodedTask> tasks;
  std::uint64_t base_hash;
};

// What a record says of the run before it is made.
json asked_of(const MultitaskOptions& o, const Bench& bench) {
  json hashes = json::array();
  for (const EncodedTask& task : bench.tasks)
    hashes.push_back(fmt::format("{:016x}", hash_of(task)));
  return {{"model", o.model},
          {"tasks", o.tasks},
          {"task_hashes", hashes},
          {"run", o.spec.run.json()},
          {"multitask", o.spec.settled().json()},
          {"max_tokens", o.encode.max_tokens},
          {"train_rows", o.encode.train_rows},
          {"dev_rows", o.encode.dev_rows},
          {"test_rows", o.encode.test_rows},
          {"family", bench.model->arch().family},
          {"core", core_name()},
          {"versions", versions()},
          {"base_hash", fmt::format("{:016x}", bench.base_hash)}};
}

json record_of(const MultitaskOptions& o, const Bench& bench, const MultitaskResult& r) {
  json tasks = json::array();
  for (const TaskOutcome& t : r.tasks) {
    std::vector<double> dev;
    for (double score : t.dev) dev.push_back(turned(t.metric, score));
    tasks.push_back({{"name", t.name},
                     {"metric", t.metric},
                     {"dev", dev},
                     {"test", turned(t.metric, t.test)},
                     {"weight", t.weight},
                     {"steps", t.steps},
                     {"seen", t.seen},
                     {"head", t.head}});
  }
  json record = asked_of(o, bench);
  record.update({{"weights_hash", fmt::format("{:016x}", r.weights_hash)},
                 {"of_tasks", tasks},
                 {"train_loss", r.train_loss},
                 {"best_epoch", r.best_epoch},
                 {"trainable", r.trainable},
                 {"base", r.base},
                 {"seconds", r.seconds},
                 {"peak_bytes", r.peak_bytes}});
  if (bench.model->build().device == Device::cuda) record["device_name"] = cuda::device_name();
  return record;
}

// Each task's adapter in a folder of its own, which `graft eval` opens: the shared numbers, and
// that task's head.
void save_task(const MultitaskOptions& o, const Bench& bench, Model& model, Adaptation& adaptation,
               const EncodedTask& task, int index) {
  Parameters all = adaptation.stored();
  const Parameters head = train_head(model);
  all.insert(all.end(), head.begin(), head.end());
  save_adapter(fs::path(o.out) / "adapters" / task.name, spec_of_task(adaptation.spec(), index),
               all,
               about_adapter(o.model, o.tasks[static_cast<std::size_t>(index)], task,
                             o.spec.run.on(model.arch()), o.encode.max_tokens, bench.base_hash));
}

// What each task's score is when it has the method to itself, for as many of its sequences as the
// joint run took of it (in whole epochs); what sharing did to it is the difference, in the metric's
// own sense: above 0 it helped. Done tasks stay done in `kept`.
void add_interference(const MultitaskOptions& o, Bench& bench, const Methods& methods,
                      const fs::path& kept, json& record) {
  if (!o.spec.rules.empty())
    fmt::print("\nrules are the joint run's; alone each task has the settings without them");
  fmt::print("\n{:<20} {:>8} {:>12} {:>12} {:>12}\n", "task", "epochs", "together", "alone",
             "sharing");
  for (std::size_t t = 0; t < bench.tasks.size(); ++t) {
    json& of = record["of_tasks"][t];
    const std::string metric = of.at("metric");
    if (!of.contains("alone")) {
      RunSpec run = o.spec.run;
      run.method = spec_alone(run.method);
      const auto rows = static_cast<double>(bench.tasks[t].train.size());
      run.epochs = std::max(1, static_cast<int>(std::lround(of.at("seen").get<double>() / rows)));
      RunPlaces places;
      places.state = fs::path(o.out) / fmt::format("alone-{}.safetensors", t);
      places.state_seconds = o.state_seconds;
      const RunResult alone = finetune(*bench.model, bench.tasks[t], run, methods, {}, places);
      of["alone"] = turned(metric, alone.test);
      of["alone_epochs"] = run.epochs;
      of["alone_hash"] = fmt::format("{:016x}", alone.weights_hash);
      of["sharing"] = turned(metric, of.at("test")) - alone.test;
      write_file_atomically(kept, record.dump(2) + "\n");
    }
    fmt::print("{:<20} {:>8} {:>12.4f} {:>12.4f} {:>+12.4f}\n", bench.tasks[t].name,
               of.at("alone_epochs").get<int>(), of.at("test").get<double>(),
               of.at("alone").get<double>(), of.at("sharing").get<double>());
  }
}

// The joint run's record, where it was done before a kill. Throws for one of other settings.
std::optional<json> kept_joint(const fs::path& kept, const json& asked) {
  if (!fs::exists(kept)) return std::nullopt;
  json record = parse_strict(kept.string(), read_file(kept));
  check(record.is_object(), "multitask: '{}' is no run's record", kept.string());
  // An earlier version's record has folders as they were given.
  if (record.contains("model") && record["model"].is_string())
    record["model"] = whole_base_name(record["model"]);
  if (record.contains("tasks") && record["tasks"].is_array())
    for (json& task : record["tasks"])
      if (task.is_string()) task = whole_task_name(task);
  for (const auto& [key, value] : asked.items())
    check(record.contains(key) && record.at(key) == value,
          "multitask: '{}' is of another run: its {} is {}, here {}; give another --out",
          kept.string(), key, record.contains(key) ? record.at(key).dump() : "not there",
          value.dump());
  return record;
}

void print_outcome(const MultitaskResult& r, const std::string& weights) {
  fmt::print("trainable params: {} (shared) of {}; epoch {}; {:.0f} s\n", r.trainable, r.base,
             r.best_epoch + 1, r.seconds);
  const auto best = static_cast<std::size_t>(r.best_epoch);
  for (const TaskOutcome& t : r.tasks)
    fmt::print("{}: {} dev {:.4f}, test {:.4f}; weight {:.3f}, {} steps\n", t.name, t.metric,
               turned(t.metric, t.dev[best]), turned(t.metric, t.test), t.weight.back(), t.steps);
  if (weights == "metaweighting") {
    double most = 0;
    for (const TaskOutcome& t : r.tasks)
      for (const double w : t.weight) most = std::max(most, std::abs(w - 1));
    fmt::print("metaweighting moved the weights by {:.1e} at most\n", most);
  }
  fmt::print("weights {:016x}\n", r.weights_hash);
}

void multitask_command(MultitaskOptions o, const Methods& methods) {
  (void)device_named(o.spec.run.device);  // before anything is written
  o.model = whole_base_name(o.model);
  for (std::string& task : o.tasks) task = whole_task_name(task);
  const OutFolder out("multitask", o.out);
  const fs::path done = fs::path(o.out) / "run.json";
  check(!fs::exists(done), "multitask: '{}' is a finished run; give another --out", done.string());
  Bench bench(o);
  for (const EncodedTask& task : bench.tasks)
    if (task.shortened > 0)
      fmt::print("{}: {} texts were longer than {} tokens and were cut\n", task.name,
                 task.shortened, o.encode.max_tokens);
  RunPlaces places;
  places.state = fs::path(o.out) / "state.safetensors", places.state_seconds = o.state_seconds;
  StepProgress progress(stdout);
  places.progress = [&](int step, int steps, double loss) { progress.at(step, steps, loss); };
  if (!o.log.empty()) places.log = StepLog(o.log);
  // What is done of a run with more to come, until that is done, too.
  const fs::path kept = fs::path(o.out) / "joint.json";
  std::optional<json> record = kept_joint(kept, asked_of(o, bench));
  if (record) {
    fmt::print("the joint run is done already\n");
  } else {
    const MultitaskResult r = multitask(
        *bench.model, bench.tasks, o.spec, methods,
        [&](Model& m, Adaptation& a, const EncodedTask& t, int i) {
          save_task(o, bench, m, a, t, i);
        },
        places);
    print_outcome(r, o.spec.weights);
    record = record_of(o, bench, r);
    if (o.alone) write_file_atomically(kept, record->dump(2) + "\n");
  }
  if (o.alone) add_interference(o, bench, methods, kept, *record);
  write_file_atomically(done, record->dump(2) + "\n");
  fs::remove(kept);
  fmt::print("adapters in {}\n", (fs::path(o.out) / "adapters").string());
}

}  // namespace

void replay_multitask(const std::string& file, const json& all, const Methods& methods) {
  Entry record("replay: " + file, all);
  check_core(record, file);
  MultitaskOptions o;
  o.model = record.text("model");
  o.spec = MultitaskSpec::from(all["multitask"], all["run"]);
  check_device(record, o.spec.run.device, file);
  check(all.contains("tasks") && all["tasks"].is_array(), "replay: '{}' lacks 'tasks'", file);
  for (const json& name : all["tasks"]) {
    check(name.is_string(), "replay: '{}': a task is {}; need a text", file, name.dump());
    o.tasks.push_back(name);
  }
  const auto rows = [&](const char* key) { return int(record.count(key, INT_MAX)); };
  o.encode.max_tokens = rows("max_tokens"), o.encode.train_rows = rows("train_rows");
  o.encode.dev_rows = rows("dev_rows"), o.encode.test_rows = rows("test_rows");
  Bench bench(o);
  const std::string base = fmt::format("{:016x}", bench.base_hash);
  check(record.text("base_hash") == base, "replay: base_hash is {}, the record says {}", base,
        record.text("base_hash"));
  const MultitaskResult r = multitask(*bench.model, bench.tasks, o.spec, methods);
  const std::string is = fmt::format("{:016x}", r.weights_hash), was = record.text("weights_hash");
  check(was == is, "replay: weights_hash is {}, the record says {}", is, was);
  fmt::print("the same bits: weights {}\n", is);
}

void add_multitask(const Command& app, const Methods& methods) {
  static MultitaskOptions o;
  static std::string tasks;
  const Command command = app.add_subcommand(
      "multitask", "Adapt a model to several tasks at once, a head each; save their adapters");
  command.add_option("--model,--base", o.model, "a base's name or a model folder")
      .capture_default_str();
  command.add_option("--tasks", tasks, "names or folders, with commas between them").required();
  o.spec.run.method = "hyperformer++";
  command.add_option("--method", o.spec.run.method, "shared; tasks= is filled in")
      .capture_default_str();
  command.add_option("--out", o.out, "folder for adapters and run.json; resumes if unfinished")
      .required();
  command
      .add_option("--weights", o.spec.weights,
                  "uniform, uncertainty, gradnorm, pcgrad or metaweighting")
      .capture_default_str();
  const Option rate = command.add_option(
      "--weight-rate", o.spec.weight_rate,
      "of the weights' own steps; without it 0.025. Of metaweighting 0.1, its paper's alpha: it "
      "multiplies products of the tasks' gradients times the step's --lr, so with an --lr of 1e-3 "
      "and gradients of length 1 weights move by 1e-4 / tasks a step; a short run needs more. The "
      "step it looks ahead is plain "
      "gradient descent's, as in its paper, whatever the optimizer");
  const Option alpha = command.add_option("--gradnorm-alpha", o.spec.gradnorm_alpha,
                                          "gradnorm: how strongly slow tasks are pulled along");
  alpha.capture_default_str();
  command.add_option("--sampling", o.spec.sampling,
                     "one: a step is of one task, drawn by its share (standard for uniform); all: "
                     "of every task");
  command
      .add_option("--temperature", o.spec.temperature,
                  "shares are (rows)^(1 / temperature): 1 as the rows are, 10 nearly alike")
      .capture_default_str();
  const Option query = command.add_option("--query", o.spec.query,
                                          "metaweighting: part of the rows held out for it");
  query.capture_default_str();
  command
      .add_option("--rule", o.spec.rules,
                  "for a task or layers: task=NAME,layers=0-3,lr=0.5,decay=0,dropout=0.1,"
                  "pull=0.01 (lr: times the run's; pull: L2 towards the start); may be given "
                  "again")
      .allow_extra_args(false);
  command.add_flag("--alone", o.alone, "also train each task by itself: what sharing did to it");
  command.add_option("--head", o.spec.run.head, "of every task: as graft train has it");
  command.add_option("--pool", o.spec.run.pool, "mean, cls or last").capture_default_str();
  add_training_options(command, o.spec.run, o.encode);
  command.add_option("--device", o.spec.run.device, kDeviceHelp).capture_default_str();
  command
      .add_option("--compute", o.spec.run.compute,
                  "f32, or on a device bf16: rows and the frozen base are stored so, what trains "
                  "stays f32")
      .capture_default_str();
  command.add_option("--state-seconds", o.state_seconds, "between checkpoints of the whole state")
      .not_negative()
      .capture_default_str();
  command.add_option("--log", o.log, "a file: each step's loss, rate and examples, as JSON lines");
  const auto check_read = [&](const std::vector<std::pair<const char*, Option>>& given) {
    for (const auto& [key, option] : given)
      check(option.count() == 0 || reads(o.spec.weights, key),
            "multitask: {} with weights {}, which do not read it; it is of {}", option.name(),
            o.spec.weights, readers_of(key));
  };
  command.callback([&, check_read, rate, alpha, query] {
    (void)weights_named(o.spec.weights);
    check_read({{"weight_rate", rate}, {"gradnorm_alpha", alpha}, {"query", query}});
    check(rate.count() == 0 || o.spec.weight_rate > 0,
          "multitask: --weight-rate {}; need above 0; leave it out for the standard",
          o.spec.weight_rate);
    (void)MultitaskSpec::from(o.spec.json(), o.spec.run.json());
    o.tasks = split_list(tasks);
    multitask_command(o, methods);
  });
}

}  // namespace graft::cli
