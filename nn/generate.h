// Text from a decoder, or from an encoder-decoder that reads the prompt: greedy, sampled, or by
// beam search, over a cache of keys and values. Prompts of unequal length go side by side; a
// sequence that has stopped is computed no further.
#pragma once

#include <functional>
#include <limits>

#include "nn/model.h"

namespace graft {

struct GenerateSpec {
  int max_tokens = 64;             // new ones, the stop token included
  int min_tokens = 0;              // no stop token before so many
  std::vector<std::int32_t> stop;  // ids that end a sequence
  // Of each prompt, as Batch::adapter; empty where nothing asks.
  std::vector<std::int32_t> adapter = {};
  int no_repeat_ngram = 0;        // > 0: no n-gram of prompt and answer comes twice
  double repetition_penalty = 1;  // Keskar et al. 2019 (1909.05858), section 4.1; 1: none
  // Sampling; without it the likeliest token is taken.
  bool sample = false;
  double temperature = 1;
  int top_k = 0;           // > 0: among the k likeliest
  double top_p = 1;        // among the fewest that hold this much probability
  std::uint32_t seed = 0;  // draws depend on it, the sequence's number and the place only
  // Beam search, where beams > 1. A finished beam's score is the sum of its log probabilities over
  // (its new tokens)^length_penalty.
  int beams = 1;
  double length_penalty = 1;
  enum class Until { no_better, beams_full, never_better } until = Until::no_better;

  void check_fits(const Arch&) const;  // throws
};

struct Generated {
  std::vector<std::int32_t> tokens;  // the new ones; the last may be the stop token
  enum class End { stop, count, positions } end = End::count;  // positions: the model has no more
  double score = 0;  // sum of log probabilities; of beam search: the score it is chosen by
};

// A new token of one of the sequences, as soon as it is known; beam search knows them at its end.
using OnToken = std::function<void(int sequence, std::int32_t token)>;

// Continues each prompt (at least one token), or answers it where an encoder reads it. Sequence i's
// result does not depend on the others. Throws for an empty prompt, one that is longer than the
// model's positions, a token outside the vocabulary, or settings that contradict each other. Edits
// of the model are on.
std::vector<Generated> generate(const Model&, const std::vector<std::vector<std::int32_t>>& prompts,
                                const GenerateSpec&, const OnToken& = {});

// The log probabilities [V] of the next token as beam search and sampling see them: after the
// penalties, the bans of n-grams and early stops; -infinity for what is banned. `all` is prompt and
// answer so far, `made` the answer's length.
void restrict_next(std::vector<double>& scores, const std::vector<std::int32_t>& all, int made,
                   const GenerateSpec&);

// One token out of scores (logits or log probabilities; -infinity is never drawn), as `spec` says
// to sample; u in [0, 1) decides.
std::int32_t draw(std::vector<double> scores, const GenerateSpec& spec, double u);

}  // namespace graft
