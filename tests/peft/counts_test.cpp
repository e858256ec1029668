// What methods train in published shapes, against the papers' figures: each recomputed from the
// paper's formula, and no weights read.
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Row {
  const char *arch, *spec;
  std::int64_t trains;
};

// BART-large's blocks (Lewis et al. 2019), 12 and 12 of width 1024, as far as counts of bottlenecks
// and low-rank updates go: norms and positions do not matter to them.
Arch bart_large() {
  Arch a = arch_named("t5-large");
  a.layers = a.encoder_layers = 12;
  a.hidden = 4096;
  return a;
}

}  // namespace

TEST_CASE("counts are those of the papers, method by method") {
  constexpr Row kRows[] = {
      // Houlsby et al. 2019: 2 m d + d + m in 24 places; all norms are their 40k
      {"bert-base", "houlsby:m=64,norms=no", 2379264},
      {"bert-base", "houlsby:m=64,norms=no,on=mlp,layers=0", 99136},
      {"bert-base", "houlsby:m=8,norms=no", 313536},
      {"bert-base", "houlsby:m=256,norms=no", 9461760},
      {"bert-base", "houlsby:m=64", 2379264 + 38400},
      {"bert-base", "layernorm", 38400},
      {"bert-base", "layernorm:on=norm1+norm2", 36864},
      {"bert-base", "top:k=1", 7087872},
      {"bert-large", "houlsby:m=64,norms=no", 6343680},
      {"bert-large", "houlsby:m=64,norms=no,on=attn,layers=23", 132160},
      {"bert-large", "layernorm:on=norm1+norm2", 98304},
      // Pfeiffer et al. 2021: one in a layer, m = d / 16
      {"bert-base", "pfeiffer", 12 * (2 * 48 * 768 + 768 + 48)},
      // Hu et al. 2021: r (in + out) for each matrix
      {"opt-6.7b", "lora:r=16,on=q+v", 8388608},
      {"gpt3-175b", "lora:r=8,on=q", 18874368},
      {"gpt3-175b", "lora:r=4,on=q+v", 18874368},
      {"gpt3-175b", "lora:r=2,on=q+k+v+o", 18874368},
      {"gpt2-medium", "lora:r=4,on=q+v", 393216},
      {"gpt2-large", "lora:r=4,on=q+v", 737280},
      {"roberta-base", "lora:r=8,on=q+v", 294912},
      {"roberta-large", "lora:r=256,on=q+v", 25165824},
      {"llama-7b", "lora:r=8,on=q+v", 4194304},
      // PEFT's LoRA on GPT-2: one A in c_attn; 294912 is what it prints for r=8
      {"gpt2", "lora:r=8,on=q+k+v,share=qkv", 294912},
      // Ben Zaken et al. 2021: 102,912 and 272,384 with BERT's bias for pooling, which is its
      // head's here; the subset of queries and intermediate layers
      {"bert-base", "bitfit", 102912 - 768},
      {"bert-large", "bitfit", 272384 - 1024},
      {"bert-base", "bitfit:on=q+up", 46080},
      // Liu et al. 2022: T0 is T5 1.1 gone on from
      {"t5-v1_1-xl", "ia3", 540672},
      {"t5-v1_1-xxl", "ia3", 1081344},
      // Mahabadi et al. 2021 (Compacter), of T5-base with reduction 32, n = 4; and ++
      {"t5-base", "compacter:norms=no", 114112},
      {"t5-base", "compacter:on=mlp,norms=no", 57088},
      {"t5-base", "compacter:on=mlp", 57088 + 47616},
      // Aghajanyan et al. 2020: the lambdas are among the d
      {"bert-base", "intrinsic:d=1608", 1608},
      {"roberta-large", "intrinsic:d=774,scales=none", 774},
      // Mahabadi et al. 2021 count T5's norms so
      {"t5-base", "layernorm", 47616}};
  for (const Row& row : kRows) {
    CAPTURE(row.arch);
    CAPTURE(row.spec);
    CHECK(counted(row.arch, row.spec).trains == row.trains);
  }
}

TEST_CASE("counts of the unified view: 2 r d a sub-layer, of BART-large's 406.3 million") {
  const Arch bart = bart_large();
  const auto share = [&](const std::string& spec) {
    return fmt::format("{:.2f}", 100.0 * double(counted(bart, spec).trains) / 406.3e6);
  };
  CHECK(share("parallel:m=200,on=attn+cross,bias=no") == "3.63");
  CHECK(share("series:m=200,on=attn+cross") == "3.63");
  CHECK(share("parallel:m=200,bias=no") == "2.42");
  CHECK(share("parallel:m=512,bias=no") == "6.19");
  CHECK(counted(bart, "lora:r=30,on=q+v+xq+xv").trains == 36 * 4 * 30 * 1024);
  // With the biases, which the paper leaves out, and a trained scale.
  CHECK(counted(bart, "parallel:s=learned").trains == 24 * (2 * 512 * 1024 + 1024 + 512 + 1));
}

TEST_CASE("shares of the models are the papers', too") {
  const auto percent = [](const char* arch, const char* spec, std::int64_t of) {
    return fmt::format("{:.3f}", 100.0 * double(counted(arch, spec).trains) / double(of));
  };
  // BERT-base and -large with their matrices for pooling.
  CHECK(percent("bert-base", "bitfit", 109482240) == "0.093");
  CHECK(percent("bert-base", "bitfit:on=q+up", 109482240) == "0.042");
  CHECK(percent("t5-v1_1-xxl", "ia3", 11135332352) == "0.010");
  // Of T5-base's 222,903,552.
  CHECK(percent("t5-base", "compacter", 222903552) == "0.073");
  CHECK(percent("t5-base", "compacter:on=mlp", 222903552) == "0.047");
  CHECK(percent("opt-6.7b", "lora:r=16,on=q+v", 6666862592) == "0.126");
}
