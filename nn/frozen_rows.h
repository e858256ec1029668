// What frozen blocks give of an example, computed once. Nothing beneath the lowest block that is
// edited or trains ever changes, so later epochs begin above it, from rows that were kept: with the
// same bits, since a row depends on its own sequence alone.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "nn/batch.h"

namespace graft {

class Model;

class FrozenRows {
 public:
  // For the model as it is adapted now; the model must outlive this. Of an encoder-decoder it is
  // the encoder's blocks. Beyond `most_bytes` no more rows are kept, and the rest is computed each
  // time.
  FrozenRows(Model&, std::size_t most_bytes);

  int blocks() const { return blocks_; }  // how many there are; 0: there is nothing to keep
  bool of(const Model& model) const { return &model == &model_ && blocks_ > 0; }

  // Rows after those blocks, as Model::embed() and run_blocks() give them. An example is known by
  // its number and its tokens. Throws where one of the blocks has been edited since, or has other
  // weights.
  Sequence operator()(const Batch&, Ctx&);

  std::size_t bytes() const { return bytes_; }
  // Beyond 0: so many of the lowest blocks would be frozen, but draw dropout while training.
  int drawing() const { return drawing_; }

 private:
  struct Kept {
    std::vector<std::int32_t> token, type;
    Array rows;
  };
  const Kept* find(const Batch&, int sequence, std::int64_t first) const;
  void keep(const Batch&, const Array& rows);
  void check_unchanged(bool train) const;
  std::uint64_t weights() const;  // which arrays the blocks compute with

  Model& model_;
  int blocks_ = 0, drawing_ = 0;
  std::size_t most_bytes_, bytes_ = 0;
  std::uint64_t weights_ = 0;
  std::unordered_map<std::uint32_t, Kept> kept_;
};

}  // namespace graft
