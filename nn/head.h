// Heads: what turns a model's rows into a task's prediction and loss.
#pragma once

#include <string>
#include <vector>

#include "nn/modules.h"

namespace graft {

class Model;

enum class Pool { mean, cls, last };

// The contract of a head. Its parameters train with any method.
class Head {
 public:
  virtual ~Head() = default;
  virtual Tensor scores(const Model&, const Sequence&, const Batch&,
                        const Ctx&) const = 0;  // [S, K]
  // Those of the sequence's rows, ascending, that scores() reads; empty: all of them. It then gives
  // the same of a Sequence of these rows.
  virtual std::vector<std::int32_t> reads(const Model&, const Sequence&, const Batch&) const {
    return {};
  }
  // Mean loss over the batch's sequences, or their sum over batch.divisor.
  virtual Tensor loss(const Tensor& scores, const Batch&) const = 0;
  virtual void each(const EachWeight&) = 0;
  std::int64_t parameters();

  std::vector<std::string> labels;  // names of the classes, in their order, where they are known
};

// What a head computes of a text's rows: W d2(f(D d1(pooled) + c)) + b, with dropouts d1 and d2
// while training; without `dense`, W d2(pooled) + b.
struct HeadForm {
  Pool pool = Pool::mean;
  bool dense = false;                  // the square matrix D and f
  Map activation = Map::tanh;          // f
  bool bias = true;                    // b
  bool skip_pad = false;               // Pool::last takes the last token that is not the padding
  double dropout_in = 0, dropout = 0;  // d1 and d2
};

// Classification (classes > 0) or regression (classes == 0).
struct LinearHead : Head {
  LinearHead(const Build&, const Arch&, int classes, const HeadForm&);
  LinearHead(const Build& build, const Arch& arch, int classes, Pool pool, bool dense = false)
      : LinearHead(build, arch, classes, HeadForm{.pool = pool, .dense = dense}) {}
  Tensor scores(const Model&, const Sequence&, const Batch&, const Ctx&) const override;
  std::vector<std::int32_t> reads(const Model&, const Sequence&, const Batch&) const override;
  Tensor loss(const Tensor& scores, const Batch&) const override;
  void each(const EachWeight&) override;
  const HeadForm& form() const { return form_; }
  int classes() const { return classes_; }

  std::optional<Linear> dense;
  Linear out;

 private:
  int classes_;
  HeadForm form_;
};

// Cloze: each class is a word (one or more tokens, whose scores are averaged), read off the frozen
// vocabulary head at the sequence's mask token (encoders) or at its last token (decoders).
struct ClozeHead : Head {
  explicit ClozeHead(std::vector<std::vector<std::int32_t>> words);
  Tensor scores(const Model&, const Sequence&, const Batch&, const Ctx&) const override;
  std::vector<std::int32_t> reads(const Model&, const Sequence&, const Batch&) const override;
  Tensor loss(const Tensor& scores, const Batch&) const override;
  void each(const EachWeight&) override {}

 private:
  std::vector<std::vector<std::int32_t>> words_;
};

}  // namespace graft
