// The table of methods: one row each.
#pragma once

#include "peft/adapter.h"

namespace graft {

std::unique_ptr<Adapter> make_head(Options&, const Arch&);
std::unique_ptr<Adapter> make_full(Options&, const Arch&);
std::unique_ptr<Adapter> make_top(Options&, const Arch&);
std::unique_ptr<Adapter> make_bitfit(Options&, const Arch&);
std::unique_ptr<Adapter> make_layernorm(Options&, const Arch&);
std::unique_ptr<Adapter> make_houlsby(Options&, const Arch&);
std::unique_ptr<Adapter> make_lora(Options&, const Arch&);
std::unique_ptr<Adapter> make_prompt(Options&, const Arch&);
std::unique_ptr<Adapter> make_prefix(Options&, const Arch&);
std::unique_ptr<Adapter> make_ptuning(Options&, const Arch&);
std::unique_ptr<Adapter> make_llama_adapter(Options&, const Arch&);

inline Methods all_methods() {
  return {
      {"head", "feature-based transfer; only the task's head learns", "none", "0 (+ head)", "",
       true, true, make_head, "head"},
      {"full", "full fine-tuning", "every parameter, in a private copy", "all",
       "embeddings=yes vocabulary=no", true, true, make_full, "full"},
      {"top", "Houlsby et al. 2019, 3.4: fine-tune the top k layers",
       "the upper blocks' parameters", "k (4d^2 + 2dF + ...)", "k=1", true, true, make_top,
       "top:k=1"},
      {"bitfit", "Ben Zaken et al. 2021", "every bias", "L (9d + 2F...) biases", "layers=all", true,
       true, make_bitfit, "bitfit"},
      {"layernorm", "Houlsby et al. 2019, 3.4: norms only", "every norm's gain and bias",
       "2d per norm", "", true, true, make_layernorm, "layernorm"},
      {"houlsby", "Houlsby et al. 2019, 2.1", "attention and mlp out",
       "2 L (2md + d + m) + 2d per norm", "m=64 std=0.01 on=attn+mlp f=gelu norms=yes layers=all",
       false, false, make_houlsby, "houlsby:m=3"},
      {"lora", "Hu et al. 2021, eq. 3", "linear out: q k v o gate up down",
       "r (in + out) per matrix",
       "r=8 alpha=r on=q+v dropout=0 init=gaussian scale=plain layers=all", true, true, make_lora,
       "lora:r=2,alpha=4,on=q+k+v+o+up+down"},
      {"prompt", "Lester et al. 2021, section 2", "embedding out", "p d",
       "length=100 init=random tokens=none top=5000 pooled=no in=encoder", false, false,
       make_prompt, "prompt:length=3"},
      {"prefix", "Li and Liang 2021, section 4; P-tuning v2 with layers=",
       "attention banks, embedding out (positions)",
       "2 L P d_kv per kind of attention; mlp: P d + mid (d + 1) + 2 L d_kv (mid + 1)",
       "length=10 mlp=no mid=512 init=random std=1 tokens=none positions=shift place=prefix "
       "on=attn layers=all in=both",
       false, false, make_prefix, "prefix:length=3,mlp=yes,mid=4"},
      {"ptuning", "Liu et al. 2021, section 3", "embedding out",
       "n d + the encoder's; lstm with hidden=d/2: 14 d^2 + 18 d",
       "template=9+a encoder=lstm hidden=d/2 pooled=no in=encoder", false, false, make_ptuning,
       "ptuning:template=2+t1+1+a,encoder=lstm,hidden=3"},
      {"llama_adapter", "Zhang et al. 2023, eqs. 2-8", "attention banks, gated",
       "K d + heads per layer", "length=10 gate=tanh init=zero layers=all", false, true,
       make_llama_adapter, "llama_adapter:length=3"},
  };
}

}  // namespace graft
