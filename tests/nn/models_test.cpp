// Model families against transformers (tests/fixtures/models): numbers, names, keys, counts.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "nn/models/config.h"
#include "nn/models/family.h"
#include "nn/models/presets.h"
#include "tests/nn/model_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

// max|a - b| / max|b|, where b is a tensor of `file`.
double error_against(const SafetensorsReader& file, const std::string& name, const Tensor& a) {
  std::vector<float> b(file.at(name).count());
  file.read_f32(name, b);
  REQUIRE(a.shape() == file.at(name).shape);
  double difference = 0, largest = 0;
  const std::vector<double> values = a.value().to_vector();
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference = std::max(difference, std::abs(values[i] - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

std::int64_t parameters(const Arch& arch) {
  return Model(arch, Build{.storage = false}).parameters();
}

}  // namespace

TEST_CASE("hidden states and logits are those of transformers") {
  for (const std::string family : kFamilies) {
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    const SafetensorsReader outputs(fixture(family) / "outputs.safetensors");
    const Batch batch = batch_of(outputs);
    Ctx ctx;
    Sequence s = model->embed(batch, ctx);
    CHECK(error_against(outputs, "hidden.0", s.rows) <= 1e-5);
    if (s.memory)
      CHECK(error_against(outputs, fmt::format("encoder.{}", model->arch().encoder_layers),
                          s.memory->rows) <= 1e-5);
    for (int i = 0; i < model->arch().layers; ++i) {
      s = model->run_blocks(std::move(s), ctx, i, i + 1);
      if (i + 1 == model->arch().layers) s = model->finish(std::move(s), ctx);
      CHECK(error_against(outputs, fmt::format("hidden.{}", i + 1), s.rows) <= 1e-5);
    }
    CHECK(error_against(outputs, "logits", logits_of(*model, batch)) <= 1e-5);
    const auto wide = load_model(fixture(family), Dtype::f64);
    CHECK(logits_of(*wide, batch).dtype() == Dtype::f64);
    CHECK(error_against(outputs, "logits", logits_of(*wide, batch)) <= 1e-5);
  }
}

TEST_CASE("an encoder's hidden states are transformers', too") {
  for (const std::string family : {"t5", "t5-gated"}) {
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    const SafetensorsReader outputs(fixture(family) / "outputs.safetensors");
    const Batch batch = batch_of(outputs);
    Ctx ctx;
    Sequence s = model->encoder->embed(*batch.source, ctx);
    CHECK(error_against(outputs, "encoder.0", s.rows) <= 1e-5);
    s = model->encoder->run_blocks(std::move(s), ctx, 0, 1);
    CHECK(error_against(outputs, "encoder.1", s.rows) <= 1e-5);
  }
}

TEST_CASE("relative places fall into transformers' buckets") {
  for (const auto& table : ordered_json::parse(read_file(fixture("..") / "models/buckets.json"))) {
    const bool causal = table.at("causal");
    const int buckets = table.at("buckets"), distance = table.at("distance");
    CAPTURE(causal);
    CAPTURE(buckets);
    CAPTURE(distance);
    int differing = 0;
    const std::vector<int> of = table.at("of");
    REQUIRE(of.size() == 801);
    for (int place = -400; place <= 400; ++place)
      differing += relative_bucket(place, causal, buckets, distance) !=
                   of[static_cast<std::size_t>(place + 400)];
    CHECK(differing == 0);
  }
}

TEST_CASE("a T5 as transformers 4 wrote it: the vocabulary head is said by tie_word_embeddings") {
  for (const std::string family : {"t5", "t5-gated"}) {
    CAPTURE(family);
    Copy old(family);
    for (const char* key : {"scale_decoder_outputs", "is_gated_act", "dense_act_fn"})
      old.erase(key);
    old.set("tie_word_embeddings", family == "t5");
    old.set("n_positions", 512);
    old.set("output_past", true);
    old.set("task_specific_params", ordered_json{{"summarization", {{"num_beams", 4}}}});
    CHECK(load_arch(old.path) == load_arch(fixture(family)));
    CHECK(load_arch(old.path).tied == (family == "t5"));
  }
  Copy without("t5");  // of the later kind, but its head is not there
  without.set("tie_word_embeddings", false);
  without.set("scale_decoder_outputs", false);
  contains(without.error(), "lm_head.weight is missing");
  Copy wrong("t5-gated");  // of the first kind, with a head that is not the embedding
  wrong.set("scale_decoder_outputs", true);
  contains(wrong.error(), "lm_head.weight differs from shared.weight");
}

TEST_CASE("a key of config.json that would change the result is refused by name") {
  const struct {
    const char *family, *key;
    ordered_json value;
  } cases[] = {
      {"bert", "position_embedding_type", "relative_key"},
      {"bert", "is_decoder", true},
      {"bert", "add_cross_attention", true},
      {"bert", "tie_word_embeddings", false},
      {"bert", "hidden_act", "quick_gelu"},
      {"bert", "hidden_size", "16"},
      {"bert", "layer_norm_eps", nullptr},
      {"bert", "quantization_config", ordered_json{{"bits", 4}}},
      {"roberta", "pad_token_id", nullptr},
      {"roberta", "hidden_act", "relu"},
      {"roberta-prelayernorm", "max_position_embeddings", 1},
      {"gpt2", "scale_attn_by_inverse_layer_idx", true},
      {"gpt2", "scale_attn_weights", false},
      {"gpt2", "embd_pdrop", 0.3},
      {"opt", "word_embed_proj_dim", 8},
      {"opt", "do_layer_norm_before", false},
      {"opt", "_remove_final_layer_norm", true},
      {"opt", "enable_bias", false},
      {"llama", "rope_scaling", ordered_json{{"type", "linear"}, {"factor", 2.0}}},
      {"llama3", "rope_parameters", ordered_json{{"rope_type", "llama3"}, {"factor", 2.0}}},
      {"llama3", "rope_parameters",
       ordered_json{{"rope_type", "linear"}, {"factor", 2.0}, {"beta_fast", 3}}},
      {"llama3", "rope_parameters", ordered_json{{"rope_type", "linear"}, {"factor", 0.5}}},
      {"llama3", "rope_parameters", 3},
      {"llama", "rope_parameters",
       ordered_json{{"rope_theta", 1e4}, {"rope_type", "yarn"}, {"factor", 2.0}}},
      {"llama", "head_dim", 8},
      {"llama", "attention_bias", true},
      {"llama", "sliding_window", 128},
      {"llama", "rope_interleaved", true},
      {"mistral", "sliding_window", 0},
      {"mistral", "head_dim", 0},
      {"mistral", "attention_bias", true},
      {"qwen2", "use_sliding_window", true},
      {"qwen2", "layer_types", ordered_json{"full_attention", "sliding_attention"}},
      {"qwen2", "head_dim", 8},
      {"qwen3", "attention_bias", true},
      {"distilbert", "sinusoidal_pos_embds", true},
      {"distilbert", "activation", "quick_gelu"},
      {"t5", "feed_forward_proj", "gated-swish"},
      {"t5-gated", "dense_act_fn", "relu"},
      {"t5-gated", "is_gated_act", false},
      {"t5", "is_encoder_decoder", false},
      {"t5", "decoder_start_token_id", nullptr},
      {"t5", "num_layers", 0},
      {"gpt2", "decoder_start", 3},
      {"gpt2", "model_type", "gpt3"}};
  for (const auto& c : cases) {
    CAPTURE(c.family);
    Copy copy(c.family);
    copy.set(c.key, c.value);
    contains(copy.error(), c.key == std::string("model_type") ? "gpt3" : c.key);
  }
}

TEST_CASE("a key that config.json lacks is named, with the file") {
  for (const char* key : {"vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "model_type",
                          "activation_function", "layer_norm_epsilon"}) {
    Copy copy("gpt2");
    copy.erase(key);
    const std::string message = copy.error();
    contains(message, (copy / "config.json").string());
    contains(message, std::string(key) + " is missing");
  }
  Copy copy("gpt2");
  write_file_atomically(copy / "config.json",
                        R"({"model_type": "gpt2", "n_embd": 1, "n_embd": 2})");
  contains(copy.error(), "key 'n_embd' is there twice");
}

TEST_CASE("config.json as older transformers wrote it means the same") {
  Copy llama("llama");
  llama.erase("rope_parameters");
  llama.set("rope_theta", 500.0);
  llama.set("rope_scaling", nullptr);
  llama.set("torch_dtype", "float16");
  CHECK(load_arch(llama.path) == load_arch(fixture("llama")));
  llama.set("rope_parameters", ordered_json{{"rope_theta", 1e4}, {"rope_type", "default"}});
  contains(llama.error(), "rope_theta is 500, in rope_parameters 10000");
  Copy llama3("llama3");
  ordered_json scaling = ordered_json::parse(read_file(llama3 / "config.json"))["rope_parameters"];
  scaling.erase("rope_theta");
  llama3.erase("rope_parameters");
  llama3.set("rope_theta", 50.0);
  llama3.set("rope_scaling", scaling);
  CHECK(load_arch(llama3.path) == load_arch(fixture("llama3")));
}

TEST_CASE("notes of other programs in config.json change nothing") {
  Copy llama("llama");
  llama.set("is_llama_config", true);
  llama.set("rope_interleaved", false);
  llama.set("transformers.js_config", ordered_json{{"dtype", {{"cpu", "q4"}}}});
  llama.set("_num_labels", 3);
  llama.set("sentence_transformers", ordered_json{{"activation_fn", "x"}});
  llama.set("sbert_ce_default_activation_function", "torch.nn.modules.linear.Identity");
  llama.set("unsloth_version", "2025.1");
  llama.set("unsloth_fixed", true);
  CHECK(load_arch(llama.path) == load_arch(fixture("llama")));
}

TEST_CASE("config.json files of the hub describe the models that are named after them") {
  const std::pair<const char*, const char*> files[] = {
      {"bert-base", R"({"architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": false, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
        "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0",
        "type_vocab_size": 2, "use_cache": true, "vocab_size": 30522})"},
      {"roberta-base", R"({"architectures": ["RobertaForMaskedLM"], "bos_token_id": 0,
        "attention_probs_dropout_prob": 0.1, "eos_token_id": 2, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
        "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
        "model_type": "roberta", "num_attention_heads": 12, "num_hidden_layers": 12,
        "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 50265})"},
      {"gpt2", R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
        "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
        "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
        "vocab_size": 50257})"}};
  for (const auto& file : files) {
    const auto& [name, text] = file;
    CAPTURE(file.first);
    const Folder folder;
    write_file_atomically(folder / "config.json", text);
    const Arch named = arch_named(name);
    if (named.stack == Stack::encoder)
      write_file_atomically(folder / "tokenizer.json",
                            fmt::format(R"({{"added_tokens": [{{"id": {}, "content": "[MASK]"}},
                          {{"id": {}, "content": "[CLS]"}}, {{"id": {}, "content": "[SEP]"}}]}})",
                                        named.mask, named.cls, named.sep));
    CHECK(load_arch(folder.path) == named);
  }
}

