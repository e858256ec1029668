// The papers' figures of what methods train in published shapes, one row each. Every one is
// computed from the paper's formula, too; where a paper's own print differs, the row says how.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/models/presets.h"

namespace graft::testing {

// A part of the model, to the digits of `text`: "0.292 %", or "1.068 x" of the model with `per`
// times what trains beside it.
struct Share {
  const char* text;
  std::int64_t of;
  double per = 1;         // 1. / 8: of what eight tasks share; 8: of eight tasks together
  std::int64_t more = 0;  // what the paper counts in (or, below 0, leaves out) of the share
};

struct PaperCount {
  const char *arch, *spec;
  std::int64_t trains;
  std::vector<Share> shares = {};
};

// Models that papers count in and that have no preset, as far as counts of bottlenecks, prefixes
// and low-rank updates go: norms and positions do not matter to them.
inline Arch paper_arch(const std::string& name) {
  if (name == "bart-large") {  // Lewis et al. 2019: 12 and 12 blocks of width 1024
    Arch a = arch_named("t5-large");
    a.layers = a.encoder_layers = 12;
    a.hidden = 4096;
    return a;
  }
  if (name == "deberta-xxl") {  // He et al. 2021 (2006.03654): DeBERTa V2's largest
    Arch a = arch_named("roberta-large");
    a.width = 1536, a.layers = 48, a.heads = a.kv_heads = 24, a.hidden = 6144;
    return a;
  }
  return arch_named(name);
}

// What the shares are of. BERT-base and -large with their matrices for pooling, -large also
// without embeddings; BART-large as He et al. 2022 count it.
inline constexpr std::int64_t kBertBase = 109482240, kBertLarge = 335141888,
                              kBertLargeBody = 303358976, kBart = 406300000, kT5Base = 222903552;

inline const std::vector<PaperCount>& paper_counts() {
  static const std::vector<PaperCount> all{
      // --- Houlsby et al. 2019: 2 m d + d + m in two places a layer; all norms are their 40k ----
      {"bert-base", "houlsby:m=64,norms=no,on=mlp,layers=0", 99136},
      {"bert-base", "houlsby:m=64,norms=no", 2379264},
      {"bert-base", "houlsby:m=8,norms=no", 313536},
      {"bert-base", "houlsby:m=256,norms=no", 9461760},
      {"bert-base", "houlsby:m=64", 2379264 + 38400},
      {"bert-base", "layernorm", 38400},
      {"bert-base", "layernorm:on=norm1+norm2", 36864},
      // "~9M" in the paper; with the matrix for pooling, 590,592, it would be 7.68M.
      {"bert-base", "top:k=1", 7087872},
      {"bert-large", "houlsby:m=64,norms=no,on=attn,layers=23", 132160},
      {"bert-large", "houlsby:m=64,norms=no", 6343680},
      {"bert-large", "layernorm:on=norm1+norm2", 98304},
      // "2.1 %" leaves the embeddings out of the model; nine tasks of them are its "1.2 x".
      {"bert-large",
       "houlsby:m=64",
       6343680 + 98304 + 2048,
       {{"1.92 %", kBertLarge}, {"2.12 %", kBertLargeBody}, {"1.19 x", kBertLargeBody, 9}}},
      // --- Pfeiffer et al. 2021: one in a layer, m = d / 16 --------------------------------------
      {"bert-base", "pfeiffer", 12 * (2 * 48 * 768 + 768 + 48)},
      // --- Hu et al. 2021, LoRA: r (in + out) for each matrix ------------------------------------
      {"opt-6.7b", "lora:r=16,on=q+v", 8388608, {{"0.12582542214183376 %", 6666862592}}},
      {"gpt3-175b", "lora:r=8,on=q", 18874368},
      {"gpt3-175b", "lora:r=4,on=q+v", 18874368},
      {"gpt3-175b", "lora:r=2,on=q+k+v+o", 18874368},
      {"gpt3-175b", "lora:r=2,on=v", 4718592},  // table 15 from here on
      {"gpt3-175b", "lora:r=1", 4718592},
      {"gpt3-175b", "lora:r=2", 9437184},
      {"gpt3-175b", "lora:r=1,on=q+k+v+o", 9437184},
      {"gpt3-175b", "lora:r=8", 37748736},
      {"gpt3-175b", "lora:r=4,on=q+k+v+o", 37748736},
      {"gpt3-175b", "lora:r=64", 301989888},
      {"gpt3-175b", "lora:r=64,on=q+k+v+o", 603979776},  // "603.8M"
      {"gpt3-175b", "houlsby:m=1,norms=no", 7078080},
      {"gpt3-175b", "houlsby:m=4,norms=no", 21234432},
      {"gpt3-175b", "houlsby:m=8,norms=no", 40109568},
      {"gpt3-175b", "houlsby:m=16,norms=no", 77859840},
      {"gpt3-175b", "houlsby:m=64,norms=no", 304361472},
      // PreEmbed, l_p + 8 rows. Its first row, 40, is 0.49M against "0.4M" in the paper.
      {"gpt3-175b", "prompt:length=40", 491520},
      {"gpt3-175b", "prompt:length=72", 884736},
      {"gpt3-175b", "prompt:length=136", 1671168},
      {"gpt3-175b", "prompt:length=264", 3244032},
      {"gpt3-175b", "prompt:length=520", 6389760},
      // The paper's "BitFit 14.2M" is 12 d L = 14,155,776 at d = 12288, L = 96. A block of GPT-3
      // (Brown et al. 2020, 2.1: GPT-2's) has 11 d biases: q, k, v and o 4 d, up 4 d, down d and
      // two
      // norms 2 d. With the last norm's that is 11 d L + d, and no twelfth vector of d is there.
      {"gpt3-175b", "bitfit", 11 * 12288 * 96 + 12288},
      // Nor is its "175,255.8M" of full fine-tuning that of any published shape.
      {"gpt3-175b", "full", 174604259328},
      // The table has 0.35M and 0.77M; the released checkpoint of the first is 1.5 MB, as here.
      {"gpt2-medium", "lora:r=4,on=q+v", 393216},
      {"gpt2-large", "lora:r=4,on=q+v", 737280},
      // PEFT's LoRA on GPT-2: one A in c_attn; 294912 is what it prints for r=8.
      {"gpt2", "lora:r=8,on=q+k+v,share=qkv", 294912},
      {"roberta-base", "lora:r=8,on=q+v", 294912},
      {"roberta-large", "lora:r=256,on=q+v", 25165824},
      // "4.7M": the released scripts' r=16, not the r=8 of the paper's table.
      {"deberta-xxl", "lora:r=16", 4718592},
      {"llama-7b", "lora:r=8,on=q+v", 4194304},
      // --- Li and Liang 2021; P-tuning v2: 2 L P d for each kind of attention --------------------
      {"gpt2-medium", "prefix:length=5", 245760},
      {"gpt2-medium", "prefix:length=10", 491520},
      {"gpt2-medium", "prefix:mlp=yes", 25750016},
      // "2 %" on the paper's label of XSUM
      {"bart-large", "prefix:length=100", 7372800, {{"1.8 %", kBart}}},
      {"roberta-large", "prefix:length=8", 393216},
      {"roberta-large", "prefix:length=128", 6291456},
      // --- Lester et al. 2021: p d ---------------------------------------------------------------
      {"t5-v1_1-small", "prompt:length=100", 51200},
      {"t5-v1_1-base", "prompt:length=100", 76800},
      {"t5-v1_1-large", "prompt:length=100", 102400},
      {"t5-v1_1-xl", "prompt:length=100", 204800},
      {"t5-v1_1-xxl", "prompt", 409600},
      // --- Liu et al. 2021, P-tuning: 14 d^2 + 18 d and the template's rows ----------------------
      {"roberta-large", "ptuning", 14707712},
      {"roberta-large", "ptuning:encoder=none", 9 * 1024},
      // --- Mahabadi et al. 2021, HyperFormer, table 1: T5-base, eight tasks ----------------------
      // One hypernetwork writes 2,547,480 numbers' worth of adapters and norms; 47,616 are T5's
      // norms, 512 the tasks' embeddings, 16,576 the tasks' projector, which the paper leaves out.
      {"t5-base",
       "hyperformer++:tasks=8",
       2 * 2581464 + 47616 + 512,
       {{"0.292 %", kT5Base, 1. / 8}, {"1.023 x", kT5Base, 1, -(47616 + 512)}}},
      {"t5-base",
       "hyperformer:tasks=8",
       48 * 2547480 + 47616 + 512 + 16576,
       {{"6.860 %", kT5Base, 1. / 8, -(512 + 16576)},
        {"54.9 %", kT5Base, 1, -(47616 + 512 + 16576)},
        {"1.549 x", kT5Base, 1, -(47616 + 512 + 16576)}}},  // "1.54 x"
      // The released configuration is another model: hypernetworks shared by the layers.
      {"t5-base",
       "hyperformer:tasks=8,sharing=code,norms=no",
       4 * 2547480 + 512 + 2 * (12 * 64 + 128 * 129 + 64 * 129 + 128),
       {{"4.6 %", kT5Base}}},
      {"t5-base", "hyperformer++:tasks=9", 2 * 2581464 + 47616 + 9 * 64},
      {"t5-base", "hyperformer++:tasks=8,new=2", 2 * 64},
      {"t5-base", "hyperformer:tasks=8,new=1,task=described", 0},
      // Its adapters: a norm in each. Eight tasks that share all norms train 0.82 % each.
      {"t5-base", "layernorm", 47616},
      {"t5-base",
       "houlsby:m=24,norm=after",
       1928832,
       {{"0.865 %", kT5Base}, {"0.818 %", kT5Base, 1, -(73728 + 47616) * 7 / 8}}},
      {"t5-base",
       "houlsby:m=24,norm=after,norms=no",
       1881216,
       {{"0.844 %", kT5Base}, {"1.068 x", kT5Base, 8}}},
      {"t5-base", "full", kT5Base},
      // --- Mahabadi et al. 2021, Compacter: T5-base, reduction 32, n = 4; and ++ -----------------
      {"t5-base", "houlsby:m=24", 1807488 + 47616, {{"0.832 %", kT5Base}}},
      {"t5-base", "compacter:norms=no", 114112},
      {"t5-base", "compacter:on=mlp,norms=no", 57088},
      {"t5-base", "compacter", 114112 + 47616, {{"0.0726 %", kT5Base}}},
      {"t5-base", "compacter:on=mlp", 57088 + 47616, {{"0.04697 %", kT5Base}}},
      // --- Zhang et al. 2023, LLaMA-Adapter: K d a layer, and a gate a head ----------------------
      {"llama-7b", "llama_adapter:layers=top30", 1229760},
      {"llama-7b", "llama_adapter:layers=top30,gate=none", 1228800},
      {"llama-7b", "llama_adapter:layers=top30,gate=linear", 1228830},
      {"llama-7b", "llama_adapter:layers=top10,gate=none", 409600},
      {"llama-7b", "llama_adapter:layers=top10", 409920},
      {"llama-7b", "llama_adapter:layers=top20,gate=none", 819200},
      {"llama-7b", "llama_adapter:gate=none", 1310720},
      {"llama-7b", "full:vocabulary=yes", 6738415616},
      // --- Hu et al. 2023, LLM-Adapters: 2 m d; its README's "200M" is in three places -----------
      {"llama-7b", "series:m=256", 67108864},
      {"llama-7b", "series:on=gate+up,place=before|series:on=down", 201326592},
      // --- He et al. 2022, the unified view: 2 r d a sub-layer, BART-large -----------------------
      {"bart-large", "prefix:length=200,on=attn+cross", 14745600, {{"3.63 %", kBart}}},
      {"bart-large", "series:m=200,on=attn+cross", 14745600, {{"3.63 %", kBart}}},
      {"bart-large", "parallel:m=200,on=attn+cross,bias=no", 14745600, {{"3.63 %", kBart}}},
      {"bart-large", "parallel:m=200,bias=no", 9830400, {{"2.42 %", kBart}}},
      {"bart-large", "parallel:m=512,bias=no", 25165824, {{"6.19 %", kBart}}},  // "6.1 %"
      {"bart-large", "lora:r=30,on=q+v+xq+xv", 36 * 4 * 30 * 1024},
      {"bart-large",  // MAM, "6.7 %"
       "prefix:length=30,on=attn+cross|parallel:m=512,bias=no",
       2211840 + 25165824,
       {{"6.74 %", kBart}}},
      // With the biases, which the paper leaves out, and a trained scale.
      {"bart-large", "parallel:s=learned", 24 * (2 * 512 * 1024 + 1024 + 512 + 1)},
      // --- Ben Zaken et al. 2021: 102,912 and 272,384 with BERT's bias for pooling, which is its
      // head's here; the subset of queries and intermediate layers -------------------------------
      {"bert-base", "bitfit", 102912 - 768, {{"0.094 %", kBertBase, 1, 768}}},
      {"bert-large", "bitfit", 272384 - 1024, {{"0.081 %", kBertLarge, 1, 1024}}},
      {"bert-base", "bitfit:on=q+up", 46080, {{"0.04 %", kBertBase}}},
      // --- Liu et al. 2022, (IA)3: T0 is T5 1.1 gone on from -------------------------------------
      {"t5-v1_1-xl", "ia3", 540672},
      {"t5-v1_1-xxl", "ia3", 1081344, {{"0.01 %", 11135332352}}},
      // --- Aghajanyan et al. 2020: the lambdas are among the d -----------------------------------
      {"bert-base", "intrinsic:d=1608", 1608},
      {"roberta-large", "intrinsic:d=774,scales=none", 774},
      // --- PEFT: ["q", "v"] are those of every attention of T5, the one across included; its
      // print_trainable_parameters says 884,736 || all params: 223,788,288 ------------------------
      {"t5-base", "lora:r=8,on=q+v+xq+xv", 884736, {{"0.395 %", 223788288}}},
      {"t5-base", "lora:r=8,on=q+v", 589824},
      {"t5-base", "lora:r=8,on=xq+xv", 294912},
      {"t5-v1_1-base", "full:vocabulary=yes", 247577856},
      {"t5-v1_1-base", "full", 247577856 - 32128 * 768}};
  return all;
}

}  // namespace graft::testing
