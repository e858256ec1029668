// Architectures of random sizes, a trial number each: the same ones in every run.
#pragma once

#include "nn/models/family.h"
#include "nn/models/presets.h"
#include "tests/nn/small_models.h"

namespace graft::testing {

// Between `least` and `most`, of the trial's own stream for `what`.
inline int draw(int trial, const char* what, int least, int most) {
  const double u = uniform({77, 0}, stream_id(what), static_cast<std::uint64_t>(trial));
  return least + static_cast<int>(u * (most - least + 1));
}

// Widths on both sides of vectors and tiles; every switch of the architecture comes up.
inline Arch random_arch(int trial) {
  const int head_width = 2 * draw(trial, "head width", 2, 17);
  const int key_heads = draw(trial, "key heads", 1, 3), groups = draw(trial, "groups", 1, 2);
  const int heads = key_heads * groups;
  Arch a =
      trial % 3 == 0 ? llama_like() : small_arch(trial % 3 == 1 ? Stack::encoder : Stack::decoder);
  a.width = head_width * heads, a.heads = heads, a.kv_heads = key_heads;
  a.hidden = draw(trial, "hidden", 5, 300);
  a.layers = draw(trial, "layers", 1, 2);
  a.vocab = draw(trial, "vocab", 30, 200);
  a.positions = 64;
  a.dropout = trial % 2 ? 0.2 : 0;
  a.attention_dropout = trial % 3 ? 0.3 : 0;
  a.pre_norm = trial % 4 != 3;
  return a;
}

// A family's model of small and uneven sizes, every size unlike the others where the family lets
// it: for what follows from shapes. The family's own variants (T5's gate and its vocabulary head,
// heads wider than the model, grouped keys of LLaMA, bodies with BERT's matrix for pooling and
// without a vocabulary, norms of heads) come up within twelve trials.
inline Arch random_arch(const Family& family, int trial) {
  Arch a = family.arch;
  const bool llama = a.stack == Stack::decoder && a.gated && family.encoder.empty();
  const bool several = trial % 2, other = trial % 3 == 0, bare = trial % 4 == 3;
  a.kv_heads = draw(trial, "key heads", 1, 3);
  a.heads = a.kv_heads * (llama && several ? 2 : 1);
  a.width = 2 * draw(trial, "head width", 2, 6) * a.heads;
  a.hidden = draw(trial, "hidden", 5, 60);
  a.layers = draw(trial, "layers", 1, 4);
  a.vocab = draw(trial, "vocab", 30, 90);
  a.positions = draw(trial, "positions", 5, 20);
  const bool roberta = family.name.find("roberta") != std::string::npos;
  if (roberta || family.name == "opt") a.position_offset = 2;
  if (roberta) a.token_types = 1;
  if (family.name == "bert") a.token_types = 2;
  if (family.name == "esm" || llama) {
    a.rope_theta = llama || several ? 100 : 0;
    a.learned_positions = a.rope_theta == 0;
  }
  if (family.name == "esm") a.embed_norm = other;
  if (llama || family.name == "t5") a.tied = other;
  if (family.name == "mistral" || family.name == "qwen3")
    a.head_size = several ? 0 : 2 * draw(trial, "head size", 1, 9);
  if (family.name == "t5") {
    a.encoder_layers = draw(trial, "encoder layers", 1, 4);
    a.head_size = several ? 0 : 2 * draw(trial, "head size", 1, 9);
    a.relative_buckets = 2 * draw(trial, "buckets", 2, 8);
    a.gated = trial % 4 < 2;
  }
  if (a.lm_transform && bare) {
    a = without_lm_head(a);
    a.pooler = family.has(Part::pooler);
  }
  a.mask = 4, a.start = 0;
  return a;
}

}  // namespace graft::testing
