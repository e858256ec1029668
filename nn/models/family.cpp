#include "nn/models/family.h"

#include <algorithm>

#include "nn/models/config.h"

namespace graft {
namespace {

// The layer of sites outside the blocks.
constexpr int kOutside = -1;

std::string with_layer(std::string text, int layer) {
  const std::size_t at = text.find("{}");
  return at == std::string::npos ? text : text.replace(at, 2, std::to_string(layer));
}

// --- BERT and the RoBERTas: one body under several prefixes, two heads --------------------------

std::vector<ModuleName> bert_body(const std::string& base, bool pre_norm) {
  const std::string embeddings = base + "embeddings.", layer = base + "encoder.layer.{}.";
  const std::string inside = pre_norm ? "attention.LayerNorm" : "attention.output.LayerNorm";
  std::vector<ModuleName> names{
      {Part::embed, kOutside, embeddings + "token_type_embeddings", false, 0, 1, "type", "weight"},
      {Part::embed, kOutside, embeddings + "word_embeddings"},
      {Part::position, kOutside, embeddings + "position_embeddings"},
      {Part::norm_embed, kOutside, embeddings + "LayerNorm"},
      {Part::block, 0, base + "encoder.layer.{}"},
      {Part::norm1, 0, layer + inside},
      {Part::q, 0, layer + "attention.self.query"},
      {Part::k, 0, layer + "attention.self.key"},
      {Part::v, 0, layer + "attention.self.value"},
      {Part::o, 0, layer + "attention.output.dense"},
      {Part::attn, 0, layer + "attention"},
      {Part::norm2, 0, layer + (pre_norm ? "intermediate.LayerNorm" : "output.LayerNorm")},
      {Part::up, 0, layer + "intermediate.dense"},
      {Part::down, 0, layer + "output.dense"}};
  if (pre_norm) names.push_back({Part::norm_out, kOutside, base + "LayerNorm"});
  names.push_back({Part::pooler, kOutside, base + "pooler.dense"});
  return names;
}

std::vector<ModuleName> with_head(std::vector<ModuleName> names, const std::string& dense,
                                  const std::string& norm, const std::string& bias_module) {
  names.push_back({Part::lm_head, kOutside, bias_module, false, 0, 1, "bias", "bias"});
  names.push_back({Part::lm_dense, kOutside, dense});
  names.push_back({Part::lm_norm, kOutside, norm});
  return names;
}

// RoBERTa's head for whole texts, which ESM has, too; dropout before either matrix.
void add_roberta_head(Family& f, const std::string& architecture, double Arch::*dropout) {
  f.head = {architecture + "ForSequenceClassification",
            {.pool = Pool::cls, .dense = true, .dropout_in = 1, .dropout = 1},
            dropout};
  f.modules.push_back({Part::head_dense, kOutside, "classifier.dense"});
  f.modules.push_back({Part::head, kOutside, "classifier.out_proj"});
}

std::vector<ExtraName> bert_extras(const std::string& base, const std::string& head) {
  return {{base + "embeddings.position_ids"},
          {base + "embeddings.token_type_ids"},
          {base + "pooler.dense.weight"},
          {base + "pooler.dense.bias"},
          {head + "decoder.weight", base + "embeddings.word_embeddings.weight"},
          {head + "decoder.bias", head + "bias"}};
}

Arch bert_switches(bool pre_norm) {
  Arch a;
  a.pre_norm = a.final_norm = pre_norm;
  a.embed_norm = a.lm_transform = a.lm_bias = true;
  return a;
}

Family bert() {
  const std::string head = "cls.predictions.";
  Family f{"bert", "BertForMaskedLM", "BertModel", "bert.", bert_switches(false), bert_keys, {},
           {}};
  f.modules = with_head(bert_body(f.prefix, false), head + "transform.dense",
                        head + "transform.LayerNorm", "cls.predictions");
  f.extras = bert_extras(f.prefix, head);
  f.extras.push_back({"cls.seq_relationship.weight"});
  f.extras.push_back({"cls.seq_relationship.bias"});
  // The matrix for pooling that follows the body is this head's first.
  f.head = {"BertForSequenceClassification",
            {.pool = Pool::cls, .dense = true, .dropout = 1},
            &Arch::head_dropout};
  f.modules.push_back({Part::head_dense, kOutside, f.prefix + "pooler.dense"});
  f.modules.push_back({Part::head, kOutside, "classifier"});
  return f;
}

Family roberta(std::string name, const std::string& architecture, std::string prefix,
               bool pre_norm) {
  Family f{std::move(name),
           architecture + "ForMaskedLM",
           architecture + "Model",
           std::move(prefix),
           bert_switches(pre_norm),
           roberta_keys,
           {},
           {}};
  f.modules =
      with_head(bert_body(f.prefix, pre_norm), "lm_head.dense", "lm_head.layer_norm", "lm_head");
  f.extras = bert_extras(f.prefix, "lm_head.");
  add_roberta_head(f, architecture, &Arch::head_dropout);
  return f;
}

Array rotary_frequencies(const Arch& a) {
  return a.rope_theta > 0 ? rope_frequencies(a.head_width(), a.rope_theta) : Array();
}

// ESM-2 (Lin et al. 2022): RoBERTa before the norm, with rotary positions. Written for proteins,
// but nothing in it is about them except a head for contacts, which the masked model opens with.
Family esm() {
  const std::string base = "esm.", layer = base + "encoder.layer.{}.";
  Family f{"esm", "EsmForMaskedLM", "EsmModel", base, {}, esm_keys, {}, {}};
  f.arch.lm_transform = f.arch.lm_bias = true;
  f.arch.embed_dropout = false;
  f.modules = with_head({{Part::embed, kOutside, base + "embeddings.word_embeddings"},
                         {Part::position, kOutside, base + "embeddings.position_embeddings"},
                         {Part::norm_embed, kOutside, base + "embeddings.layer_norm"},
                         {Part::block, 0, base + "encoder.layer.{}"},
                         {Part::norm1, 0, layer + "attention.LayerNorm"},
                         {Part::q, 0, layer + "attention.self.query"},
                         {Part::k, 0, layer + "attention.self.key"},
                         {Part::v, 0, layer + "attention.self.value"},
                         {Part::o, 0, layer + "attention.output.dense"},
                         {Part::attn, 0, layer + "attention"},
                         {Part::norm2, 0, layer + "LayerNorm"},
                         {Part::up, 0, layer + "intermediate.dense"},
                         {Part::down, 0, layer + "output.dense"},
                         {Part::norm_out, kOutside, base + "encoder.emb_layer_norm_after"},
                         {Part::pooler, kOutside, base + "pooler.dense"}},
                        "lm_head.dense", "lm_head.layer_norm", "lm_head");
  f.extras = {
      {base + "embeddings.position_ids"},
      {base + "rotary_embeddings.inv_freq"},
      {layer + "attention.self.rotary_embeddings.inv_freq", {}, rotary_frequencies},
      // so called, star and all, in what transformers 5 saves
      {base + "encoder.layer.*.attention.self.rotary_embeddings.inv_freq"},
      {base + "pooler.dense.weight"},
      {base + "pooler.dense.bias"},
      {base + "contact_head.regression.weight",
       {},
       [](const Arch& a) {
         return Array::zeros({1, a.layers * a.heads});
       }},
      {base + "contact_head.regression.bias", {}, [](const Arch&) { return Array::zeros({1}); }},
      {"lm_head.decoder.weight", base + "embeddings.word_embeddings.weight"}};
  add_roberta_head(f, "Esm", &Arch::dropout);
  return f;
}

// --- decoders -----------------------------------------------------------------------------------

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

Family llama() {
  const std::string base = "model.", layer = base + "layers.{}.";
  Family f{"llama", "LlamaForCausalLM", "LlamaModel", base, decoder_switches(), llama_keys, {}, {}};
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
  add_decoder_head(f, "Llama");
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

const std::vector<Family>& families() {
  static const std::vector<Family> all = [] {
    std::vector<Family> list{
        bert(),
        roberta("roberta", "Roberta", "roberta.", false),
        roberta("roberta-prelayernorm", "RobertaPreLayerNorm", "roberta_prelayernorm.", true),
        esm(),
        gpt2(),
        opt(),
        llama(),
        t5()};
    for (Family& family : list) family.arch.family = family.name;
    return list;
  }();
  return all;
}

const Family& family_named(std::string_view model_type) {
  std::vector<std::string> names;
  for (const Family& family : families()) {
    if (family.name == model_type) return family;
    names.push_back(family.name);
  }
  fail("models: no family is called '{}'; the families are {}", model_type, fmt::join(names, ", "));
}

Place place_of(const Arch& arch, const Site& site, const std::string& parameter) {
  const Family& family = family_named(arch.family);
  const int layer = std::min(site.layer, 0);
  const auto at = [&](const ModuleName& m, const std::string& tensor) {
    return Place{with_layer(m.module, site.layer), tensor, m.transposed, m.piece, m.pieces};
  };
  const ModuleName* plain = nullptr;  // a line of the parameter's own comes before the module's
  const bool main = site.stack == family.arch.stack;
  for (const ModuleName& m : main ? family.modules : family.encoder) {
    if (m.part != site.part || m.layer != layer || (m.where && !(arch.*m.where))) continue;
    if (m.parameter == parameter) return at(m, m.tensor);
    if (m.parameter.empty() && !plain) plain = &m;
  }
  if (plain) return at(*plain, parameter);
  fail("models: family {} has no place for {} {}", family.name, to_string(site), parameter);
}

std::string hf_name(const Arch& arch, const Site& site, const std::string& parameter) {
  return place_of(arch, site, parameter).name();
}

}  // namespace graft
