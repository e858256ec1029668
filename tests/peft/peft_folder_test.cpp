// Folders of Hugging Face's PEFT: read as PEFT means them, written as PEFT reads them, and refused
// where either could not say what the other does.
#include <doctest/doctest.h>

#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Row {
  const char *name, *base, *spec;
};
constexpr Row kRows[] = {
    {"roberta-dense", "roberta", "lora:r=2,alpha=4,on=q+v,dropout=0.1"},
    {"esm-dense", "esm", "lora:r=2,alpha=3,on=q+up"},
    {"gpt2-score", "gpt2", "lora:r=2,alpha=4,on=up"},
    {"bert-classifier", "bert-head", "lora:r=2,alpha=4,on=q+v"},
    {"bert-pooler", "bert", "lora:r=2,alpha=4,on=k+o+down"},
    {"llama-score", "llama", "lora:r=4,alpha=2,on=q+down,scale=rs"},
    {"llama-patterns", "llama",
     "lora:r=2,alpha=4,on=q,layers=0|lora:r=2,alpha=4,on=v|lora:r=2,alpha=5,on=gate|"
     "lora:r=3,alpha=4,on=q,layers=1"},
    {"opt-layers", "opt", "lora:r=2,alpha=4,on=o+down,layers=1"},
    {"gpt2-fused", "gpt2", "lora:r=3,alpha=6,on=q+k+v+down,share=qkv"},
    {"t5", "t5", "lora:r=2,alpha=4,on=q+v+xq"},
    {"bert-body", "bert", "lora:r=2,alpha=4,on=q+k"},
    {"bert-own", "bert", "lora:r=2,alpha=4,on=q+v"},
    {"lora-only", "gpt2", "lora:r=2,alpha=4,on=o+down,bias=lora_only"},
    {"bias-all", "opt", "lora:r=2,alpha=4,on=up,bias=all"},
    {"bias-own", "bert", "lora:r=2,alpha=4,on=q,bias=all"},
    {"embed-save", "llama", "lora:r=2,alpha=4,on=q,save=norm1+lm_head|lora:r=3,alpha=4,on=embed"},
    {"embed-tied", "gpt2",
     "lora:r=2,alpha=4,on=q+k+v,share=qkv,save=norm1|lora:r=2,alpha=4,on=embed"},
    {"ia3-bert", "bert", "ia3:on=k+v+down"},
    {"ia3-gpt2", "gpt2", "ia3:on=q+k+v+down"},
    {"ia3-llama", "llama", "ia3:on=k+v+down"},
    {"ia3-t5", "t5", "ia3:on=k+v+xk+xv+down"},
    {"norms-bert", "bert", "layernorm:on=norm_embed+norm1+norm2"},
    {"norms-gpt2", "gpt2", "layernorm:on=norm_out|layernorm:on=norm1,layers=1"},
    {"norms-llama", "llama", "layernorm:on=norm1+norm2+norm_out"},
    {"norms-t5", "t5", "layernorm:on=norm1+norm_x+norm2+norm_out"},
    {"prompt-roberta", "roberta", "prompt:length=3,pooled=yes"},
    {"prompt-llama", "llama", "prompt:length=2"},
    {"prompt-t5", "t5", "prompt:length=3"},
    {"prompt-bert-body", "bert", "prompt:length=2"},
    {"prefix-roberta", "roberta", "prefix:length=3"},
    {"prefix-bert", "bert-head", "prefix:length=2"},
    {"prefix-gpt2-score", "gpt2", "prefix:length=2"},
    {"prefix-llama", "llama", "prefix:length=3"},
    {"prefix-opt", "opt", "prefix:length=3"},
    {"ptuning-gpt2", "gpt2", "ptuning:template=3+a,encoder=none"},
    {"ptuning-esm", "esm", "ptuning:template=2+a,encoder=none,pooled=yes"},
    {"ptuning-bert", "bert-head", "ptuning:template=1+a,encoder=none,pooled=yes"},
    {"adaption-llama", "llama", "llama_adapter:length=3,gate=linear,layers=top1"}};

}  // namespace

TEST_CASE("adapters that PEFT trained give PEFT's outputs here") {
  for (const Row& row : kRows) {
    const std::string name = row.name;
    CAPTURE(name);
    Adapted adapted(peft_fixture(row.name), row.base);
    CHECK(adapted.read.spec == row.spec);
    const SafetensorsReader outputs(peft_fixture(row.name) / "outputs.safetensors");
    const Array got = adapted.output(kind_of(outputs), batch_of(outputs));
    CHECK(difference(got, expected(outputs)) <= 1e-5);
    CHECK(is_peft_folder(peft_fixture(row.name)));
    const bool scores = kind_of(outputs) == "scores",
               own = name.ends_with("-own") || name == "ia3-bert";
    CHECK(adapted.read.head.head == (!scores ? "" : own ? "linear" : "family"));
    CHECK(adapted.read.head.base_pooler == (row.base == std::string_view("bert-head")));
  }
  CHECK_FALSE(is_peft_folder(fixture("bert")));
}

