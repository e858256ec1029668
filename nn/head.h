// Heads: what turns a model's rows into a task's prediction and loss.
#pragma once

#include <string>
#include <vector>

#include "nn/modules.h"

namespace graft {

class Model;

enum class Pool { mean, cls, last };

// The contract of a head. Its parameters train with any method; they are new for every task.
class Head {
 public:
  virtual ~Head() = default;
  virtual Tensor scores(const Model&, const Sequence&, const Batch&,
                        const Ctx&) const = 0;  // [S, K]
  // Mean loss over the batch's sequences, or their sum over batch.divisor.
  virtual Tensor loss(const Tensor& scores, const Batch&) const = 0;
  virtual void each(const EachWeight&) = 0;
  std::int64_t parameters();
};

// Classification (classes > 0) or regression (classes == 0): pooled rows times a matrix, plus a
// bias. With `dense` a square matrix and tanh come before it: RoBERTa's head without its dropout.
struct LinearHead : Head {
  LinearHead(const Build&, const Arch&, int classes, Pool, bool dense = false);
  Tensor scores(const Model&, const Sequence&, const Batch&, const Ctx&) const override;
  Tensor loss(const Tensor& scores, const Batch&) const override;
  void each(const EachWeight&) override;

 private:
  int classes_;
  Pool pool_;
  std::optional<Linear> dense_;
  Linear out_;
};

// Cloze: each class is a word (one or more tokens, whose scores are averaged), read off the frozen
// vocabulary head at the sequence's mask token (encoders) or at its last token (decoders).
struct ClozeHead : Head {
  explicit ClozeHead(std::vector<std::vector<std::int32_t>> words);
  Tensor scores(const Model&, const Sequence&, const Batch&, const Ctx&) const override;
  Tensor loss(const Tensor& scores, const Batch&) const override;
  void each(const EachWeight&) override {}

 private:
  std::vector<std::vector<std::int32_t>> words_;
};

}  // namespace graft
