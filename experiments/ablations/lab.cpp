#include "experiments/ablations/lab.h"

#include <bit>
#include <chrono>

#include "experiments/data/baselines.h"
#include "experiments/runs/features.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/unigram.h"
#include "nn/models/folder.h"
#include "tensor/cuda/runtime.h"
#include "tensor/hash.h"

namespace graft {
namespace {

using nlohmann::json;

template <class T>
void shorten(std::vector<T>& rows, const json& config, const char* split) {
  const json limits = config.value("rows", json::object());
  const std::size_t most = limits.value(split, std::size_t{0});
  if (most > 0 && most < rows.size()) rows.resize(most);
}

std::string kind_of(const std::string& method) { return method.substr(0, method.find(':')); }

// The part of an arm's configuration that is a RunSpec's.
RunSpec spec_of(const Arm& arm) {
  json run = json::object();
  const json known = RunSpec{}.json();
  for (const auto& [key, value] : arm.config.items()) {
    if (known.contains(key)) run[key] = value;
    static const std::set<std::string> others{"base", "task", "rows", "measure"};
    check(known.contains(key) || others.contains(key), "arm: unknown key '{}' in {}", key,
          arm.config.dump());
  }
  run["seed"] = static_cast<std::uint32_t>(arm.seed);
  return RunSpec::from(run);
}

}  // namespace

void check_rows(const json& config) {
  if (!config.contains("rows")) return;
  const json& rows = config.at("rows");
  const auto need = [&](bool ok, const std::string& what) {
    check(ok,
          "rows {}: {}; need an object with how many rows of train, dev and test, 0 for all of "
          "them, such as {{\"train\": 2000}}",
          rows.dump(), what);
  };
  need(rows.is_object(), "not an object");
  for (const auto& [split, most] : rows.items()) {
    need(split == "train" || split == "dev" || split == "test",
         fmt::format("there is no split '{}'", split));
    need(most.is_number_unsigned() || (most.is_number_integer() && most.get<std::int64_t>() >= 0),
         fmt::format("{} is {}, no number of rows", split, most.dump()));
  }
}

bool trains(const json& config) {
  static const std::set<std::string> untrained{"majority", "bag of words", "features", "unigram",
                                               "frozen"};
  return !untrained.contains(kind_of(config.at("method")));
}

json versions() { return {{"graft", "0.1.0"}, {"compiler", __VERSION__}}; }

std::string core_name() {
#if defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "generic";
#endif
}

Lab::Lab(Methods methods, std::function<std::filesystem::path(const std::string&)> base_folder,
         const Computing& where)
    : methods_(std::move(methods)),
      base_folder_(std::move(base_folder)),
      where_(where),
      device_(device_of(where)) {}

std::string Lab::core() const {
  if (device_ == Device::cpu) return core_name();
  return cuda::device_name() + (where_.compute == "f32" ? "" : ", " + where_.compute);
}

Lab::Base& Lab::load(const std::string& name) {
  const auto at = bases_.find(name);
  if (at != bases_.end()) return at->second;
  const std::size_t random = name.find("@random");
  const std::filesystem::path folder = base_folder_(name.substr(0, random));
  Base base;
  base.model = random == std::string::npos
                   ? load_model(folder)
                   : std::make_unique<Model>(load_arch(folder), Build{.seed = 1});
  base.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(folder));
  base.hash = base.model->hash();
  base.model->move_to(device_);
  return bases_.emplace(name, std::move(base)).first->second;
}

Model& Lab::base(const std::string& name) { return *load(name).model; }

const TaskData& Lab::data(const json& config) {
  const std::string key = json{config.at("task"), config.value("rows", json::object())}.dump();
  const auto at = data_.find(key);
  if (at != data_.end()) return at->second;
  check_rows(config);
  TaskData task = task_named(config.at("task"));
  shorten(task.train, config, "train");
  shorten(task.dev, config, "dev");
  shorten(task.test, config, "test");
  return data_.emplace(key, std::move(task)).first->second;
}

const EncodedTask& Lab::task(const json& config) {
  const std::string head = config.value("head", "linear");
  const EncodeSpec spec = encode_for(head, {});
  const std::string base = config.at("base");
  const std::string key =
      json{base, config.at("task"), config.value("rows", json::object()), spec.cloze, spec.marked}
          .dump();
  const auto at = tasks_.find(key);
  if (at != tasks_.end()) return at->second;
  Base& b = load(base);
  return tasks_.emplace(key, encode_task(data(config), *b.tokenizer, b.model->arch(), spec))
      .first->second;
}

std::string Lab::rows_hash(const json& config) {
  if (!is_task_folder(config.at("task"))) return "";
  const TaskData& task = data(config);
  std::string& known = rows_hash_[&task];
  if (!known.empty()) return known;
  Hash h;
  const auto text = [&](const std::string& s) { h.word(s.size()), h.bytes(s.data(), s.size()); };
  for (const std::string& label : task.labels) text(label);
  for (const auto* split : {&task.train, &task.dev, &task.test})
    for (const Example& e : *split) {
      text(e.a), text(e.b);
      h.word(static_cast<std::uint64_t>(e.label)), h.word(std::bit_cast<std::uint32_t>(e.score));
    }
  return known = fmt::format("{:016x}", h.value());
}

Run Lab::unscored(const std::string& experiment, RunKind kind, const Arm& arm) {
  Run run;
  run.experiment = experiment;
  run.kind = kind;
  run.arm = arm;
  run.versions = versions();
  run.core = core();
  if (const std::string rows = rows_hash(arm.config); !rows.empty()) run.versions["rows"] = rows;
  run.versions["metric"] = data(arm.config).metric;
  return run;
}