TEST_CASE("target_modules is as short as names that hit nothing else allow") {
  const auto targets = [](const char* base, const char* spec) {
    const Ours ours(base, spec);
    const Folder folder;
    ours.write(folder.path, base == std::string("gpt2") || base == std::string("t5"));
    return ordered_json::parse(read_file(folder / "adapter_config.json"))["target_modules"].dump();
  };
  CHECK(targets("bert", "lora:r=1,on=q+v") == R"(["query","value"])");
  CHECK(targets("bert", "lora:r=1,on=o") == R"(["attention.output.dense"])");
  CHECK(targets("bert", "lora:r=1,on=o+down") == R"(["output.dense"])");
  CHECK(targets("bert", "lora:r=1,on=down") == R"(["0.output.dense","1.output.dense"])");
  CHECK(targets("bert", "lora:r=1,on=q,layers=1") ==
        R"(["bert.encoder.layer.1.attention.self.query"])");
  CHECK(targets("gpt2", "lora:r=1,on=q+down") == R"(["c_attn","mlp.c_proj"])");
  CHECK(targets("t5", "lora:r=1,on=q") == R"(["SelfAttention.q"])");
  CHECK(targets("t5", "lora:r=1,on=q+xq") == R"(["q"])");
}

TEST_CASE("what PEFT and graft cannot both say is refused in one error that names all of it") {
  Spoilt dora("bert-own");
  dora.set("use_dora", true);
  dora.set("bias", "some");
  dora.set("peft_knows_more", {{"x", 1}});
  dora.rename(same, [](SafetensorsWriter& w) {
    w.add("base_model.model.bert.encoder.layer.0.attention.self.query.lora_magnitude_vector",
          Array::full({16}, 1));
  });
  const std::string all = dora.error("bert");
  contains(all, "option use_dora = true is not followed here");
  contains(all, "option bias = some is not followed here");
  contains(all, "option peft_knows_more = object");
  contains(all, "unexpected tensor bert.encoder.layer.0.attention.self.query.lora_magnitude");
}

TEST_CASE("options of PEFT's LoRA that change the result are not read over") {
  const auto refused = [](const char* key, const ordered_json& value, const std::string& why) {
    Spoilt folder("bert-own");
    folder.set(key, value);
    const std::string option = key;
    CAPTURE(option);
    contains(folder.error("bert"), why);
  };
  refused("peft_type", "VERA", "peft_type is 'VERA'; this version follows LORA, PROMPT_TUNING, ");
  refused("task_type", "TOKEN_CLS", "task_type TOKEN_CLS is not followed here");
  refused("modules_to_save", {"embed_tokens"}, "modules_to_save has embed_tokens");
  refused("init_lora_weights", "pissa", "changes the base's weights before training");
  refused("target_modules", ".*query|.*value", "only a list of names is followed");
  refused("target_modules", {"query"},
          "bert.encoder.layer.0.attention.self.value is in the file, but not in target_modules");
  refused("target_modules", {"query", "value", "key"},
          "has key, but there is no bert.encoder.layer.0.attention.self.key.lora_A.weight");
  refused("target_modules", {"query", "value", "q_proj"}, "has q_proj; no linear is called that");
  refused("target_modules", {1, 2}, "is not a list of names");
  refused("layers_to_transform", 0,
          "layer.1.attention.self.query is in the file, but not in target_modules and layers_to_t");
  refused("layers_to_transform", {"0"}, "need numbers of layers");
  refused("exclude_modules", {"query"}, "option exclude_modules");
  refused("r", 3, "has rank 2, the configuration says 3");
  refused("r", "two", "another type or size");
  refused("lora_alpha", 1e300, "another type or size");
  refused("rank_pattern", {{"query", 3}}, "has rank 2, the configuration says 3");
  refused("rank_pattern", {{"quer(y|x)", 2}}, "only names and numbers are followed");
  refused("alpha_pattern", {{"key", 3}}, "no module that is adapted matches 'key'");
  refused("lora_bias", true, "option lora_bias");
}

TEST_CASE("of BERT's head PEFT's folder may hold the matrix for pooling, if it says so") {
  Spoilt unsaid("bert-pooler");
  unsaid.set("modules_to_save", {"classifier", "score"});
  contains(unsaid.error("bert"), "unexpected tensor bert.pooler.dense.weight [16, 16]");
  Spoilt missing("bert-classifier");
  missing.set("modules_to_save", {"pooler"});
  contains(missing.error("bert"), "needs bert.pooler.dense.weight [16, 16] and bert.pooler");
  Spoilt other("bert-classifier");
  other.set("modules_to_save", {"classifier", "encodings"});
  contains(other.error("bert"), "only a head may be there: classifier or score, and pooler");
  Spoilt roberta("roberta-dense");
  roberta.set("modules_to_save", {"pooler"});
  contains(roberta.error("roberta"), "modules_to_save has pooler; only a head may be there");
  Spoilt t5("t5");
  t5.set("task_type", "SEQ_CLS");
  t5.rename(same, [](SafetensorsWriter& w) {
    w.add("base_model.model.classifier.weight", Array::full({2, 16}, 1));
  });
  contains(t5.error("t5"), "the class of family t5 has a head that is not followed here");
}

