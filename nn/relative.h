// Scores' bias by relative place (Raffel et al. 2020, 1910.10683, section 2.1): each head of a
// stack learns a number for each bucket of distances, and all its layers add it.
#pragma once

#include "nn/modules.h"

namespace graft {

// The bucket of a key that stands `place` places after its query (negative: before). Half of a
// side's buckets are exact distances, the rest grow geometrically up to `distance`, from which on
// all share the last. Both sides have buckets of their own in a stack that looks both ways; in a
// causal one there is only the past. As transformers' T5Attention rounds it, in f32.
int relative_bucket(int place, bool causal, int buckets, int distance);

struct RelativeBias {
  RelativeBias(const Build&, const Arch&);
  // For every place that the sequence's rows (and those in the cache before them) may be apart.
  PlaceBias operator()(const Sequence&, const Ctx&) const;

  Weight table;  // [buckets, heads]

 private:
  bool causal_;
  int distance_;
};

}  // namespace graft
