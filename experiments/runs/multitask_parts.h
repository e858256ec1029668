// What a run over several tasks is made of: which rows come next, the tasks' heads, its state.
#pragma once

#include <chrono>
#include <memory>

#include "experiments/runs/multitask.h"

namespace graft {

TaskRules rules_of(const MultitaskSpec&, const std::vector<EncodedTask>&, const Arch&);

// Rows of one task in the order of training, epoch after epoch, each a permutation of them.
class RowStream {
 public:
  RowStream(std::vector<std::int32_t> rows, std::uint32_t seed)
      : rows_(std::move(rows)), seed_(seed) {}
  std::vector<std::int32_t> next(int count);
  std::int64_t position() const { return position_; }
  void go_to(std::int64_t position) { position_ = position; }
  std::size_t size() const { return rows_.size(); }

 private:
  std::vector<std::int32_t> rows_, order_;
  std::uint32_t seed_;
  std::int64_t position_ = 0, epoch_ = -1;
};

// The tasks' heads; the model has one of them at a time, and its own again when this goes.
class TaskHeads {
 public:
  TaskHeads(Model&, const std::vector<EncodedTask>&, const RunSpec&);
  ~TaskHeads();
  TaskHeads(const TaskHeads&) = delete;
  TaskHeads& operator=(const TaskHeads&) = delete;
  void use(int task);
  // Leaves, by names that tell tasks apart; none where a task has no head of its own.
  const Parameters& parameters(int task) const {
    return parameters_[static_cast<std::size_t>(task)];
  }
  std::uint64_t start_hash() const { return start_hash_; }

 private:
  Model& model_;
  std::unique_ptr<Head> own_;
  std::vector<std::unique_ptr<Head>> heads_;
  std::vector<Parameters> parameters_;
  int current_ = -1;
  std::uint64_t start_hash_ = 0;
};

// What is kept between steps, and through a kill.
struct MultitaskState {
  const RunPlaces& places;
  std::string identity, on;  // of the run; of the base and the tasks
  Parameters parameters;     // shared ones and all heads'
  std::vector<std::unique_ptr<Optimizer>>& optimizers;
  std::vector<RowStream*> streams;
  TaskWeights& weights;

  std::vector<std::vector<double>> dev = {}, task_weight = {};  // of each epoch
  std::vector<double> train_loss = {};
  std::vector<int> task_steps = {};
  double loss_sum = 0;
  int best_epoch = 0;
  std::vector<Array> best = {};
  std::chrono::steady_clock::time_point saved = std::chrono::steady_clock::now();

  int load();  // the step to go on from. Throws for another run's state.
  void save_if_due(int step);
  void end_epoch(std::vector<double> dev_metrics, int steps);
  void restore_best();

 private:
  void save(int step) const;
};

}  // namespace graft
