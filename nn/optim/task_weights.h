// Several tasks, one set of shared parameters: which task a step is of, and how the tasks'
// gradients become one.
//
//   uniform        the mean of the tasks' gradients
//   uncertainty    Kendall et al. 2018 (1705.07115): minimises sum_t L_t / (2 s_t^2) + log s_t,
//                  in every kind of task alike; s_t learns, too
//   gradnorm       Chen et al. 2018 (1711.02257): w_t follow |w_t g_t| to their mean times
//                  r_t^alpha, r_t the task's rate of learning against the others'; sum w = T after
//                  each step
//   pcgrad         Yu et al. 2020 (2001.06782): of two gradients that oppose each other each loses
//                  its component along the other; in an order drawn for each step
//   metaweighting  Mao et al. 2022: w_t go down the common descent direction of the losses on rows
//                  held out (the query rows), seen one step ahead; that is a step of gradient
//                  descent at the optimizer's rate, as the paper has it, also where Adam takes the
//                  real one, which is larger
//
// Norms and products are over all shared parameters. Whatever the weights, the step's gradient is
// (1 / T) sum_t w_t g_t, so that uniform weights are the mean.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/array.h"
#include "tensor/philox.h"

namespace graft {

using TaskGradient = std::vector<Array>;  // of each shared parameter

double dot(const TaskGradient&, const TaskGradient&);  // in f64, in order

// The weight of `a` in the point of least norm between a and b, from their products (Desideri
// 2012): clip(<b - a, b> / |a - b|^2, 0, 1).
double min_norm_pair(double aa, double ab, double bb);
// The weights of the point of least norm in the convex hull of vectors, from their Gram matrix
// [n][n]: Frank-Wolfe with pairwise steps, each an exact line search, to a duality gap of 1e-12 of
// the largest product.
std::vector<double> min_norm_weights(const std::vector<std::vector<double>>& gram);

// p_t ~ (N_t / sum N)^(1 / temperature): 1 as often as there are rows, 10 nearly alike. Throws for
// no tasks, a task without rows or a temperature that is not above 0.
std::vector<double> task_shares(const std::vector<std::size_t>& rows, double temperature);
// A draw by these shares, a pure function of (seed, step).
int drawn_task(const std::vector<double>& shares, Key);
// `total` sequences by these shares: each task at least one, all together max(total, tasks).
std::vector<int> split_by(const std::vector<double>& shares, int total);

struct WeightSpec {
  enum class Kind { uniform, uncertainty, gradnorm, pcgrad, metaweighting };
  Kind kind = Kind::uniform;
  double rate = 0.025;  // of the weights' own steps: s_t's, w_t's; MetaWeighting's alpha
  double alpha = 1.5;   // gradnorm's
  std::uint32_t seed = 0;
};
WeightSpec::Kind weights_named(const std::string&);  // throws, listing the names

class TaskWeights {
 public:
  TaskWeights(const WeightSpec&, int tasks);

  // The step's gradient in the shared parameters, and the weights' own step.
  TaskGradient combine(const std::vector<double>& loss, const std::vector<TaskGradient>&, int step);
  // Whether query gradients are wanted after a step; they are the tasks' at the new parameters, and
  // `eta` is the rate of that step.
  bool looks_ahead() const { return spec_.kind == WeightSpec::Kind::metaweighting; }
  void look_ahead(const std::vector<TaskGradient>& query, double eta);

  // What the last combine() multiplied each task's gradient by; parameters of one task alone take
  // the same. All 1 for uniform and pcgrad.
  const std::vector<double>& applied() const { return applied_; }
  // What the next one will start from.
  std::vector<double> weights() const;

  // What resuming needs; load() throws for another length.
  std::vector<double> state() const;
  void load(const std::vector<double>&);

 private:
  void follow_norms(const std::vector<double>& loss, const std::vector<TaskGradient>&);
  std::vector<TaskGradient> without_conflicts(const std::vector<TaskGradient>&, int step) const;

  WeightSpec spec_;
  std::vector<double> value_;  // w_t; of uncertainty log s_t^2
  std::vector<double> first_;  // gradnorm: the losses of the first step
  std::vector<double> applied_;
  std::vector<TaskGradient> support_;  // metaweighting: of the last step
};

}  // namespace graft
