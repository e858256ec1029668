// The base's biases, embeddings and whole modules in PEFT's folders: what does not fit is refused.
#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::string without(const std::string& folder, const std::string& base, const std::string& part) {
  Spoilt spoilt(folder);
  spoilt.rename(
      [&](const std::string& n) { return n.find(part) != std::string::npos ? std::string() : n; });
  return spoilt.error(base);
}

}  // namespace

TEST_CASE("biases and modules that are not there, or not said to be, are refused by name") {
  contains(without("lora-only", "gpt2", "h.1.mlp.c_proj.base_layer.bias"),
           "need transformer.h.1.mlp.c_proj.base_layer.bias [16]; the file has none");
  contains(without("bias-all", "opt", "layers.0.fc2.bias"), "layers.0.fc2.bias [16]; the file has");
  Spoilt unsaid("lora-only");
  unsaid.set("bias", "none");
  contains(unsaid.error("gpt2"), "unexpected tensor transformer.h.0.attn.c_proj.base_layer.bias");
  contains(without("embed-save", "llama", "layers.1.input_layernorm"),
           "need model.layers.1.input_layernorm.weight [16]; the file has none");
  Spoilt some("embed-save");
  some.set("modules_to_save", {"lm_head", "layers.0.input_layernorm"});
  contains(some.error("llama"),
           "has some of the modules that are norm1 here, but not model.layers.1.input_layernorm");
  Spoilt tied("embed-tied");
  tied.set("modules_to_save", {"ln_1", "wte"});
  contains(tied.error("gpt2"), "modules_to_save, embed: the vocabulary's matrix goes along");
  contains(without("embed-tied", "gpt2", "lora_embedding_B"),
           "transformer.wte needs lora_A [r, 50] and lora_B [16, r]");
  Spoilt vectors("ia3-llama");
  vectors.set("modules_to_save", {"lm_head"});
  contains(vectors.error("llama"), "modules_to_save has lm_head; only a head may be there");
}

TEST_CASE("the copy of the embeddings that PEFT adds is dropped, which is said") {
  const Adapted adapted(peft_fixture("embed-save"), "llama");
  CHECK(std::ranges::count(adapted.read.notes,
                           "the folder's copy of the embeddings is taken to be the base's") == 1);
}
