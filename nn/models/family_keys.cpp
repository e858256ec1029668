// What each family's keys in config.json mean.
#include <algorithm>
#include <utility>

#include "nn/models/config.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

// Keys of any family. The first list: bookkeeping, starts of training, labels (heads.h reads them),
// generation.
void common_keys(ConfigKeys& k) {
  k.unused(
      "architectures model_type transformers_version _name_or_path name_or_path dtype "
      "torch_dtype use_cache return_dict output_attentions output_hidden_states "
      "torchscript use_bfloat16 tf_legacy_loss output_past _attn_implementation_autoset "
      "chunk_size_feed_forward gradient_checkpointing initializer_range init_std "
      "initializer_factor num_labels id2label label2id problem_type "
      "finetuning_task task_specific_params tokenizer_class prefix "
      "max_length min_length do_sample early_stopping num_beams "
      "num_beam_groups diversity_penalty temperature top_k top_p typical_p "
      "repetition_penalty length_penalty no_repeat_ngram_size "
      "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores "
      "return_dict_in_generate forced_bos_token_id forced_eos_token_id "
      "remove_invalid_values exponential_decay_length_penalty suppress_tokens "
      "begin_suppress_tokens");
  // Notes of other programs, which no model class reads.
  k.unused(
      "_num_labels is_llama_config transformers.js_config sentence_transformers "
      "sbert_ce_default_activation_function unsloth_version unsloth_fixed");
  k.only("rope_interleaved", false);
  k.only("add_cross_attention", false);
  k.only("cross_attention_hidden_size", nullptr);
  k.only("tie_encoder_decoder", false);
  k.only("pruned_heads", Json::object());
}

// Of models with one stack.
void single_keys(ConfigKeys& k) {
  common_keys(k);
  k.unused("decoder_start_token_id");
  k.only("is_encoder_decoder", false);
}

// The keys that the BERT and RoBERTa encoders share.
void encoder_keys(ConfigKeys& k, Arch& a) {
  single_keys(k);
  k.need("vocab_size", a.vocab);
  k.need("hidden_size", a.width);
  k.need("num_hidden_layers", a.layers);
  k.need("num_attention_heads", a.heads);
  k.need("intermediate_size", a.hidden);
  k.need("type_vocab_size", a.token_types);
  k.need("hidden_act", a.activation);
  k.need("layer_norm_eps", a.norm_eps);
  k.need("hidden_dropout_prob", a.dropout);
  k.optional("attention_probs_dropout_prob", a.attention_dropout, 0.1);
  k.optional("classifier_dropout", a.head_dropout, a.dropout);
  k.unused(
      "directionality pooler_fc_size pooler_type pooler_num_attention_heads pooler_num_fc_layers "
      "pooler_size_per_head");
  k.only("position_embedding_type", "absolute");
  k.only("is_decoder", false);
  k.only("tie_word_embeddings", true);
  k.id("mask_token_id", a.mask);
  a.kv_heads = a.heads;
}

void decoder_keys(ConfigKeys& k, Arch& a, int pad, int bos, int eos) {
  single_keys(k);
  k.unused("is_decoder classifier_dropout");  // the latter: of a head for tokens
  k.id("pad_token_id", a.pad, pad);
  k.id("bos_token_id", a.cls, bos);
  k.id("eos_token_id", a.sep, eos);
  k.id("mask_token_id", a.mask);
}

}  // namespace

void bert_keys(ConfigKeys& k, Arch& a) {
  encoder_keys(k, a);
  k.need("max_position_embeddings", a.positions);
  k.id("pad_token_id", a.pad, 0);
  k.id("cls_token_id", a.cls);
  k.id("sep_token_id", a.sep);
  k.unused("bos_token_id eos_token_id");
}

