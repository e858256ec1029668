// One model with one adapter, stepped by hand: what the benchmarks of training time.
#pragma once

#include <memory>
#include <string>

#include "nn/frozen_rows.h"
#include "nn/half_precision.h"
#include "peft/methods.h"

namespace graft {

struct StepResult {
  double loss = 0;
  double norm = 0;  // of the gradient, before it is clipped
  double seconds = 0;
};

class Trainer {
 public:
  // Trains what `spec` adds and the model's head for whole texts, if it has one; the loss is then
  // that head's, and otherwise that of the labelled tokens.
  Trainer(std::unique_ptr<Model>, const std::string& spec, const OptimSpec& = {});

  // From now on in half precision, on the device (HalfPrecision).
  void compute_in(Dtype dtype) { half_ = std::make_unique<HalfPrecision>(*model_, dtype); }

  // From now on what frozen blocks give of an example is kept (FrozenRows).
  void keep_frozen_rows(std::size_t most_bytes) {
    frozen_ = std::make_unique<FrozenRows>(*model_, most_bytes);
  }
  const FrozenRows* frozen_rows() const { return frozen_.get(); }

  // A whole step: forward, backward, optimizer.
  StepResult step(const Batch&, double rate, Checkpoint = Checkpoint::none);

  // What the blocks keep for backward of a batch, beside the weights.
  std::size_t kept_bytes(const Batch&, Checkpoint = Checkpoint::none);

  const Model& model() const { return *model_; }
  const Adaptation& adaptation() const { return adaptation_; }
  const Parameters& parameters() const { return optimizer_.parameters(); }
  std::int64_t trainable() const;  // how many numbers, the head's among them

 private:
  Tensor loss(const Batch&, Ctx&) const;

  std::unique_ptr<Model> model_;
  Adaptation adaptation_;
  Optimizer optimizer_;
  std::unique_ptr<HalfPrecision> half_;
  std::unique_ptr<FrozenRows> frozen_;
};

}  // namespace graft
