// Pretraining a base model on a corpus: masked (encoders), causal (decoders) or span (encoder-
// decoders) language modelling.
// The run is a pure function of its settings; killed at any moment it goes on from its last
// checkpoint and ends with the same bits.
#pragma once

#include <filesystem>
#include <string>

#include "experiments/pretrain/corpus_windows.h"
#include "nn/model.h"
#include "peft/adapter.h"

namespace graft {

struct PretrainSpec {
  Arch arch;
  std::string objective = "";  // "": what goes with the architecture; another is an error
  // Edits that the model learns with from its first step, beside all of its own weights, such as
  // qknorm:gate=one; "": none. `methods` has their rows.
  std::string method = "";
  Methods methods = {};
  std::filesystem::path train, heldout, tokenizer, out;
  std::filesystem::path start_from;  // blocks, embeddings and head of a smaller model, or empty
  std::uint32_t seed = 0;
  int length = 128, batch = 32;  // tokens per window, windows per step
  std::int64_t steps = 1000;
  double lr = 1e-3, decay = 0.01, masking = 0.15, span = 3;
  int warmup = 500, cooldown = 1000;
  Schedule::Kind schedule = Schedule::Kind::trapezoid;
  int eval_every = 500;         // steps between held-out losses
  double save_minutes = 5;      // between checkpoints of the whole state
  std::int64_t stop_after = 0;  // stop (checkpointed) after this step; 0: at the end
};

struct PretrainResult {
  std::int64_t step = 0;
  double heldout_loss = 0;
  std::uint64_t weights_hash = 0;
};

// What a model of this shape learns by. Throws where another objective is asked for by name.
Objective objective_of(const Arch&, const std::string& asked = "");

// Trains until spec.steps. An encoder-decoder's tokenizer that has no sentinels gets as many as the
// model's vocabulary has room for. Writes into spec.out: state.safetensors (to resume), log.jsonl
// (one line per evaluation), model/ (Hugging Face folder), step-N/ at the steps 2^k from 256 on
// and, with a method, adapter/: what `graft train --model OUT/model --init OUT/adapter` goes on
// from.
//
// A run in spec.out may be made longer with more steps and ends with the bits of one that had them
// from the start. A trapezoid's rate may have fallen meanwhile: the run then goes on from
// state-before-cooldown.safetensors, which is kept for that. Throws where a step that was done
// would have had another rate.
PretrainResult pretrain(const PretrainSpec&);

// Mean loss per predicted token over the first `windows` held-out windows, or as many as there
// are, in an order and with a masking that are always the same.
double heldout_loss(const Model&, const CorpusWindows&, std::int64_t windows, const MaskingRule&);

// Copies a smaller model's parameters into a deeper one of the same width: block i starts as block
// i mod (its depth) (Gong et al. 2019, "Efficient training of BERT by progressively stacking"), in
// each stack of an encoder-decoder.
void stack_from(Model& deep, Model& shallow);

}  // namespace graft