// RoBERTa's table of positions begins with the padding's own, so text starts at pad + 1.
void roberta_keys(ConfigKeys& k, Arch& a) {
  encoder_keys(k, a);
  int rows = a.positions + a.position_offset;
  k.need("max_position_embeddings", rows);
  k.id("pad_token_id", a.pad, 1);
  k.id("bos_token_id", a.cls, 0);
  k.id("eos_token_id", a.sep, 2);
  k.unused("cls_token_id sep_token_id");
  a.position_offset = a.pad + 1;
  a.positions = rows - a.position_offset;
  if (a.pad < 0) k.problem("pad_token_id is null; positions are counted from it");
  if (a.positions < 1)
    k.problem(fmt::format("max_position_embeddings is {}, of which the padding takes {}", rows,
                          a.position_offset));
  if (a.activation != Map::gelu)
    k.problem("hidden_act is not gelu, which this family's vocabulary head always has");
}

void distilbert_keys(ConfigKeys& k, Arch& a) {
  single_keys(k);
  k.need("vocab_size", a.vocab);
  k.need("dim", a.width);
  k.need("n_layers", a.layers);
  k.need("n_heads", a.heads);
  k.need("hidden_dim", a.hidden);
  k.need("max_position_embeddings", a.positions);
  k.need("activation", a.activation);
  k.need("dropout", a.dropout);
  k.optional("attention_dropout", a.attention_dropout, 0.1);
  k.optional("seq_classif_dropout", a.head_dropout, 0.2);
  k.unused("qa_dropout bos_token_id eos_token_id");
  k.only("sinusoidal_pos_embds", false);  // which would stay as they are while the rest trains
  k.only("is_decoder", false);
  k.only("tie_weights_", true);
  k.only("tie_word_embeddings", true);
  k.id("pad_token_id", a.pad, 0);
  k.id("cls_token_id", a.cls);
  k.id("sep_token_id", a.sep);
  k.id("mask_token_id", a.mask);
  a.kv_heads = a.heads;
  a.norm_eps = 1e-12;  // has no key
}

void esm_keys(ConfigKeys& k, Arch& a) {
  single_keys(k);
  int rows = a.positions + a.position_offset;
  bool rotary = a.rope_theta > 0;
  k.need("vocab_size", a.vocab);
  k.need("hidden_size", a.width);
  k.need("num_hidden_layers", a.layers);
  k.need("num_attention_heads", a.heads);
  k.need("intermediate_size", a.hidden);
  k.need("max_position_embeddings", rows);
  k.need("layer_norm_eps", a.norm_eps);
  k.need("hidden_dropout_prob", a.dropout);
  k.optional("emb_layer_norm_before", a.embed_norm, false);
  k.choice("position_embedding_type", rotary, "rotary", "absolute", false);
  k.optional("attention_probs_dropout_prob", a.attention_dropout, 0.1);
  k.unused("classifier_dropout vocab_list cls_token_id sep_token_id rope_theta");
  k.write("token_dropout", false);
  k.only("token_dropout", false);
  k.only("is_folding_model", false);
  k.only("esmfold_config", nullptr);
  k.only("is_decoder", false);
  k.only("tie_word_embeddings", true);
  k.id("pad_token_id", a.pad);
  k.id("bos_token_id", a.cls);
  k.id("eos_token_id", a.sep, 2);
  k.id("mask_token_id", a.mask);
  if (rotary) k.optional("rope_theta", a.rope_theta, 10000.0);
  if (rotary && a.rope_theta == 0) k.problem("rope_theta is 0");
  a.kv_heads = a.heads;
  a.learned_positions = !rotary;
  // Learned positions are counted from the padding's own, as RoBERTa's are.
  if (!rotary && a.pad < 0) k.problem("pad_token_id is null; positions are counted from it");
  a.position_offset = rotary ? 0 : a.pad + 1;
  a.positions = rows - a.position_offset;
  if (a.positions < 1) k.problem(fmt::format("max_position_embeddings is {}", rows));
}

