#include "nn/models/family.h"

#include <algorithm>
#include <iterator>

#include "nn/models/config.h"
#include "nn/models/family_tables.h"

namespace graft {
namespace {

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

// Sanh et al. 2019 (1910.01108): BERT without segments and pooling, under names of its own.
Family distilbert() {
  const std::string base = "distilbert.", layer = base + "transformer.layer.{}.";
  Family f{"distilbert",
           "DistilBertForMaskedLM",
           "DistilBertModel",
           base,
           bert_switches(false),
           distilbert_keys,
           {},
           {}};
  f.arch.attention_result_dropout = false;
  f.modules = with_head({{Part::embed, kOutside, base + "embeddings.word_embeddings"},
                         {Part::position, kOutside, base + "embeddings.position_embeddings"},
                         {Part::norm_embed, kOutside, base + "embeddings.LayerNorm"},
                         {Part::block, 0, base + "transformer.layer.{}"},
                         {Part::norm1, 0, layer + "sa_layer_norm"},
                         {Part::q, 0, layer + "attention.q_lin"},
                         {Part::k, 0, layer + "attention.k_lin"},
                         {Part::v, 0, layer + "attention.v_lin"},
                         {Part::o, 0, layer + "attention.out_lin"},
                         {Part::attn, 0, layer + "attention"},
                         {Part::norm2, 0, layer + "output_layer_norm"},
                         {Part::up, 0, layer + "ffn.lin1"},
                         {Part::down, 0, layer + "ffn.lin2"},
                         {Part::mlp, 0, layer + "ffn"}},
                        "vocab_transform", "vocab_layer_norm", "vocab_projector");
  f.extras = {{base + "embeddings.position_ids"},
              {"vocab_projector.weight", base + "embeddings.word_embeddings.weight"}};
  f.head = {"DistilBertForSequenceClassification",
            {.pool = Pool::cls, .dense = true, .activation = Map::relu, .dropout = 1},
            &Arch::head_dropout};
  f.modules.push_back({Part::head_dense, kOutside, "pre_classifier"});
  f.modules.push_back({Part::head, kOutside, "classifier"});
  return f;
}

}  // namespace

const std::vector<Family>& families() {
  static const std::vector<Family> all = [] {
    std::vector<Family> list{
        bert(),
        roberta("roberta", "Roberta", "roberta.", false),
        roberta("roberta-prelayernorm", "RobertaPreLayerNorm", "roberta_prelayernorm.", true),
        roberta("xlm-roberta", "XLMRoberta", "roberta.", false),
        distilbert(),
        esm()};
    std::ranges::move(decoder_families(), std::back_inserter(list));
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

bool Family::has(Part part) const {
  return std::ranges::any_of(modules, [&](const ModuleName& m) { return m.part == part; });
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
