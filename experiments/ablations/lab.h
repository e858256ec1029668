// Lab: what the arms of an experiment share in one process - bases, tokenizers, encoded tasks - and
// how one arm becomes one recorded run.
//
// An arm's configuration is JSON:
//   base    "encoder", "encoder@random" (the same shape, never trained: one draw, whatever the
//           seed), or a model folder
//   task    a task's name or folder;   rows {"train", "dev", "test"}: the first so many, 0 for all
//   method  a spec, or "majority", kTunedWords, "features:layer=k,pool=mean,model=linear"; for
//           language tasks also "unigram"; for these, and for all tasks of an encoder-decoder,
//           "frozen", the base with nothing trained
//   lr, epochs, batch, head, pool, ...: as in RunSpec; lr may be absent, then it is tuned
#pragma once

#include <filesystem>
#include <map>
#include <memory>

#include "experiments/harness/record.h"
#include "experiments/runs/computing.h"
#include "experiments/runs/finetune.h"

namespace graft {

// A linear model on words, its c chosen on dev, as every arm's rate is. Without ":c=dev" it is 2.
inline constexpr const char* kTunedWords = "bag of words:c=dev";

// Further measurements on a finished run's model, written into run.metrics and run.scores.
using Measurement = std::function<void(Model&, Adaptation&, const EncodedTask&, Run&)>;

class Lab {
 public:
  Lab(Methods methods, std::function<std::filesystem::path(const std::string&)> base_folder,
      const Computing& = {});

  // Trains and scores one arm. Metrics: test and dev (higher is better: a loss is negated),
  // trainable, head, base, share (of base), best epoch. scores["test"]: one value per test example,
  // a language task's being losses.
  Run run(const std::string& experiment, RunKind, const Arm&, const Measurement& = {});

  // The same without its results.
  Run unscored(const std::string& experiment, RunKind, const Arm&);
  // Throws where a recorded run was of another base than the one of that name now, or where the
  // rows of its folder have changed.
  void check_same(const Run&);

  // Asked before every training step; where it is true the run ends with an Error, unrecorded.
  std::function<bool()> give_up;

  // What its runs' bits depend on beside their arms: the processor's instruction set, or the
  // device and the type that models train in.
  std::string core() const;
  const Computing& where() const { return where_; }
  const Methods& methods() const { return methods_; }
  Model& base(const std::string& name);
  const EncodedTask& task(const nlohmann::json& config);

 private:
  struct Base {
    std::unique_ptr<Model> model;
    std::unique_ptr<Tokenizer> tokenizer;
    std::uint64_t hash = 0;
  };
  Base& load(const std::string& name);
  const TaskData& data(const nlohmann::json& config);
  std::string rows_hash(const nlohmann::json& config);  // of a folder's rows; else empty
  void run_simple(const nlohmann::json& config, Run&);
  void run_floor(const nlohmann::json& config, Run&);
  void run_features(const nlohmann::json& config, std::uint64_t seed, Run&);
  void run_finetune(const Arm&, const Measurement&, Run&);

  Methods methods_;
  std::function<std::filesystem::path(const std::string&)> base_folder_;
  Computing where_;
  Device device_;
  std::map<std::string, Base> bases_;
  std::map<std::string, TaskData> data_;  // by task and rows
  std::map<const TaskData*, std::string> rows_hash_;
  std::map<std::string, EncodedTask> tasks_;  // by base, task, rows, head
  std::map<std::string, Run> simple_;         // by configuration: majority, words
};

// Throws unless a configuration's "rows", where it has some, are numbers of rows of splits.
void check_rows(const nlohmann::json& config);

// Whether an arm's method trains a model, and so has a learning rate.
bool trains(const nlohmann::json& config);

// The version of this program and what its bits depend on, for records.
nlohmann::json versions();
std::string core_name();  // the instruction set the kernels were compiled for

}  // namespace graft
