// The state of one fine-tuning run between steps: history, best values, and what resuming needs.
#pragma once

#include <chrono>

#include "experiments/runs/finetune.h"

namespace graft {

class RunState {
 public:
  // `on`: the base and the task, in words that differ where they do.
  RunState(const RunPlaces&, const RunSpec&, std::string on, const Parameters&, Optimizer&);

  int load();  // the step to go on from; 0 if nothing was saved. Throws for another run's state.
  void save_if_due(int step);
  void end_epoch(double dev_metric, std::size_t examples);
  void restore_best();  // puts the values of the best epoch into the parameters
  void remove();        // the run is done

  std::vector<double> dev, train_loss;
  double loss_sum = 0;  // over the examples of this epoch
  int best_epoch = 0;

 private:
  void save(int step) const;

  const RunPlaces& places_;
  std::string identity_, on_;
  Parameters parameters_;
  Optimizer& optimizer_;
  std::vector<Array> best_;
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
