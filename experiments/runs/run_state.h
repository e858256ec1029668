// The state of one fine-tuning run between steps: history, best values, and what resuming needs.
#pragma once

#include <chrono>

#include "experiments/runs/finetune.h"
#include "nn/optim/loss_scale.h"
#include "peft/training_state.h"

namespace graft {

Schedule schedule_of(const RunSpec&, int steps);

class RunState {
 public:
  // `on`: the base and the task, in words that differ where they do: "base ..., head ..., task
  // (...)". `held`: all that files of the
  // adapter hold, its constants among them.
  RunState(const RunPlaces&, const RunSpec&, std::string on, const Parameters&, Parameters held,
           Optimizer&);

  // The step to go on from, 0 if nothing was saved: the state of this run where it was cut off, or
  // that of places.resume. Throws for another run's state, and where its steps had other rates.
  int load(const Schedule&, int per_epoch);
  void save_if_due(int step);
  void end_epoch(double dev_metric, std::size_t examples);
  // Puts the values of the best epoch into the parameters; what stood there is kept.
  void restore_best();
  void keep() const;  // it, to places.keep, where the adapter was saved meanwhile
  void remove();      // the run is done

  std::vector<double> dev, train_loss;
  double loss_sum = 0;  // over the examples of this epoch
  int best_epoch = 0;
  LossScale loss_scale;

 private:
  TrainingState state() const;
  void check_resumed(const TrainingState&, const Schedule&, int per_epoch) const;

  const RunPlaces& places_;
  RunSpec spec_;
  std::string on_;
  Parameters parameters_, held_;
  Optimizer& optimizer_;
  std::vector<Array> best_;
  TrainingState last_;
  std::chrono::steady_clock::time_point saved_ = std::chrono::steady_clock::now();
};

// While one lives the model's new parameters are drawn with another seed.
class SeededBuild {
 public:
  SeededBuild(Model& model, const Build& build) : model_(model), before_(model.build()) {
    model_.set_build(build);
  }
  ~SeededBuild() { model_.set_build(before_); }

 private:
  Model& model_;
  Build before_;
};

}  // namespace graft