void gpt2_keys(ConfigKeys& k, Arch& a) {
  decoder_keys(k, a, -1, 50256, 50256);
  k.need("vocab_size", a.vocab);
  // The standard ids are of GPT-2's own vocabulary: one that a smaller one lacks is none.
  if (a.cls >= a.vocab) a.cls = -1;
  if (a.sep >= a.vocab) a.sep = -1;
  k.need("n_positions", a.positions);
  k.need("n_embd", a.width);
  k.need("n_layer", a.layers);
  k.need("n_head", a.heads);
  k.optional("n_inner", a.hidden, 4 * a.width);
  k.need("activation_function", a.activation);
  k.need("layer_norm_epsilon", a.norm_eps);
  k.need("resid_pdrop", a.dropout);
  k.same("embd_pdrop", a.dropout);
  k.optional("attn_pdrop", a.attention_dropout, 0.1);
  k.optional("tie_word_embeddings", a.tied, true);
  k.only("scale_attn_weights", true);
  k.only("scale_attn_by_inverse_layer_idx", false);
  k.unused(
      "n_ctx n_special predict_special_tokens reorder_and_upcast_attn "
      "summary_type summary_use_proj summary_activation summary_proj_to_labels "
      "summary_first_dropout");
  a.kv_heads = a.heads;
}

void opt_keys(ConfigKeys& k, Arch& a) {
  decoder_keys(k, a, 1, 2, 2);
  k.need("vocab_size", a.vocab);
  k.need("max_position_embeddings", a.positions);
  k.need("hidden_size", a.width);
  k.need("num_hidden_layers", a.layers);
  k.need("num_attention_heads", a.heads);
  k.need("ffn_dim", a.hidden);
  k.need("activation_function", a.activation);
  k.need("dropout", a.dropout);
  k.optional("attention_dropout", a.attention_dropout, 0.0);
  k.optional("tie_word_embeddings", a.tied, true);
  k.only("word_embed_proj_dim", a.width);
  k.only("do_layer_norm_before", true);
  k.only("_remove_final_layer_norm", false);
  k.only("enable_bias", true);
  k.only("layer_norm_elementwise_affine", true);
  k.only("layerdrop", 0);
  k.unused("activation_dropout");  // transformers reads it over, too
  a.kv_heads = a.heads;
  a.position_offset = 2;
  a.norm_eps = 1e-5;  // has no key
}

namespace {

// What LLaMA and its like have in common; `kv`: heads of keys where the file says nothing.
void llama_kind(ConfigKeys& k, Arch& a, int kv, int bos, int eos) {
  decoder_keys(k, a, -1, bos, eos);
  k.need("vocab_size", a.vocab);
  k.need("max_position_embeddings", a.positions);
  k.need("hidden_size", a.width);
  k.need("num_hidden_layers", a.layers);
  k.need("num_attention_heads", a.heads);
  const bool said = k.values.contains("num_key_value_heads");  // null: as many as heads
  k.optional("num_key_value_heads", a.kv_heads, said || kv == 0 ? a.heads : kv);
  k.need("intermediate_size", a.hidden);
  k.need("hidden_act", a.activation);
  k.need("rms_norm_eps", a.norm_eps);
  k.optional("tie_word_embeddings", a.tied, false);
  k.rope(a.rope_theta, a.rope_scaling);
  k.optional("attention_dropout", a.attention_dropout, 0.0);
  a.dropout = 0;  // has no key
}

// The width of a head where it need not be that of the model over the heads; `otherwise` 0: that.
void head_dim(ConfigKeys& k, Arch& a, int otherwise) {
  const int even = a.heads > 0 ? a.width / a.heads : 0;
  int size = a.head_size > 0 ? a.head_size : even;
  k.optional("head_dim", size, otherwise > 0 ? otherwise : even);
  if (size < 1) k.problem(fmt::format("head_dim is {}; need 1 or more", size));
  a.head_size = size == even && a.heads > 0 && a.width % a.heads == 0 ? 0 : size;
}

// Qwen's, of which released models use none.
void no_windows(ConfigKeys& k, const Arch& a) {
  constexpr int kMost = 512;  // layers that may be
  k.only("use_sliding_window", false);
  k.unused("sliding_window max_window_layers");
  k.only("layer_types",
         Json(std::vector<std::string>(static_cast<std::size_t>(std::clamp(a.layers, 0, kMost)),
                                       "full_attention")));
}

}  // namespace

void llama_keys(ConfigKeys& k, Arch& a) {
  llama_kind(k, a, 0, 1, 2);
  k.only("head_dim", a.heads > 0 ? a.head_width() : 0);
  k.only("attention_bias", false);
  k.only("mlp_bias", false);
  k.unused("pretraining_tp max_sequence_length");
}