TEST_CASE("tensors that are missing, unknown or of another shape are refused by name") {
  const std::string q = "base_model.model.bert.encoder.layer.1.attention.self.query.";
  const auto refused = [&](const std::function<std::string(const std::string&)>& change,
                           const std::function<void(SafetensorsWriter&)>& add,
                           const std::string& why) {
    Spoilt folder("bert-own");
    folder.rename(change, add);
    contains(folder.error("bert"), why);
  };
  refused([&](const std::string& n) { return n == q + "lora_B.weight" ? "" : n; }, {},
          "query needs lora_A [r, 16] and lora_B [16, r]");
  refused([&](const std::string& n) { return n == q + "lora_B.weight" ? "" : n; },
          [&](SafetensorsWriter& w) {
            w.add(q + "lora_B.weight", Array::full({15, 2}, 1));
          },
          "query needs lora_A [r, 16] and lora_B [16, r]; the file has [2, 16] and [15, 2]");
  refused([&](const std::string& n) { return n.starts_with(q) ? "" : n; }, {},
          "there is no bert.encoder.layer.1.attention.self.query.lora_A.weight");
  refused([&](const std::string& n) { return n == q + "lora_B.weight" ? "" : n; },
          [&](SafetensorsWriter& w) {
            w.add(q + "lora_B.weight", Array::full({16, 2}, NAN));
          },
          "lora_B.weight [16, 2]: NaN at [0, 0]; the run that wrote it went astray");
  Spoilt narrow("bert-own");
  narrow.rename([&](const std::string& n) { return n == q + "lora_A.weight" ? "" : n; },
                [&](SafetensorsWriter& w) {
                  w.add(q + "lora_A.weight", Array::full({2, 15}, 1));
                });
  const std::string said = narrow.error("bert");
  contains(said, "query needs lora_A [r, 16] and lora_B [16, r]; the file has [2, 15]");
  CHECK(said.find("there is no") == std::string::npos);
  refused(
      same, [](SafetensorsWriter& w) { w.add("lora", Array::full({1}, 1)); },
      "unexpected tensor lora");
  refused([](const std::string& n) { return n.ends_with("classifier.bias") ? "" : n; }, {},
          "the head needs classifier.weight [classes, 16] and classifier.bias");
  Spoilt empty("bert-own");
  empty.rename([](const std::string&) { return ""; },
               [](SafetensorsWriter& w) { w.add("base_model.model.x", Array::full({1}, 1)); });
  contains(empty.error("bert"), "no linear of the model has a lora_A");
  Spoilt none("bert-own");
  fs::remove(none / "adapter_model.safetensors");
  contains(none.error("bert"), "has no adapter_model.safetensors");
}

TEST_CASE("of an encoder-decoder an adapter in one stack alone is refused") {
  Spoilt folder("t5");
  folder.rename([](const std::string& n) {
    return n.find("encoder.block") != std::string::npos ? std::string() : n;
  });
  const std::string all = folder.error("t5");
  contains(all, "q of layer 0 is adapted otherwise in the encoder than in the decoder");
  Spoilt layers("t5");
  layers.set("layers_to_transform", 0);
  contains(layers.error("t5"), "different layers in different versions of PEFT");
}

TEST_CASE("adapters that PEFT has no words for are not written") {
  const auto refused = [](const char* base, const char* spec, const std::string& why) {
    const Ours ours(base, spec);
    const Folder folder;
    contains(error_of([&] { ours.write(folder / "x", true); }), why);
    CHECK(!fs::exists(folder / "x"));
  };
  refused("bert", "houlsby:m=2", "has no counterpart in PEFT that this version writes");
  refused("gpt2", "lora:r=2,save=embed", "the vocabulary's matrix goes along with the embeddings");
  refused("bert", "lora:r=2,save=lm_head", "the bias of the vocabulary is no module of its own");
  refused("gpt2", "lora:r=2,on=q,bias=lora_only", "train q, k and v alike");
  refused("bert", "lora:r=2,on=q,bias=lora_only|lora:r=2,on=v", "parts with different bias=");
  refused("t5", "lora:r=2,on=embed", "adapts the embeddings of an encoder-decoder");
  refused("bert", "ia3|layernorm", "has no counterpart in PEFT");
  refused("bert", "lora:r=2|bitfit", "has no counterpart in PEFT");
  refused("bert", "lora:r=2,on=q|lora:r=2,on=v,scale=rs", "different scale= or dropout=");
  refused("gpt2", "lora:r=2,on=q|lora:r=2,alpha=5,on=v", "are scaled by 1 and 2.5");
}
