// Keys and values of what a decoder has read so far: a step reads its new tokens only, and gives
// the bits that reading everything again would give.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/array.h"

namespace graft {

class KvCache {
 public:
  // Room for `sequences` sequences; the arrays come with the first rows. They grow by doubling, but
  // not beyond the `expected` rows of a sequence before there are more.
  KvCache(int layers, int sequences, int expected = 0);

  // One layer's keys and values [sequences * capacity, C]: those of sequence s are the `length[s]`
  // rows from `start[s]` on.
  struct Layer {
    Array k, v;
    std::vector<int> start, length;
  };
  // Appends `rows[s]` new rows of each sequence, which lie one after another in k and v, and
  // returns the layer as it is then. Constants only: no gradient flows into what was read before.
  const Layer& extend(int layer, const Array& k, const Array& v, const std::vector<int>& rows);

  // What an encoder-decoder's layer attends across to: kept once, when the text has been read.
  const Layer& keep_memory(int layer, const Array& k, const Array& v, const std::vector<int>& rows);
  const Layer& memory(int layer) const { return memory_.at(static_cast<std::size_t>(layer)); }

  // Sequence i becomes what sequence from[i] was; there may be fewer or more of them then.
  void select(const std::vector<int>& from);

  int read(int sequence) const;  // how many rows of it there are
  int sequences() const { return static_cast<int>(position_.size()); }
  bool empty() const { return !begun_; }
  // The position of the next token of each sequence. The embedding sets it, after its edits.
  const std::vector<std::int32_t>& position() const { return position_; }
  void set_position(std::vector<std::int32_t> next) { position_ = std::move(next), begun_ = true; }

 private:
  static const Layer& append(Layer&, const Array& k, const Array& v, const std::vector<int>& rows,
                             std::int64_t expected);

  std::vector<Layer> layers_, memory_;
  int expected_;
  std::vector<std::int32_t> position_;
  bool begun_ = false;
};

}  // namespace graft
