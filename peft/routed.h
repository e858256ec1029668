// Routed: several adapters on one model, one for each sequence of a batch.
//
// Each adapter's edits run on the rows of its own sequences alone, and their results are put back
// among the others'. A sequence of no adapter gets the base's rows and any other what it gets from
// its adapter alone, bit for bit. In training, too: RoutedTraining's loss is a mean over each
// adapter's own rows, and clipping and optimizer are its own.
//
// What edits activations can be routed: rows after a linear or a sub-layer, keys and values,
// virtual rows. What all rows share cannot, and is refused by name: edits of a weight or a norm,
// and copies that train in the base's place (full, bitfit, layernorm, houlsby's norms, LoRA's
// save= and bias=).
//
//     Routed routed(all_methods(), {{"en", "lora:r=8"}, {"de", "prefix:length=5"}}, model);
//     batch.adapter = {routed.index("de"), -1, routed.index("en")};
#pragma once

#include "nn/head.h"
#include "peft/adapter.h"

namespace graft {

// Sequences `of` a batch, as a batch of their own.
Batch some_of(const Batch&, const std::vector<int>& of);

// One adapter's sequences of a batch, as an edit is handed them.
struct PartOfBatch {
  // Those whose adapter (Ctx::adapter) is `adapter`. `s` are the rows of the whole batch; those of
  // this part have no `rows` until they are picked.
  PartOfBatch(const Ctx&, const Sequence& s, int adapter);
  PartOfBatch(const PartOfBatch&) = delete;
  PartOfBatch& operator=(const PartOfBatch&) = delete;

  bool whole() const { return row.size() == of_rows; }
  bool one_run() const {  // its sequences lie one after another
    return !row.empty() && row.back() - row.front() + 1 == static_cast<std::int32_t>(row.size());
  }
  Tensor picked(const Tensor& of_all) const;  // undefined stays so
  // `of_all` with `of_part` in place of this part's rows.
  Tensor put_back(const Tensor& of_all, const Tensor& of_part) const;

  std::vector<int> sequence;        // places in the batch
  std::vector<std::int32_t> row;    // of these sequences
  std::vector<std::int32_t> start;  // per sequence: its first token's index there minus that here
  std::size_t of_rows = 0;
  Batch batch;
  Sequence rows;
  Ctx ctx;  // its batch, sequence and addresses are this part's
};

class Routed {
 public:
  struct Route {
    std::string name, spec;
  };
  // Attaches the adapters to the model. Throws where a name comes twice or is "base", and for an
  // adapter that cannot be routed, with the reason; nothing is attached then.
  Routed(const Methods&, const std::vector<Route>&, Model&);
  ~Routed();
  Routed(const Routed&) = delete;
  Routed& operator=(const Routed&) = delete;

  // A batch's number for a name; -1 for "base". Throws, listing the names.
  std::int32_t index(const std::string& name) const;
  int size() const { return static_cast<int>(adapters_.size()); }
  const std::string& name(int i) const { return names_.at(static_cast<std::size_t>(i)); }
  const Adaptation& at(int i) const { return *adapters_.at(static_cast<std::size_t>(i)); }
  // The head of an adapter's task, whose parameters then train with it; of none, the model's own.
  void set_head(int i, std::unique_ptr<Head>);
  const Head* head(int i) const;
  Parameters parameters(int i) const;  // the adapter's and its head's
  Parameters stored() const;           // of all adapters, without heads: what their folders hold
  void after_backward(int i, int step) {
    adapters_.at(static_cast<std::size_t>(i))->after_backward(step);
  }

  // The model's forward pass, as Model::forward with what is read: by each adapter's head, or
  // without one, where the batch has token labels, at these. It may leave other rows out.
  Sequence forward(const Batch&, Ctx&) const;
  // The sequences of one adapter (-1: of none) after a forward pass over all, for heads and losses.
  // Nothing where the batch has none.
  std::unique_ptr<PartOfBatch> part(const Sequence& s, const Batch&, const Ctx&, int i) const;
  // Each sequence's scores under the head of its adapter, in the batch's order.
  std::vector<std::vector<double>> scores(const Sequence& s, const Batch&, const Ctx&) const;

 private:
  Model& model_;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<Adaptation>> adapters_;
  std::vector<std::unique_ptr<Head>> heads_;
};

// Trains the adapters of a Routed side by side: each with its own mean loss, clipping and
// optimizer, as if it were alone with its own sequences in their order. With the same seeds its
// numbers are those of training it alone, bit for bit; with dropout as long as
// both count the same steps (Ctx::key).
class RoutedTraining {
 public:
  RoutedTraining(Routed&, const Model&, const std::vector<OptimSpec>&);  // one for each adapter

  struct Step {
    int sequences = 0;  // 0: the batch had none of this adapter, which has not moved
    double loss = 0;
    double norm = 0;  // of its gradient, before clipping
  };
  // One step; rate[i] is adapter i's. The loss is the head's, or without one that of the batch's
  // token labels. A batch of micro-batches (Batch::divisor) is refused, as are sequences of no
  // adapter, which nothing would train on. An adapter whose gradient is not finite does not move;
  // the others do, and then it throws, naming it.
  std::vector<Step> step(const Batch&, Ctx, const std::vector<double>& rate);
  const Optimizer& optimizer(int i) const { return optimizers_.at(static_cast<std::size_t>(i)); }

 private:
  Routed& routed_;
  const Model& model_;
  std::vector<Optimizer> optimizers_;
};

}  // namespace graft