void mistral_keys(ConfigKeys& k, Arch& a) {
  llama_kind(k, a, 8, 1, 2);
  head_dim(k, a, 0);
  // Without the key it is 4096, with null there is none. One that all positions fit in is none.
  int window = a.window > 0 ? a.window : -1;
  k.id("sliding_window", window, 4096);
  if (window == 0) k.problem("sliding_window is 0; need 1 or more, or null");
  a.window = window < a.positions ? std::max(window, 0) : 0;
}

void qwen2_keys(ConfigKeys& k, Arch& a) {
  llama_kind(k, a, 32, -1, -1);
  k.only("head_dim", a.heads > 0 ? a.head_width() : 0);
  no_windows(k, a);
}

void qwen3_keys(ConfigKeys& k, Arch& a) {
  llama_kind(k, a, 32, -1, -1);
  head_dim(k, a, 128);
  no_windows(k, a);
  k.only("attention_bias", false);
}

namespace {

// "relu", "gated-gelu", "gated-silu" ...: transformers takes gated-gelu's gelu for its tanh form,
// which is what the released 1.1 models have, and plain "gelu" for the one with erf.
void feed_forward(ConfigKeys& k, Arch& a) {
  constexpr std::pair<const char*, Map> kinds[] = {
      {"relu", Map::relu}, {"gelu", Map::gelu}, {"gelu_new", Map::gelu_tanh}, {"silu", Map::silu}};
  std::string kind;
  for (const auto& [name, map] : kinds)
    if (map == a.activation) kind = name;
  if (a.gated) kind = a.activation == Map::gelu_tanh ? "gated-gelu" : "gated-" + kind;
  k.text("feed_forward_proj", kind, "relu");
  k.write("is_gated_act", a.gated);
  a.gated = kind.starts_with("gated-");
  k.only("is_gated_act", a.gated);
  const std::string name = kind == "gated-gelu" ? "gelu_new" : kind.substr(a.gated ? 6 : 0);
  for (const auto& [known, map] : kinds)
    if (name == known) {
      a.activation = map;
      k.only("dense_act_fn", name);
      k.write("dense_act_fn", name);
      return;
    }
  k.problem(
      fmt::format("feed_forward_proj is \"{}\"; need relu, gelu, gelu_new or silu, or one of "
                  "them after gated-",
                  kind));
}

}  // namespace

void t5_keys(ConfigKeys& k, Arch& a) {
  common_keys(k);
  k.need("vocab_size", a.vocab);
  k.need("d_model", a.width);
  k.need("d_kv", a.head_size);
  k.need("d_ff", a.hidden);
  k.need("num_layers", a.encoder_layers);
  k.optional("num_decoder_layers", a.layers, a.encoder_layers);
  k.need("num_heads", a.heads);
  k.optional("relative_attention_num_buckets", a.relative_buckets, 32);
  k.optional("relative_attention_max_distance", a.relative_distance, 128);
  k.need("dropout_rate", a.dropout);
  k.need("layer_norm_epsilon", a.norm_eps);
  feed_forward(k, a);
  k.id("pad_token_id", a.pad, 0);
  k.id("eos_token_id", a.sep, 1);
  k.id("decoder_start_token_id", a.start, a.pad);
  k.only("is_encoder_decoder", true);
  k.write("is_encoder_decoder", true);
  k.unused("n_positions bos_token_id is_decoder classifier_dropout");
  // transformers 5 no longer says by tie_word_embeddings whether the vocabulary head is a matrix of
  // its own, but by the weights; and has a key for what used to follow from it.
  k.optional("tie_word_embeddings", a.tied, true);
  k.optional("scale_decoder_outputs", a.scaled_lm, a.tied);
  a.kv_heads = a.heads;
  if (a.encoder_layers < 1) k.problem("num_layers is 0; need an encoder");
  if (a.head_size < 1) k.problem("d_kv is 0");
  if (a.start < 0) k.problem("decoder_start_token_id is null; need what the decoder begins with");
}

}  // namespace graft