TEST_CASE("every named model counts what transformers counts") {
  const std::map<std::string, std::int64_t> counts{
      {"graft-tiny", 430752},           {"graft-encoder", 6957632},
      {"graft-decoder", 6886080},       {"bert-base", 109514298},
      {"bert-large", 335174458},        {"roberta-base", 124697433},
      {"roberta-large", 355412057},     {"gpt2", 124439808},
      {"gpt2-medium", 354823168},       {"gpt2-large", 774030080},
      {"gpt2-xl", 1557611200},          {"gpt3-175b", 174604259328},
      {"opt-125m", 125239296},          {"opt-1.3b", 1315758080},
      {"opt-2.7b", 2651596800},         {"opt-6.7b", 6658473984},
      {"opt-13b", 12853473280},         {"opt-30b", 29974540288},
      {"opt-66b", 65719701504},         {"llama-7b", 6738415616},
      {"llama-13b", 13015864320},       {"graft-t5", 7791744},
      {"t5-small", 60506624},           {"t5-base", 222903552},
      {"t5-large", 737668096},          {"t5-3b", 2851598336},
      {"t5-11b", 11307321344},          {"t5-v1_1-small", 76961152},
      {"t5-v1_1-base", 247577856},      {"t5-v1_1-large", 783150080},
      {"t5-v1_1-xl", 2849757184},       {"t5-v1_1-xxl", 11135332352},
      {"flan-t5-small", 76961152},      {"flan-t5-base", 247577856},
      {"flan-t5-large", 783150080},     {"flan-t5-xl", 2849757184},
      {"flan-t5-xxl", 11135332352},     {"xlm-roberta-base", 278295186},
      {"xlm-roberta-large", 560142482}, {"distilbert-base", 66985530},
      {"mistral-7b", 7241732096},       {"qwen2-0.5b", 494032768},
      {"qwen2-1.5b", 1543714304},       {"qwen3-0.6b", 596049920}};
  CHECK(arch_names().size() == counts.size());
  for (const std::string& name : arch_names()) {
    CAPTURE(name);
    const Arch arch = arch_named(name);
    CHECK(parameters(arch) == counts.at(name));
    CHECK_NOTHROW(config_text(arch));  // reads back as the same Arch
  }
  const std::int64_t pooler = 768 * 768 + 768;
  CHECK(parameters(without_lm_head(arch_named("bert-base"))) + pooler == 109482240);
  contains(error_of([] { arch_named("gpt5"); }), "opt-6.7b");
}

