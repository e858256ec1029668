// Optimizers over a list of parameters, gradient clipping, and learning-rate schedules.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "autograd/graph.h"
#include "nn/parameter.h"

namespace graft {

using Parameters = std::vector<std::shared_ptr<Parameter>>;

// One form for all three, as a spec names it. Weight decay is decoupled (Loshchilov & Hutter 2019),
// in sgd a part of the gradient; it leaves biases and norms (Parameter::decay == false) alone.
struct OptimSpec {
  enum class Kind { adamw, sgd, adafactor };
  Kind kind = Kind::adamw;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double decay = 0.01;
  double momentum = 0.9;        // sgd
  double clip = 1.0;            // global gradient norm; 0 leaves gradients as they are
  double factored_decay = 0.8;  // adafactor: beta2 at step t is 1 - t^-0.8
  bool scale_by_size = false;   // adafactor: multiply the rate by the parameter's root mean square
};
OptimSpec::Kind optim_named(const std::string&);  // throws, listing the names

class Optimizer {
 public:
  Optimizer(Parameters, OptimSpec);

  // One step at rate lr (each parameter's own lr_scale on top). Returns the gradient's global norm
  // before clipping. Throws, naming the parameter, where a gradient is missing or not finite; no
  // parameter has then changed.
  double step(Gradients&, double lr);
  // The same in two parts. With adamw the first one asks for no number of the device's, so that
  // all of a step can be on its way before the second one waits for the norm.
  // The gradients are `scale` times what they are taken for (LossScale).
  void start(Gradients&, double lr, double scale = 1);
  bool overflowed() const;  // a gradient is not finite; nothing has changed, and it may start again
  double finish();

  int steps() const { return steps_; }
  const Parameters& parameters() const { return parameters_; }

  // Everything that resuming needs beyond the parameters, by name; load() is strict.
  std::map<std::string, Array> state() const;
  void load(const std::map<std::string, Array>&, int steps);

 private:
  void adamw(const std::vector<Array>& grads, double lr);  // of all parameters in one pass
  const std::vector<double>& squares_of_started() const;
  void update(std::size_t i, const Array& grad, double lr);  // by the other kinds
  void adafactor(std::size_t i, const Array& grad, double lr, double decay);
  std::vector<std::pair<std::string, Shape>> state_shapes(const Parameter&) const;

  Parameters parameters_;
  OptimSpec spec_;
  std::vector<std::vector<Array>> state_;  // per parameter
  int steps_ = 0;
  Array squares_;                     // of the step that was started: each gradient's, summed
  mutable std::vector<double> each_;  // the same, once they have been asked for
  double scale_ = 1;                  // and what the gradients are scaled by
};

// Rates over a run of `steps` steps, warm-up included.
struct Schedule {
  enum class Kind { constant, linear, cosine, trapezoid };
  Kind kind = Kind::linear;
  double peak = 1e-3;
  int steps = 1, warmup = 0;
  double floor = 0;  // cosine and linear end at floor * peak
  // trapezoid: constant, then linear over the last so many steps. The constant part does not know
  // where the run ends, so a run can be made longer and end well wherever it stops.
  int cooldown = 0;
  // The rate of step `step`, counted from 0: rises over the warm-up, then follows the kind.
  double at(int step) const;
};
Schedule::Kind schedule_named(const std::string&);

}  // namespace graft