void Lab::check_same(const Run& run) {
  const json& config = run.arm.config;
  const auto same = [&](const char* key, const std::string& now, const std::string& what) {
    check(!run.versions.contains(key) || run.versions.at(key) == now,
          "{}: the recorded run of '{}', seed {}, was of {}; choose another --out", run.experiment,
          config.at("method").get<std::string>(), run.arm.seed, what);
  };
  const std::string base = config.at("base");
  if (run.versions.contains("base") && !base.ends_with("@random"))
    same("base", fmt::format("{:016x}", load(base).hash),
         fmt::format("another base than '{}' is now", base));
  if (run.versions.contains("rows"))
    same("rows", rows_hash(config),
         fmt::format("other rows than '{}' has now", config.at("task").get<std::string>()));
}

Run Lab::run(const std::string& experiment, RunKind kind, const Arm& arm,
             const Measurement& measure) {
  const auto begun = std::chrono::steady_clock::now();
  Run run = unscored(experiment, kind, arm);
  const std::string method = kind_of(arm.config.at("method"));
  if (method == "majority" || method == kind_of(kTunedWords))
    run_simple(arm.config, run);
  else if (method == "unigram" || method == "frozen")
    run_floor(arm.config, run);
  else if (method == "features")
    run_features(arm.config, arm.seed, run);
  else
    run_finetune(arm, measure, run);
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return run;
}

// Without a seed in it, so each configuration is computed once.
void Lab::run_simple(const json& config, Run& run) {
  const auto before = simple_.find(config.dump());
  if (before != simple_.end()) {
    run.metrics = before->second.metrics, run.scores = before->second.scores;
    run.versions.update(before->second.versions);
    return;
  }
  const TaskData& task = data(config);
  BaselineResult r;
  if (config.at("method") == kTunedWords) {
    TunedBaseline tuned = tuned_linear_baseline(task);
    r = std::move(tuned.result);
    run.metrics["c"] = tuned.c;
    run.versions["search"] = tuned.tried;  // c and its dev score
  } else {
    r = config.at("method") == "majority" ? majority_baseline(task) : linear_baseline(task);
  }
  run.metrics["test"] = r.test, run.metrics["dev"] = r.dev;
  std::vector<float> rows;
  for (std::size_t i = 0; i < task.test.size(); ++i) {
    if (task.kind == TaskData::Kind::classification) {
      rows.push_back(r.test_labels[i] == task.test[i].label ? 1.f : 0.f);
    } else {
      const float d = r.test_values[i] - task.test[i].score;
      rows.push_back(d * d);
    }
  }
  run.scores["test"] = rows;
  simple_.emplace(config.dump(), run);
}

void Lab::run_floor(const json& config, Run& run) {
  const EncodedTask& task = this->task(config);
  Base& b = load(config.at("base"));
  const bool unigram = config.at("method") == "unigram";
  check(task.goal == Goal::language || (task.text() && !unigram),
        "arm: method {} is for language tasks; task {} has labels, and a base without a trained "
        "head cannot tell them",
        config.at("method").dump(), task.name);
  b.model->set_head(nullptr);
  const auto score = [&](const std::vector<EncodedExample>& examples) {
    return unigram ? unigram_score(task, examples, b.model->arch().vocab)
                   : evaluate(*b.model, task, examples);
  };
  const Score test = score(task.test);
  run.metrics = {{"test", test.metric}, {"dev", score(task.dev).metric}};
  run.scores["test"] = test.rows;
  if (unigram) return;
  run.metrics["trainable"] = 0;
  run.metrics["base"] = double(b.model->parameters());
  run.versions["base"] = fmt::format("{:016x}", b.hash);
}

void Lab::run_features(const json& config, std::uint64_t seed, Run& run) {
  Options options = parse_spec(config.at("method").get<std::string>()).at(0);
  Base& b = load(config.at("base"));
  const FeatureResult r = feature_transfer(*b.model, task(config), options, seed);
  run.metrics = {{"test", r.test.metric},
                 {"dev", r.dev.metric},
                 {"trainable", 0.0},
                 {"head", double(r.parameters)},
                 {"base", double(b.model->parameters())},
                 {"rate", r.rate}};
  run.versions["search"] = r.tried;  // each rate and its dev score
  run.scores["test"] = r.test.rows;
}

void Lab::run_finetune(const Arm& arm, const Measurement& measure, Run& run) {
  Base& b = load(arm.config.at("base"));
  RunSpec spec = spec_of(arm).on(b.model->arch());
  spec.device = where_.device, spec.compute = where_.compute;
  const EncodedTask& task = this->task(arm.config);
  RunPlaces places;
  if (measure)
    places.measure = [&](Model& m, Adaptation& a, const EncodedTask& t) { measure(m, a, t, run); };
  if (give_up)
    places.progress = [&](int, int, double) {
      check(!give_up(), "{}: out of time in the middle of a run", arm.config.at("method").dump());
    };
  const RunResult r = finetune(*b.model, task, spec, methods_, {}, places);
  run.metrics["test"] = r.test;
  run.metrics["dev"] = r.dev_best;
  run.metrics["best epoch"] = r.best_epoch + 1;
  run.metrics["trainable"] = double(r.trainable);
  run.metrics["head"] = double(r.head);
  run.metrics["base"] = double(r.base);
  run.metrics["train loss"] = r.train_loss.back();
  run.versions["base"] = fmt::format("{:016x}", b.hash);
  run.scores["test"] = r.test_rows;
  run.weights_hash = fmt::format("{:016x}", r.weights_hash);
  run.peak_bytes = r.peak_bytes;
}

}  // namespace graft
