// Several LoRA adapters as one: a new adapter made of their matrices, without training.
//
// Of each matrix, with task vectors D_i = s_i B_i A_i (s = alpha / r) and weights w_i:
//
//   cat          A = [w_1 s_1 A_1; w_2 s_2 A_2; ...], B = [B_1, B_2, ...]: sum w_i D_i exactly; the
//                ranks add up
//   linear       A = sum +-sqrt|w_i s_i| A_i, B = sum sqrt|w_i s_i| B_i, the sign of w_i s_i on A:
//                of more than one adapter no sum of the D_i, since A_i meets B_j
//   svd          the best approximation of sum w_i D_i of a stated rank
//   ties         TIES (Yadav et al. 2023, 2306.01708): each is trimmed to the `density` of its
//                largest entries, a sign is elected for each entry, and those that agree with it
//                are averaged
//   dare_linear  DARE (Yu et al. 2024, 2311.03099): entries are dropped at random, `density` of
//   dare_ties    them stay and are divided by it; then summed, or merged as TIES does
//   magnitude_prune   trimmed as in TIES, then summed
//
// ties, dare_* and magnitude_prune work on A and B apart as linear does, and need equal ranks; with
// _svd after the name (ties_svd) they work on the D_i, and the result is approximated in `rank`.
// All as Hugging Face's PEFT 0.21 defines them (add_weighted_adapter), which takes `linear` for a
// single adapter whatever was asked; so does this. Only DARE's draws are our own: at the address
// (seed; site and name; entry), so that they do not depend on what else is combined.
// A site that one adapter has and another has not is combined from those that have it. The result
// has every part that any has, in all layers from the lowest to the highest; what none has there,
// and ranks beyond what there is, get B = 0 and the A that LoRA starts with (drawn at seed 0), so
// that they can train on.
// Where all adapters have share=qkv, of the same parts, these are combined as one matrix with their
// rows below each other, as PEFT does with GPT-2's c_attn, and the result shares its A, too.
#pragma once

#include <optional>

#include "nn/modules.h"
#include "peft/values.h"

namespace graft {

struct CombineSpec {
  std::string how = "cat";
  std::vector<double> weights;  // of each adapter; below 0 it is taken away
  // What only some ways read; given to another it is an error.
  std::optional<double> density =
      {};  // in (0, 1], of ties, dare and magnitude_prune; these need it
  std::optional<std::string> sign = {};    // of ties: of the sum (total, the standard), or of most
                                           // entries (frequency)
  std::optional<int> rank = {};            // of svd; the standard is the largest of the adapters'
  std::optional<std::uint32_t> seed = {};  // of dare; the standard is 0
};

// An adapter to combine: its spec, of LoRA alone, and its values by label.
struct LoraValues {
  std::string name, spec;
  AdapterValues values;  // others than LoRA's own (a head's) are left alone
};

struct CombinedLora {
  std::string spec, how;  // how: as it was done
  Parameters parameters;
  // Of svd: what was cut off, of what there was, in the Frobenius norm; the worst matrix and all.
  double worst_cut = 0, cut = 0;
};

// Throws for unknown ways, weights or adapters that do not go with them, naming both.
CombinedLora combine(const std::vector<LoraValues>&, const CombineSpec&, const Arch&);

}  // namespace graft
