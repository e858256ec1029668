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
std::unique_ptr<Adapter> make_pfeiffer(Options&, const Arch&);
std::unique_ptr<Adapter> make_parallel(Options&, const Arch&);
std::unique_ptr<Adapter> make_series(Options&, const Arch&);
std::unique_ptr<Adapter> make_compacter(Options&, const Arch&);
std::unique_ptr<Adapter> make_ia3(Options&, const Arch&);
std::unique_ptr<Adapter> make_lora(Options&, const Arch&);
std::unique_ptr<Adapter> make_prompt(Options&, const Arch&);
std::unique_ptr<Adapter> make_prefix(Options&, const Arch&);
std::unique_ptr<Adapter> make_ptuning(Options&, const Arch&);
std::unique_ptr<Adapter> make_llama_adapter(Options&, const Arch&);
std::unique_ptr<Adapter> make_hyperformer(Options&, const Arch&);
std::unique_ptr<Adapter> make_hyperformer_plus(Options&, const Arch&);
std::unique_ptr<Adapter> make_qknorm(Options&, const Arch&);
std::unique_ptr<Adapter> make_intrinsic(Options&, const Arch&);

inline Methods all_methods() {
  return {
      {"head", "feature-based transfer; only the task's head learns", "none", "0 (+ head)", "",
       true, true, make_head, "head"},
      {"full", "full fine-tuning", "every parameter, in a private copy", "all",
       "embeddings=yes vocabulary=no", true, true, make_full, "full"},
      {"top", "Houlsby et al. 2019, 3.4: fine-tune the top k layers",
       "the upper blocks' parameters", "k (4d^2 + 2dF + ...)", "k=1", true, true, make_top,
       "top:k=1"},
      {"bitfit", "Ben Zaken et al. 2021", "every bias", "L (9d + 2F...) biases",
       "on=all layers=all", true, true, make_bitfit, "bitfit"},
      {"layernorm", "Houlsby et al. 2019, 3.4: norms only", "every norm's gain and bias",
       "2d per norm", "on=all layers=all", true, true, make_layernorm, "layernorm"},
      {"houlsby", "Houlsby et al. 2019, 2.1", "attention and mlp out",
       "2 L (2md + d + m) + 2d per norm",
       "m=64 on=attn+mlp place=serial f=gelu init=truncated std=0.01 s=1 norm=none gamma=1 "
       "bias=yes "
       "norms=yes dropout=0 layers=all",
       false, false, make_houlsby, "houlsby:m=3"},
      {"pfeiffer", "Pfeiffer et al. 2021", "mlp out", "L (2md + d + m)",
       "m=d/16 on=mlp place=joined f=relu init=normal std=0.02 and houlsby's others", false, false,
       make_pfeiffer, "pfeiffer:m=3"},
      {"parallel", "He et al. 2022, table 1 and 4.6", "mlp out", "L (2md + d + m)",
       "m=d/2 on=mlp place=parallel f=relu init=mam s=4 and houlsby's others; linears", false, true,
       make_parallel, "parallel:m=3"},
      {"series", "Hu et al. 2023 (LLM-Adapters), eq. 3", "mlp out, or linear out", "2md each",
       "m=256 on=mlp place=serial f=tanh init=normal std=0.02 bias=no and houlsby's others; "
       "linears",
       false, false, make_series, "series:m=3"},
      {"compacter", "Mahabadi et al. 2021 (Compacter), section 3", "attention, cross and mlp out",
       "n^3 + 2 L 3 (d + m) + 2d per norm",
       "n=4 m=d/32 on=attn+mlp f=gelu_tanh norms=yes layers=all", false, false, make_compacter,
       "compacter:n=2,m=4"},
      {"ia3", "Liu et al. 2022, 3.3", "linear out of k v, mlp hidden", "L (2 d_kv + d_ff)",
       "on=k+v+xk+xv+down layers=all", true, true, make_ia3, "ia3"},
      {"lora", "Hu et al. 2021, eq. 3", "linear out: q k v o gate up down; embedding out",
       "r (in + out) per matrix; share=qkv: in once for q, k and v",
       "r=8 alpha=r on=q+v (or all, embed) ranks= alphas= share=none dropout=0 init=gaussian "
       "scale=plain bias=none save= layers=all",
       true, true, make_lora, "lora:r=2,alpha=4,on=q+k+v+o+up+down"},
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
      {"hyperformer", "Mahabadi et al. 2021, eqs. 1-5", "attention and mlp out, written by task",
       "2 L (i + 1) (2 d m + m + 3 d) + tasks t + h (t + 1) + i (h + 1) + 2d per norm",
       "tasks=1 use= task=learned examples=16 tokens= new=0 t=64 hidden=128 i=64 m=d/32 f=gelu "
       "std=0.01 norm=conditional norms=yes sharing=paper on=attn+mlp layers=all",
       false, false, make_hyperformer, "hyperformer:tasks=2,use=1,t=3,hidden=4,i=3,m=2"},
      {"hyperformer++", "Mahabadi et al. 2021, 2.4", "attention and mlp out, written by task",
       "tasks t + 2d per norm + per stack (i + 1) (2 d m + m + 3 d) + (L + 2) t + h (3t + 1) + "
       "i (h + 3)",
       "tasks=1 and hyperformer's others, without sharing=", false, false, make_hyperformer_plus,
       "hyperformer++:tasks=2,use=1,t=3,hidden=4,i=3,m=2"},
      {"qknorm", "Henry et al. 2020, eq. 4", "attention banks (q, k)",
       "2 per attention (g and a gate)",
       "length=72 (or data) gate=learned learn=yes on=attn layers=all", false, true, make_qknorm,
       "qknorm:length=5"},
      {"intrinsic", "Aghajanyan et al. 2020, section 3", "edits of every parameter", "d",
       "d=1000 scales=layer (tensor: the code's, none: DID) project=whole (tensor) on=all "
       "layers=all "
       "vocabulary=no seed=0",
       true, true, make_intrinsic, "intrinsic:d=200"},
  };
}

}  // namespace graft
