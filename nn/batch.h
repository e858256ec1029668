// What goes into a model: a ragged batch of token sequences, and the rows that come of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "nn/kv_cache.h"

namespace graft {

class FrozenRows;
struct Arch;

// Sequences one after another; no padding. `example` names each sequence for its random draws, so
// that an example gets the same dropout masks in any batch.
struct Batch {
  std::vector<std::int32_t> token;
  std::vector<int> length;
  std::vector<std::uint32_t> example;
  std::vector<std::int32_t> token_type = {};  // per token, BERT's segments; empty: all of type 0
  // Labels; which of them are used depends on the head.
  std::vector<std::int32_t> token_label;  // per token, -1 for none: language modelling
  std::vector<std::int32_t> label;        // per sequence: classification
  std::vector<float> target;              // per sequence: regression
  // Per sequence, where a model has several adapters side by side: which one its rows go through,
  // -1 for none of them. Empty where nothing asks.
  std::vector<std::int32_t> adapter = {};
  // What an encoder-decoder reads, as many sequences: the tokens above are what it writes.
  std::shared_ptr<const Batch> source;
  // Losses are divided by this count instead of the batch's own when it is given: micro-batches.
  double divisor = 0;
  std::vector<std::int32_t> task = {};  // per sequence, where a batch says it: which task's it is
  // So many sequences at the end say nothing and are asked nothing: filled_up() put them there.
  int filler = 0;

  int sequences() const { return static_cast<int>(length.size()); }
  std::int64_t tokens() const { return static_cast<std::int64_t>(token.size()); }
};

// What a count of rows is filled up to a multiple of: 64, or the smaller power of two that is a
// twentieth of it at most.
std::int64_t filled_step(std::int64_t rows);

// The batch and one more sequence, without labels, that makes its tokens a multiple of
// filled_step(), as far as the longest of the others is long. Batches of as many sequences
// then often have as many rows, too, and a step of one is the device's work for a step of another
// (cuda::gathered). Losses stay as they were. As it was: where it has targets, which no sequence
// can be without, or a source.
Batch filled_up(Batch, const Arch&);

// Rows as they pass through a model. Edits of the embedding may insert rows of their own; labels,
// pooling and heads find the tokens by `source`.
struct Sequence {
  Tensor rows;                         // [N, D]
  std::vector<int> length;             // rows of each sequence that are here
  std::vector<std::int32_t> source;    // index of the row's token in the batch, < 0: virtual
  std::vector<std::int32_t> position;  // position that is added or rotated
  std::vector<std::int32_t> example;   // per row, for random draws
  // Per row, where it stood in its sequence before rows were left out; empty: none were.
  std::vector<std::int32_t> place = {};
  // What the encoder of an encoder-decoder made of its text: its rows after the final norm.
  std::shared_ptr<const Sequence> memory;
  // Place within the sequence and not position: two rows never share it.
  RowAddress address() const { return {Array::of(example), Array::of(places())}; }
  std::vector<std::int32_t> places() const;
  // The same of some rows alone (ascending), without the rows themselves.
  Sequence picked(const std::vector<std::int32_t>& of) const;
};

// Added to the scores of attention [heads, places]; entry `zero` is for a key at its query's place.
struct PlaceBias {
  Tensor places;
  int zero = 0;
};

// What is forgotten and computed again in backward: nothing; what lies within a sub-layer, up to
// its last matrix; whole blocks. Of a block of frozen matrices 6d + F numbers a token are kept, or
// 2d, or d; a step's products with frozen matrices are 1, or 1.29, or 1.5 times as many.
enum class Checkpoint { none, inner, blocks };
Checkpoint checkpoint_named(const std::string&);  // throws, listing the names
const char* name(Checkpoint);

// What the edits and modules of one forward pass may read besides their inputs. Passed, not global.
struct Ctx {
  bool train = false;  // dropout is on
  Key key = {};        // (seed, step) of random draws
  int task = -1;       // the task of all sequences; -1: as the batch says
  // Per sequence, as Batch::adapter, which fills it in: an encoder's sequences have the decoder's.
  std::vector<std::int32_t> adapter = {};
  Checkpoint checkpoint = Checkpoint::none;  // by a Model; the batch must then outlive backward
  const Batch* batch = nullptr;
  // The rows that edits and modules are given, without these themselves. In the last block some may
  // have been left out: Sequence::places() says where a row stood.
  const Sequence* sequence = nullptr;
  std::shared_ptr<const void> held = {};  // what a checkpointed part reads when it runs again
  RowAddress address = {};                // of the rows, for dropout
  PlaceBias bias = {};                    // of the stack's self-attention, where it has one
  // Of a decoder that reads on: the batch holds the new tokens only. Nothing may learn then.
  KvCache* cache = nullptr;
  // Where Model::forward may take rows of frozen blocks from, and leave them.
  FrozenRows* frozen = nullptr;
  // The batch goes on where earlier ones stopped: edits insert no rows of their own again. For
  // edits of the embedding alone: once it has run, a first batch "goes on", too.
  bool goes_on() const { return cache && !cache->empty(); }
};

}  // namespace graft
