// The tables of the families that write text.
#include <utility>

#include "nn/models/config.h"
#include "nn/models/family_tables.h"

namespace graft {
namespace {

Arch decoder_switches() {
  Arch a;
  a.stack = Stack::decoder;
  a.causal = true;
  return a;
}

// A matrix on the last token that is not padding.
void add_decoder_head(Family& f, const std::string& architecture) {
  f.head = {architecture + "ForSequenceClassification",
            {.pool = Pool::last, .bias = false, .skip_pad = true}};
  f.modules.push_back({Part::head, kOutside, "score"});
}

Family gpt2() {
  const std::string base = "transformer.", layer = base + "h.{}.";
  Family f{"gpt2", "GPT2LMHeadModel", "GPT2Model", base, decoder_switches(), gpt2_keys, {}, {}};
  f.modules = {{Part::embed, kOutside, base + "wte"},
               {Part::position, kOutside, base + "wpe"},
               {Part::block, 0, base + "h.{}"},
               {Part::norm1, 0, layer + "ln_1"},
               {Part::q, 0, layer + "attn.c_attn", true, 0, 3},
               {Part::k, 0, layer + "attn.c_attn", true, 1, 3},
               {Part::v, 0, layer + "attn.c_attn", true, 2, 3},
               {Part::o, 0, layer + "attn.c_proj", true},
               {Part::attn, 0, layer + "attn"},
               {Part::norm2, 0, layer + "ln_2"},
               {Part::up, 0, layer + "mlp.c_fc", true},
               {Part::down, 0, layer + "mlp.c_proj", true},
               {Part::mlp, 0, layer + "mlp"},
               {Part::norm_out, kOutside, base + "ln_f"},
               {Part::lm_head, kOutside, "lm_head"}};
  f.extras = {
      {layer + "attn.bias"}, {layer + "attn.masked_bias"}, {"lm_head.weight", base + "wte.weight"}};
  add_decoder_head(f, "GPT2");
  return f;
}

Family opt() {
  const std::string base = "model.decoder.", layer = base + "layers.{}.";
  Family f{"opt", "OPTForCausalLM", "OPTModel", "model.", decoder_switches(), opt_keys, {}, {}};
  f.arch.activation = Map::relu;
  f.arch.embed_dropout = false;
  f.modules = {{Part::embed, kOutside, base + "embed_tokens"},
               {Part::position, kOutside, base + "embed_positions"},
               {Part::block, 0, base + "layers.{}"},
               {Part::norm1, 0, layer + "self_attn_layer_norm"},
               {Part::q, 0, layer + "self_attn.q_proj"},
               {Part::k, 0, layer + "self_attn.k_proj"},
               {Part::v, 0, layer + "self_attn.v_proj"},
               {Part::o, 0, layer + "self_attn.out_proj"},
               {Part::attn, 0, layer + "self_attn"},
               {Part::norm2, 0, layer + "final_layer_norm"},
               {Part::up, 0, layer + "fc1"},
               {Part::down, 0, layer + "fc2"},
               {Part::norm_out, kOutside, base + "final_layer_norm"},
               {Part::lm_head, kOutside, "lm_head"}};
  f.extras = {{"lm_head.weight", base + "embed_tokens.weight"}};
  add_decoder_head(f, "OPT");
  return f;
}

// LLaMA and those that differ from it in a switch or two.
Family llama_like(std::string name, const std::string& architecture,
                  void (*keys)(ConfigKeys&, Arch&)) {
  const std::string base = "model.", layer = base + "layers.{}.";
  Family f{std::move(name),
           architecture + "ForCausalLM",
           architecture + "Model",
           base,
           decoder_switches(),
           keys,
           {},
           {}};
  f.arch.learned_positions = f.arch.biases = false;
  f.arch.rms = f.arch.gated = true;
  f.arch.activation = Map::silu;
  f.modules = {{Part::embed, kOutside, base + "embed_tokens"},
               {Part::block, 0, base + "layers.{}"},
               {Part::norm1, 0, layer + "input_layernorm"},
               {Part::q, 0, layer + "self_attn.q_proj"},
               {Part::k, 0, layer + "self_attn.k_proj"},
               {Part::v, 0, layer + "self_attn.v_proj"},
               {Part::o, 0, layer + "self_attn.o_proj"},
               {Part::attn, 0, layer + "self_attn"},
               {Part::norm2, 0, layer + "post_attention_layernorm"},
               {Part::gate, 0, layer + "mlp.gate_proj"},
               {Part::up, 0, layer + "mlp.up_proj"},
               {Part::down, 0, layer + "mlp.down_proj"},
               {Part::mlp, 0, layer + "mlp"},
               {Part::norm_out, kOutside, base + "norm"},
               {Part::lm_head, kOutside, "lm_head"}};
  f.extras = {{layer + "self_attn.rotary_emb.inv_freq"},
              {"lm_head.weight", base + "embed_tokens.weight"}};
  add_decoder_head(f, architecture);
  return f;
}

// Yang et al. 2024 (2407.10671), section 2.2: LLaMA with biases of queries, keys and values.
Family qwen2() {
  Family f = llama_like("qwen2", "Qwen2", qwen2_keys);
  f.arch.biases = f.arch.qkv_biases_alone = true;
  return f;
}

// Yang et al. 2025 (2505.09388), section 2: a norm of each head's queries and keys instead.
Family qwen3() {
  Family f = llama_like("qwen3", "Qwen3", qwen3_keys);
  const std::string layer = "model.layers.{}.self_attn.";
  f.arch.head_norms = true;
  f.modules.push_back({Part::q, 0, layer + "q_norm", false, 0, 1, "norm", "weight"});
  f.modules.push_back({Part::k, 0, layer + "k_norm", false, 0, 1, "norm", "weight"});
  return f;
}

// --- T5: an encoder and a decoder over one embedding ---------------------------------------------

std::vector<ModuleName> t5_stack(const std::string& base, bool decoder) {
  const std::string block = base + "block.{}.layer.", mlp = decoder ? "2" : "1";
  const std::string dense = block + mlp + ".DenseReluDense";
  std::vector<ModuleName> names{
      {Part::position, kOutside, base + "block.0.layer.0.SelfAttention.relative_attention_bias",
       false, 0, 1, "relative", "weight"},
      {Part::block, 0, base + "block.{}"},
      {Part::norm1, 0, block + "0.layer_norm"},
      {Part::q, 0, block + "0.SelfAttention.q"},
      {Part::k, 0, block + "0.SelfAttention.k"},
      {Part::v, 0, block + "0.SelfAttention.v"},
      {Part::o, 0, block + "0.SelfAttention.o"},
      {Part::attn, 0, block + "0.SelfAttention"},
      {Part::norm2, 0, block + mlp + ".layer_norm"},
      {Part::gate, 0, dense + ".wi_0"},
      {Part::up, 0, dense + ".wi_1", false, 0, 1, {}, {}, &Arch::gated},
      {Part::up, 0, dense + ".wi"},
      {Part::down, 0, dense + ".wo"},
      {Part::mlp, 0, dense},
      {Part::norm_out, kOutside, base + "final_layer_norm"}};
  if (!decoder) return names;
  for (const auto& [part, name] : {std::pair{Part::xq, ".q"}, std::pair{Part::xk, ".k"},
                                   std::pair{Part::xv, ".v"}, std::pair{Part::xo, ".o"}})
    names.push_back({part, 0, block + "1.EncDecAttention" + name});
  names.push_back({Part::cross, 0, block + "1.EncDecAttention"});
  names.push_back({Part::norm_x, 0, block + "1.layer_norm"});
  names.push_back({Part::lm_head, kOutside, "lm_head"});
  return names;
}

// Raffel et al. 2020 (1910.10683), and 1.1 and Flan with a gate and a vocabulary head of their own.
Family t5() {
  Family f{"t5",
           "T5ForConditionalGeneration",
           "T5Model",
           "",
           decoder_switches(),
           t5_keys,
           t5_stack("decoder.", true),
           {},
           t5_stack("encoder.", false)};
  f.encoder.push_back({Part::embed, kOutside, "shared"});
  f.arch.learned_positions = f.arch.biases = f.arch.scaled_scores = false;
  f.arch.rms = f.arch.inner_dropout = true;
  f.extras = {{"encoder.embed_tokens.weight", "shared.weight"},
              {"decoder.embed_tokens.weight", "shared.weight"},
              {"lm_head.weight", "shared.weight"},
              // of the first T5s, whose attention across has none
              {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"}};
  return f;
}

}  // namespace

std::vector<Family> decoder_families() {
  return {gpt2(),
          opt(),
          llama_like("llama", "Llama", llama_keys),
          llama_like("mistral", "Mistral", mistral_keys),
          qwen2(),
          qwen3(),
          t5()};
}

}  // namespace graft
