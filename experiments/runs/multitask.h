// One adapter over several tasks: a frozen base, a method, tasks with a head each, a way to weigh
// them. A pure function of these; killed and resumed, it ends with the same bits.
#pragma once

#include "experiments/runs/finetune.h"
#include "nn/optim/task_rules.h"
#include "nn/optim/task_weights.h"

namespace graft {

struct MultitaskSpec {
  RunSpec run;  // an epoch is as many batches as all tasks' rows make
  // uniform, uncertainty, gradnorm, pcgrad or metaweighting (nn/optim/task_weights.h).
  std::string weights = "uniform";
  double weight_rate = 0;  // of the weights' own steps; 0: 0.025, of metaweighting 0.1
  double gradnorm_alpha = 1.5;
  // one: a step is of one task, drawn by its share of the rows at this temperature. all: of every
  // task, its sequences by that share. "": one for uniform; the others need all.
  std::string sampling = "";
  double temperature = 10;
  double query = 0.1;  // metaweighting: the part of the training rows that is held out for it
  // `task=NAME,layers=0-3,lr=0.5,decay=0,dropout=0.1,pull=0.01`; without a task of all.
  std::vector<std::string> rules = {};

  // With what is standard filled in. Throws where one thing does not go with another.
  MultitaskSpec settled() const;
  nlohmann::json json() const;  // without `run`
  static MultitaskSpec from(const nlohmann::json& more, const nlohmann::json& run);
};

// Which ways of weighing read weight_rate, gradnorm_alpha or query, and whether one does.
std::string readers_of(const std::string& key);
bool reads(const std::string& weights, const std::string& key);

struct TaskOutcome {
  std::string name, metric;
  std::vector<double> dev;  // after each epoch, turned: higher is better
  double test = 0;          // turned, at the best epoch
  std::vector<float> test_rows, test_predictions;
  std::vector<double> weight;  // after each epoch
  std::int64_t head = 0;       // numbers of its head
  int steps = 0;               // that it took part in
  std::int64_t seen = 0;       // its sequences in those
};

struct MultitaskResult {
  std::vector<TaskOutcome> tasks;
  std::vector<double> train_loss;  // mean over each epoch's steps
  int best_epoch = 0;              // by the mean of the tasks' dev metrics
  std::int64_t trainable = 0, base = 0;
  std::uint64_t weights_hash = 0;  // of all that trained, heads too, at the best epoch
  double seconds = 0;
  std::size_t peak_bytes = 0;
};

// The spec for so many tasks: what takes tasks= gets it (and may not say another number).
std::string spec_for_tasks(const std::string& method, const Methods&, int tasks);
// The same for a task by itself: without tasks=.
std::string spec_alone(const std::string& method);
// The same for one of them: what takes tasks= gets use=.
std::string spec_of_task(const std::string& method, int task);

// For each task in turn, at the best epoch: the model has that task's head.
using AtBestOfTask = std::function<void(Model&, Adaptation&, const EncodedTask&, int task)>;

// Tasks get their index in the list. Throws for fewer than two, for two of one name, and where
// nothing would be shared. The base is as it was afterwards, bit for bit.
MultitaskResult multitask(Model& base, std::vector<EncodedTask>, const MultitaskSpec&,
                          const Methods&, const AtBestOfTask& = {}, const RunPlaces& = {});

}  // namespace graft
