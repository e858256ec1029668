// The state of a pretraining run between steps, as it lies on the disk.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "experiments/pretrain/pretrain.h"
#include "nn/optim/optimizer.h"

namespace graft {

class SavedPretraining;

class PretrainState {
 public:
  // started_from: the hash of the model that the run began with, or nothing.
  PretrainState(const PretrainSpec&, const std::string& started_from, Optimizer&);

  // The step to go on from, 0 if nothing was saved. Throws for another run's state. Steps and
  // cooldown may have changed meanwhile, as long as every step that was done keeps its rate; a run
  // that is made longer when its rate has begun to fall goes on from where it had not.
  std::int64_t load();
  void save(std::int64_t step) const;
  // Called before each step: keeps a copy of the state before the first that a longer run would
  // take at another rate.
  void before_step(std::int64_t step) const;

  double rate(std::int64_t step) const { return schedule_.at(static_cast<int>(step)); }

  // Training losses since the last line of the log.
  double loss_sum = 0;
  int losses = 0;

 private:
  std::int64_t read(const SavedPretraining&);
  void write(const char* file, std::int64_t step) const;
  // The first step that was done at another rate than it would have now, or -1.
  std::int64_t other_rate(const SavedPretraining&) const;

  const PretrainSpec& spec_;
  const nlohmann::json identity_;
  Optimizer& optimizer_;
  const Schedule schedule_;
};

}  // namespace graft
