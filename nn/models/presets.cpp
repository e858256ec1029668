#include "nn/models/presets.h"

#include "nn/models/family.h"

namespace graft {
namespace {

struct Preset {
  const char* name;
  Arch arch;
};

Arch sized(const char* family, int width, int layers, int heads, int hidden) {
  Arch a = family_named(family).arch;
  a.width = width;
  a.layers = layers;
  a.heads = a.kv_heads = heads;
  a.hidden = hidden;
  a.dropout = 0.1;
  return a;
}

// Devlin et al. 2019 (1810.04805), section 3.
Arch bert(int width, int layers, int heads) {
  Arch a = sized("bert", width, layers, heads, 4 * width);
  a.attention_dropout = a.head_dropout = 0.1;
  a.vocab = 30522;
  a.positions = 512;
  a.token_types = 2;
  a.norm_eps = 1e-12;
  a.pad = 0, a.cls = 101, a.sep = 102, a.mask = 103;
  return a;
}

// Sanh et al. 2019 (1910.01108), section 3: every second layer of BERT's.
Arch distilbert(int width, int layers, int heads) {
  Arch a = sized("distilbert", width, layers, heads, 4 * width);
  a.attention_dropout = 0.1;
  a.head_dropout = 0.2;
  a.vocab = 30522;
  a.positions = 512;
  a.norm_eps = 1e-12;
  a.pad = 0, a.cls = 101, a.sep = 102, a.mask = 103;
  return a;
}

// Liu et al. 2019 (1907.11692).
Arch roberta(int width, int layers, int heads, const char* family = "roberta") {
  Arch a = sized(family, width, layers, heads, 4 * width);
  a.attention_dropout = a.head_dropout = 0.1;
  a.vocab = 50265;
  a.positions = 512;
  a.position_offset = 2;
  a.token_types = 1;
  a.pad = 1, a.cls = 0, a.sep = 2, a.mask = 50264;
  return a;
}

// Radford et al. 2019, table 2; Brown et al. 2020 (2005.14165), table 2.1.
Arch gpt2(int width, int layers, int heads, int positions = 1024) {
  Arch a = sized("gpt2", width, layers, heads, 4 * width);
  a.attention_dropout = 0.1;
  a.vocab = 50257;
  a.positions = positions;
  a.activation = Map::gelu_tanh;
  a.cls = a.sep = 50256;
  return a;
}

// Zhang et al. 2022 (2205.01068), table 1. opt-350m is left out: it is post-norm and embeds
// narrower than it computes.
Arch opt(int width, int layers, int heads) {
  Arch a = sized("opt", width, layers, heads, 4 * width);
  a.vocab = 50272;
  a.positions = 2048;
  a.position_offset = 2;
  a.pad = 1, a.cls = a.sep = 2;
  return a;
}

// Touvron et al. 2023 (2302.13971), table 2.
Arch llama(int width, int layers, int heads, int hidden) {
  Arch a = sized("llama", width, layers, heads, hidden);
  a.vocab = 32000;
  a.positions = 2048;
  a.rope_theta = 10000;
  a.norm_eps = 1e-6;
  a.dropout = 0;
  a.tied = false;
  a.cls = 1, a.sep = 2;
  return a;
}

// Conneau et al. 2020 (1911.02116), table 6.
Arch xlm_roberta(int width, int layers, int heads) {
  Arch a = roberta(width, layers, heads, "xlm-roberta");
  a.vocab = 250002;
  a.mask = 250001;
  return a;
}

// Jiang et al. 2023 (2310.06825), table 1.
Arch mistral(int width, int layers, int heads, int key_heads, int hidden) {
  Arch a = llama(width, layers, heads, hidden);
  a.family = "mistral";
  a.kv_heads = key_heads;
  a.positions = 32768;
  a.window = 4096;
  a.norm_eps = 1e-5;
  return a;
}

// Yang et al. 2024 (2407.10671), table 1; Yang et al. 2025 (2505.09388), table 1, with heads wider
// than the model.
Arch qwen(const char* family, int width, int layers, int heads, int key_heads, int hidden) {
  Arch a = sized(family, width, layers, heads, hidden);
  a.kv_heads = key_heads;
  a.vocab = 151936;
  a.positions = 32768;
  a.rope_theta = 1e6;
  a.norm_eps = 1e-6;
  a.dropout = 0;
  a.cls = a.sep = 151643;
  if (a.head_norms) a.head_size = 128;
  return a;
}

// Raffel et al. 2020 (1910.10683), section 3.1.1 and table 14 (their largest two have heads wider
// than the model).
Arch t5(int width, int layers, int heads, int head_size, int hidden) {
  Arch a = sized("t5", width, layers, heads, hidden);
  a.encoder_layers = layers;
  a.head_size = head_size;
  a.vocab = 32128;
  a.relative_buckets = 32;
  a.activation = Map::relu;
  a.norm_eps = 1e-6;
  a.scaled_lm = true;
  a.pad = a.start = 0, a.sep = 1;
  return a;
}

// T5 1.1 as released, and Flan (Chung et al. 2022, 2210.11416), which goes on from it: a gate, and
// a vocabulary head of its own.
Arch t5_1_1(int width, int layers, int heads, int hidden) {
  Arch a = t5(width, layers, heads, 64, hidden);
  a.gated = true;
  a.activation = Map::gelu_tanh;
  a.tied = a.scaled_lm = false;
  return a;
}

// This project's own: small enough to train from nothing on a processor.
Arch own(const char* family, int positions) {
  Arch a = sized(family, 192, 12, 6, 768);
  a.vocab = 8192;
  a.positions = positions;
  a.dropout = 0;
  a.pad = 0, a.cls = 2, a.sep = 3;
  return a;
}

Arch graft_encoder() {
  Arch a = own("esm", 128);
  a.learned_positions = false;
  a.rope_theta = 10000;
  a.embed_norm = true;
  a.mask = 4;
  return a;
}

Arch graft_tiny() {
  Arch a = own("llama", 256);
  a.width = 96, a.layers = 3, a.heads = a.kv_heads = 4, a.hidden = 256;
  a.vocab = 1024;
  a.rope_theta = 10000;
  return a;
}

Arch graft_decoder() {
  Arch a = own("llama", 256);
  a.hidden = 512;  // three matrices: as many parameters as the encoder's two of 768
  a.rope_theta = 10000;
  return a;
}

// T5's kind with 1.1's gate, and feed-forward parts as large as the other two's. Its vocabulary
// head is the embedding, as in T5 1.0: transformers 5 warns of every T5 that has one of its own,
// and over the first 300 steps such a head is hardly better (held-out loss 5.54 against 5.64).
Arch graft_t5() {
  Arch a = t5(192, 6, 6, 32, 512);
  a.gated = true;
  a.activation = Map::gelu_tanh;
  a.vocab = 8192 + 100;  // and sentinels
  a.dropout = 0;
  a.sep = 3;
  return a;
}

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all{{"graft-tiny", graft_tiny()},
                                       {"graft-encoder", graft_encoder()},
                                       {"graft-decoder", graft_decoder()},
                                       {"graft-t5", graft_t5()},
                                       {"bert-base", bert(768, 12, 12)},
                                       {"bert-large", bert(1024, 24, 16)},
                                       {"roberta-base", roberta(768, 12, 12)},
                                       {"roberta-large", roberta(1024, 24, 16)},
                                       {"xlm-roberta-base", xlm_roberta(768, 12, 12)},
                                       {"xlm-roberta-large", xlm_roberta(1024, 24, 16)},
                                       {"distilbert-base", distilbert(768, 6, 12)},
                                       {"gpt2", gpt2(768, 12, 12)},
                                       {"gpt2-medium", gpt2(1024, 24, 16)},
                                       {"gpt2-large", gpt2(1280, 36, 20)},
                                       {"gpt2-xl", gpt2(1600, 48, 25)},
                                       {"gpt3-175b", gpt2(12288, 96, 96, 2048)},
                                       {"opt-125m", opt(768, 12, 12)},
                                       {"opt-1.3b", opt(2048, 24, 32)},
                                       {"opt-2.7b", opt(2560, 32, 32)},
                                       {"opt-6.7b", opt(4096, 32, 32)},
                                       {"opt-13b", opt(5120, 40, 40)},
                                       {"opt-30b", opt(7168, 48, 56)},
                                       {"opt-66b", opt(9216, 64, 72)},
                                       {"llama-7b", llama(4096, 32, 32, 11008)},
                                       {"llama-13b", llama(5120, 40, 40, 13824)},
                                       {"mistral-7b", mistral(4096, 32, 32, 8, 14336)},
                                       {"qwen2-0.5b", qwen("qwen2", 896, 24, 14, 2, 4864)},
                                       {"qwen2-1.5b", qwen("qwen2", 1536, 28, 12, 2, 8960)},
                                       {"qwen3-0.6b", qwen("qwen3", 1024, 28, 16, 8, 3072)},
                                       {"t5-small", t5(512, 6, 8, 64, 2048)},
                                       {"t5-base", t5(768, 12, 12, 64, 3072)},
                                       {"t5-large", t5(1024, 24, 16, 64, 4096)},
                                       {"t5-3b", t5(1024, 24, 32, 128, 16384)},
                                       {"t5-11b", t5(1024, 24, 128, 128, 65536)},
                                       {"t5-v1_1-small", t5_1_1(512, 8, 6, 1024)},
                                       {"t5-v1_1-base", t5_1_1(768, 12, 12, 2048)},
                                       {"t5-v1_1-large", t5_1_1(1024, 24, 16, 2816)},
                                       {"t5-v1_1-xl", t5_1_1(2048, 24, 32, 5120)},
                                       {"t5-v1_1-xxl", t5_1_1(4096, 24, 64, 10240)},
                                       {"flan-t5-small", t5_1_1(512, 8, 6, 1024)},
                                       {"flan-t5-base", t5_1_1(768, 12, 12, 2048)},
                                       {"flan-t5-large", t5_1_1(1024, 24, 16, 2816)},
                                       {"flan-t5-xl", t5_1_1(2048, 24, 32, 5120)},
                                       {"flan-t5-xxl", t5_1_1(4096, 24, 64, 10240)}};
  return all;
}

}  // namespace

std::vector<std::string> arch_names() {
  std::vector<std::string> names;
  for (const Preset& p : presets()) names.push_back(p.name);
  return names;
}

Arch arch_named(std::string_view name) {
  for (const Preset& p : presets())
    if (p.name == name) return p.arch;
  fail("models: no model is called '{}'; the names are {}", name, fmt::join(arch_names(), ", "));
}

Arch without_lm_head(Arch arch) {
  arch.lm = arch.lm_transform = arch.lm_bias = false;
  return arch;
}

}  // namespace graft
