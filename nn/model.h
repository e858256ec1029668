// Model: embedding, blocks, final norm, and the heads that read the result. One implementation for
// encoders, decoders and both together; Arch holds the switches.
#pragma once

#include <optional>
#include <utility>

#include "nn/head.h"
#include "nn/modules.h"
#include "nn/relative.h"

namespace graft {

// The sequence's rows of tokens that have a label, ascending.
std::vector<std::int32_t> labelled_rows(const Sequence&, const Batch&);

class Model {
 public:
  Model(const Arch&, const Build&);

  const Arch& arch() const { return arch_; }
  const Build& build() const { return build_; }
  void set_build(const Build& build) {
    build_ = build;
  }  // the seed of parameters added from now on
  // Moves every parameter, the head's too, to that device; what is added from now on is made there.
  // Before anything is attached: an adapter's own numbers stay where they are.
  void move_to(Device);

  // An encoder-decoder has its encoder whole in `encoder`; what this Model does itself is the
  // decoder's. Its batches have a `source`, which embed() reads.
  //
  // One forward pass, in the parts that experiments share between arms: rows after the embedding,
  // after blocks [from, to), and after the final norm. ctx must outlive the Sequence's use.
  Sequence embed(const Batch&, Ctx&) const;
  Sequence run_blocks(Sequence, const Ctx&, int from, int to) const;
  Sequence finish(Sequence, const Ctx&) const;
  Sequence forward(const Batch&, Ctx&) const;  // all of them; ctx.frozen may spare the lowest
  // Which rows of a sequence (whose `rows` are undefined) are read after it, ascending; empty: all.
  using Reads = std::function<std::vector<std::int32_t>(const Sequence&)>;
  // The last block's results are computed for the rows alone that are read (and, where a model is
  // causal or has relative places, those after them in the sequence), unless they are nearly all or
  // the model reads on from a cache; `source` says which rows there are.
  Sequence forward(const Batch&, Ctx&, const Reads&) const;

  // Mean of the labelled tokens' cross-entropy. Labels may be sparse: the vocabulary product runs
  // only where one stands.
  Tensor lm_loss(const Sequence&, const Batch&, const Ctx&) const;
  // From the batch to the loss, and to the head's scores, which say what they read.
  Tensor lm_loss(const Batch&, Ctx&) const;
  Tensor scores(const Batch&, Ctx&) const;
  Tensor lm_logits(const Sequence&, const std::vector<std::int32_t>& rows, const Ctx&) const;

  // The head for a task: a loaded model has that of its folder, if there is one. Returns the
  // earlier one.
  std::unique_ptr<Head> set_head(std::unique_ptr<Head> head) {
    return std::exchange(head_, std::move(head));
  }
  Head& head() const;
  bool has_head() const { return head_ != nullptr; }

  std::vector<Linear*> linears(const Where&);  // throws if `where` matches none
  std::vector<Norm*> norms();
  std::vector<Block*> all_blocks();  // the encoder's, if there is one, and then `blocks`
  void each(const EachWeight&);  // every parameter of the base, in a fixed order; not the head's
  std::int64_t parameters();     // how many numbers they hold
  std::uint64_t hash();  // of every base parameter's bits, half precision widened: reads them all

  const std::unique_ptr<Model> encoder;
  Embedding embedding;
  std::optional<RelativeBias> relative;
  std::vector<std::shared_ptr<Block>> blocks;  // a checkpointed graph holds them, too
  std::optional<Norm> final_norm;
  std::optional<Linear> pooler;  // heads may begin with it; saved with a body (Arch::pooler)
  // BERT's transform before the vocabulary product, and that product's bias.
  std::optional<Linear> lm_dense;
  std::optional<Norm> lm_norm;
  Weight lm_bias;
  std::optional<Linear> lm_head;  // untied families only

 private:
  Sequence run_blocks(Sequence, const Ctx&, int from, int to, const Reads&) const;
  std::optional<Picked> rows_to_compute(const Sequence&, const Ctx&,
                                        std::vector<std::int32_t> read) const;
  void begin(const Batch&, Ctx&) const;
  Tensor lm_hidden(const Tensor& rows, const Ctx&) const;
  Tensor vocabulary(const Ctx&) const;  // throws where the model is a body without a head

  Arch arch_;
  Build build_;
  std::unique_ptr<Head> head_;
};

}  // namespace graft
