// What training does otherwise for one task, or in some layers: rate, decay, dropout, and a pull
// towards where the parameters started (Li et al. 2018, 1802.01483: L2-SP).
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "nn/model.h"
#include "nn/optim/optimizer.h"
#include "nn/optim/task_weights.h"

namespace graft {

struct TaskRule {
  int task = -1;  // -1: every task
  int first = std::numeric_limits<int>::min(), last = std::numeric_limits<int>::max();  // layers
  std::optional<double> lr = {};  // times the run's
  std::optional<double> decay =
      {};  // instead of the run's; biases and norms have none all the same
  std::optional<double> dropout = {};  // of both sub-layers' results, on top of the model's own
  std::optional<double> pull = {};     // adds pull (w - start) to the gradient
  bool covers(int of_task, int layer) const {
    return (task < 0 || task == of_task) && first <= layer && layer <= last;
  }
};

// Of several rules that say the same thing the last one counts. A layer's rules are those of what
// stands in it: heads and embeddings (layer -1) are in no range of layers, only in all.
class TaskRules {
 public:
  // Throws for a rule that says nothing, or what is out of range.
  explicit TaskRules(std::vector<TaskRule>);

  double lr(int task, int layer) const { return value(task, layer, &TaskRule::lr, 1); }
  double decay(int task, int layer, double standard) const {
    return value(task, layer, &TaskRule::decay, standard);
  }
  double dropout(int task, int layer) const { return value(task, layer, &TaskRule::dropout, 0); }
  double pull(int task, int layer) const { return value(task, layer, &TaskRule::pull, 0); }

  // Adds the dropout to the model's sub-layers, for as long as the handles live. Passes say their
  // task by Ctx::task or Batch::task, one task each.
  std::vector<Handle> add_dropout(Model&, int tasks) const;

  // A task's gradient as its rules have it: the pull added, then times its rate. `start` are the
  // parameters' values at the run's start. Where all parameters learn from one task alone this is
  // its rate for SGD; for Adam, whose steps do not grow with the gradient, use rates().
  void shape(int task, const Parameters&, const std::vector<Array>& start, TaskGradient&,
             bool with_rate) const;

 private:
  double value(int task, int layer, std::optional<double> TaskRule::*what, double standard) const;
  std::vector<TaskRule> rules_;
};

// For one step of one task, or of several (the mean of their values): parameters' lr_scale and
// decay as the rules have them, put back when it goes. A decay of another size than the
// optimizer's is made by finish(), after its step.
class RuledStep {
 public:
  RuledStep(const TaskRules&, const Parameters&, const std::vector<int>& tasks, double decay,
            bool with_rate);
  ~RuledStep();
  RuledStep(const RuledStep&) = delete;
  RuledStep& operator=(const RuledStep&) = delete;
  void finish(double rate);  // w -= rate lr_scale decay w

 private:
  struct Before {
    std::shared_ptr<Parameter> parameter;
    double lr_scale;
    bool decays;
    double own;  // decay to be made by finish(); < 0: none
  };
  std::vector<Before> before_;
};

}  // namespace graft