TEST_CASE("parameters have the names that transformers gives them") {
  const Arch encoder = arch_named("graft-encoder"), gpt2 = arch_named("gpt2");
  CHECK(hf_name(encoder, {Stack::encoder, 11, Part::q}, "lora_A.weight") ==
        "esm.encoder.layer.11.attention.self.query.lora_A.weight");
  CHECK(hf_name(arch_named("roberta-base"), {Stack::encoder, -1, Part::embed}, "type") ==
        "roberta.embeddings.token_type_embeddings.weight");
  CHECK(hf_name(arch_named("t5-base"), {Stack::decoder, 3, Part::xv}, "lora_A.weight") ==
        "decoder.block.3.layer.1.EncDecAttention.v.lora_A.weight");
  CHECK(hf_name(arch_named("llama-7b"), {Stack::decoder, 0, Part::gate}, "weight") ==
        "model.layers.0.mlp.gate_proj.weight");
  const Place v = place_of(gpt2, {Stack::decoder, 3, Part::v}, "weight");
  CHECK(v.module == "transformer.h.3.attn.c_attn");
  CHECK(v.transposed);
  CHECK(v.piece == 2);
  CHECK(v.pieces == 3);
  contains(error_of([&] {
             hf_name(gpt2, {Stack::decoder, 3, Part::gate}, "weight");
           }),
           "family gpt2 has no place for decoder 3 gate weight");
}
