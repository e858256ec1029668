// PEFT's folders of (IA)3 and tuned norms: what does not fit is refused by name.
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

TEST_CASE("what enters attention's last matrix is scaled with the values, which is said") {
  const Adapted adapted(peft_fixture("ia3-bert"), "bert");
  CHECK(adapted.read.notes.size() == 1);
  contains(adapted.read.notes[0], "part of the scale of v, which is the same function");
}

TEST_CASE("of GPT-2 (IA)3 of keys and values is written with ones for the queries") {
  const Ours ours("gpt2", "ia3");
  const Folder folder;
  const auto notes = ours.write(folder.path, true);
  CHECK(notes.size() == 1);
  contains(notes[0], "what is not scaled is 1 there, and trains, too");
  const auto config = ordered_json::parse(read_file(folder / "adapter_config.json"));
  CHECK(config["target_modules"].dump() == R"(["c_attn","mlp.c_proj"])");
  CHECK(config["feedforward_modules"].dump() == R"(["mlp.c_proj"])");
  const SafetensorsReader reader(folder / "adapter_model.safetensors");
  Array l = Array::empty({48, 1});
  reader.read_f32("base_model.model.transformer.h.0.attn.c_attn.ia3_l", l);
  for (int i = 0; i < 16; ++i) CHECK(l.at(i) == 1);
  CHECK(l.at(16) != 1);
}

TEST_CASE("vectors and norms of PEFT's that do not fit are refused by name") {
  Spoilt output("ia3-llama");
  output.set("feedforward_modules", ordered_json::array());
  contains(output.error("llama"), "down_proj.ia3_l is [1, 24]; need [16, 1]");
  Spoilt excluded("ia3-llama");
  excluded.set("exclude_modules", {"k_proj"});
  contains(excluded.error("llama"), "option exclude_modules");
  Spoilt pattern("ia3-llama");
  pattern.set("target_modules", ".*proj");
  contains(pattern.error("llama"), "only a list of names is followed");
  contains(without("ia3-llama", "llama", "layers.1.self_attn.k_proj"),
           "target_modules has k_proj, but there is no model.layers.1.self_attn.k_proj.ia3_l");
  contains(without("ia3-t5", "t5", "encoder.block.0.layer.0.SelfAttention.k"),
           "k of layer 0 is adapted in one of the encoder and the decoder alone");
  contains(without("norms-t5", "t5", "encoder.final_layer_norm"),
           "norm_out is adapted in one of the encoder and the decoder alone");
  contains(without("norms-gpt2", "gpt2", "h.1.ln_1.ln_tuning_layers.bias"),
           "transformer.h.1.ln_1.ln_tuning_layers.bias is not there");
  contains(without("norms-llama", "llama", "layers.0.input_layernorm"),
           "target_modules has input_layernorm, but there is no");
  Spoilt more("norms-llama");
  more.set("target_modules", {"norm", "q_proj"});
  contains(more.error("llama"), "target_modules has q_proj; no norm is called that");
  more.rename(same, [](SafetensorsWriter& w) {
    w.add("base_model.model.model.norm.ln_tuning_layers.bias", Array::full({16}, 1));
  });
  contains(more.error("llama"), "unexpected tensor model.norm.ln_tuning_layers.bias [16]");
}
