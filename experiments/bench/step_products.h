// The matrix products of a LoRA step alone, with our kernel and with the BLAS as it comes: what the
// promise of the same bits, whatever the threads and the batch's cuts, costs in time.
#pragma once

#include <vector>

#include "nn/model.h"

namespace graft {

// For each of the blocks' matrices y = x W^T and dx = dy W; for the vocabulary's, where the model
// has no other head, the logits once and their gradient's product; for q and v LoRA's thin products
// and the sums over tokens that are the gradients of its matrices. As in a step, no two matrices
// are one, and ours are packed once.
class StepProducts {
 public:
  // `tokens` go through the blocks, `labelled` of them through the vocabulary.
  StepProducts(Model&, std::int64_t tokens, std::int64_t labelled, int rank);
  double ours();  // seconds of them all
  double openblas();

 private:
  struct Frozen {
    Array w;  // [out, in]
    std::int64_t rows;
  };

  std::vector<Frozen> all_;
  std::int64_t sums_, tokens_, width_;
  int rank_;
  Array x_, y_;
};

}  // namespace graft
