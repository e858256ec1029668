// Model folders, adapters and tokenizers that are wrong or mean harm: one clear Error each.
#include <doctest/doctest.h>

#include <fstream>
#include <limits>

#include "nn/files/strict_json.h"
#include "nn/models/config.h"
#include "nn/text/tokenizer.h"
#include "peft/files.h"
#include "tests/nn/model_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr const char* kAdapter =
    R"({"format": "graft-adapter-1", "spec": "lora:r=2", "more": {"model": "m"}})";

std::string with(std::string text, const std::string& old, const std::string& fresh) {
  const std::size_t at = text.find(old);
  REQUIRE(at != std::string::npos);
  return text.replace(at, old.size(), fresh);
}

// What opening a folder with one more file of this text says.
std::string model_error(const std::string& family, const char* name, const std::string& text) {
  Copy copy(family);
  std::ofstream(copy / name, std::ios::binary) << text;
  return copy.error();
}

std::string adapter_error(const std::string& config) {
  const Folder folder;
  std::ofstream(folder / "adapter_config.json", std::ios::binary) << config;
  return error_of([&] { read_adapter_config(folder.path); });
}

std::string tokenizer_error(const std::string& text, const std::string& read = "") {
  const Folder folder;
  std::ofstream(folder / "tokenizer.json", std::ios::binary) << text;
  return error_of([&] { (void)Tokenizer::load(folder.path).encode_marked(read); });
}

// Every file of JSON, as a function from its text to the Error that reading it throws.
struct JsonReader {
  const char* name;
  std::function<std::string(const std::string&)> error;
  std::string valid;
};

std::vector<JsonReader> json_readers() {
  const fs::path tokenizer = fixture("..").parent_path() / "../tokenizer/kinds/chars.json";
  return {{"config.json",
           [](const std::string& text) { return model_error("llama", "config.json", text); },
           read_file(fixture("llama") / "config.json")},
          {"model.safetensors.index.json",
           [](const std::string& text) {
             Copy copy("llama");
             fs::rename(copy / "model.safetensors", copy / "a.safetensors");
             std::ofstream(copy / "model.safetensors.index.json", std::ios::binary) << text;
             return copy.error();
           },
           R"({"weight_map": {"x": "a.safetensors"}})"},
          {"tokenizer.json",  // of a model folder, for its special tokens
           [](const std::string& text) { return model_error("bert", "tokenizer.json", text); },
           R"({"added_tokens": [{"id": 1, "content": "[CLS]"}]})"},
          {"adapter_config.json", adapter_error, kAdapter},
          {"tokenizer.json", [](const std::string& text) { return tokenizer_error(text); },
           read_file(tokenizer)}};
}

}  // namespace

TEST_CASE("every file of JSON is refused where it nests deeply, repeats a key or is no text") {
  for (const JsonReader& reader : json_readers()) {
    CAPTURE(reader.name);
    const std::string& valid = reader.valid;
    const std::size_t quote = valid.find('"'), colon = valid.find(':');
    const std::string key = valid.substr(quote, colon - quote);
    const auto refused = [&](const std::string& text, const char* why) {
      const std::string said = reader.error(text);
      contains(said, reader.name);
      contains(said, why);
      CHECK(said.size() < 1000);
    };
    CHECK(reader.error(valid) == "(no error)");
    refused(with(valid, "{", "{" + key + ": 1, "), "is there twice");
    refused(std::string(1'000'000, '['), "nested");
    refused(with(valid, "{", "{\"deep\": " + std::string(1000, '[') + std::string(1000, ']') + ","),
            "nested");
    refused(valid + std::string("\0{}", 3), "is zero");
    refused(with(valid, "{", "{\"\xff\": 1, "), "not JSON");
    refused(with(valid, "{", "{\"number\": 1e999, "), "not JSON");
    refused(valid.substr(0, valid.size() / 2), "not JSON");
    refused("", "not JSON");
    refused("[]", "");
  }
}

TEST_CASE("a config.json with absurd sizes is refused before a model is laid out") {
  const auto refused = [](const char* family, const char* key, const ordered_json& value,
                          const char* why) {
    CAPTURE(key);
    Copy copy(family);
    copy.set(key, value);
    contains(copy.error(), why);
  };
  for (const std::int64_t n :
       {std::int64_t{1} << 62, std::int64_t{1} << 31, -(std::int64_t{1} << 40)})
    for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"})
      refused("llama", key, n, "an integer of at most 2^24");
  refused("llama", "hidden_size", std::numeric_limits<std::uint64_t>::max(), "at most 2^24");
  refused("llama", "pad_token_id", std::numeric_limits<std::uint64_t>::max(), "at most 2^24");
  refused("llama", "num_hidden_layers", 1 << 24, "16777216 layers; need 512 at most");
  refused("t5", "num_decoder_layers", 513, "513 layers; need 512 at most");
  refused("t5", "num_layers", 100000, "100000 layers; need 512 at most");
  refused("t5", "d_kv", 1 << 24, "need 2^24 together at most");
  refused("bert", "hidden_size", 1 << 24, "its tensors are not those of its config.json");
  refused("bert", "type_vocab_size", -1, "token_type_embeddings.weight [2, 16] is unexpected");
  refused("bert", "num_attention_heads", 0, "all must be > 0");
  refused("esm", "rope_theta", -1, "rope_theta is -1; need more than 0");
  refused("llama", "rms_norm_eps", -1e-5, "eps is");
  refused("bert", "hidden_dropout_prob", 1.5, "dropout is 1.5");
}

TEST_CASE("weights of another type or depth than the config.json's are refused by name") {
  Copy copy("llama");
  copy.rename([](const std::string& name) { return std::vector<std::string>{name}; },
              [](SafetensorsWriter& writer) { (void)writer; });
  CHECK(copy.error() == "(no error)");
  SafetensorsWriter writer;
  {
    const SafetensorsReader reader(copy / "model.safetensors");
    for (const auto& [name, info] : reader.tensors())
      if (name == "model.norm.weight")
        writer.add(name, FileDtype::i32, info.shape, reader.bytes(name));
      else
        writer.add(name, info.dtype, info.shape, reader.bytes(name));
  }
  writer.write(copy / "model.safetensors");
  contains(copy.error(), "model.norm.weight is I32; need a floating type");
  Copy deeper("llama");
  deeper.set("num_hidden_layers", 3);
  contains(deeper.error(), "model.layers.2.input_layernorm.weight [16] is missing");
}

TEST_CASE("an index that names no files of its folder is refused") {
  const auto refused = [](const std::string& map, const char* why) {
    Copy copy("llama");
    fs::remove(copy / "model.safetensors");
    write_file_atomically(copy / "model.safetensors.index.json", map);
    contains(copy.error(), why);
  };
  refused("[]", "has no weight_map");
  refused(R"({"weight_map": []})", "has no weight_map");
  refused(R"({"weight_map": {"x": 1}})", "weight_map: 1 is not the name of a file");
  refused(R"({"weight_map": {"x": "../x"}})", "is not the name of a file");
  refused(R"({"weight_map": {"x": "x\u0000"}})", "its name holds a zero byte");
  refused(R"({"weight_map": {"x": ""}})", "it is a folder");
  refused(R"({"weight_map": {"x": "none.safetensors"}})", "none.safetensors: cannot read");
}

TEST_CASE("a special token's id that is no id is refused with a model's folder") {
  Copy copy("bert");
  for (const char* key : {"pad_token_id", "cls_token_id"}) copy.set(key, nullptr);
  const auto refused = [&](const char* id) {
    write_file_atomically(
        copy / "tokenizer.json",
        fmt::format(R"({{"added_tokens": [{{"id": {}, "content": "[CLS]"}}]}})", id));
    contains(copy.error(), "tokenizer.json: added_tokens: id ");
  };
  for (const char* id :
       {"-1", "1.5", "4294967296", "18446744073709551615", "1e300", "\"1\"", "null"})
    refused(id);
}

TEST_CASE("an adapter's configuration and values are checked before any of them is used") {
  CHECK(adapter_error(kAdapter) == "(no error)");
  contains(adapter_error("[]"), "is not an adapter_config.json of this program");
  contains(adapter_error(with(kAdapter, "\"lora:r=2\"", "3")), "lacks 'spec' or 'more'");
  contains(adapter_error(with(kAdapter, "{\"model\": \"m\"}", "[]")), "lacks 'spec' or 'more'");
  for (const char* more :
       {R"("model": 3)", R"("labels": ["a", 1])", R"("labels": "a")", R"("max_tokens": -1)",
        R"("max_tokens": 1e300)", R"("max_tokens": 18446744073709551615)", R"("language": "no")"}) {
    const std::string said = adapter_error(with(kAdapter, "\"model\": \"m\"", more));
    contains(said, "adapter_config.json': ");
    contains(said, "; need ");
  }
  const auto p = std::make_shared<Parameter>(
      Parameter{Site{Stack::decoder, 0, Part::q}, "lora_A", Tensor(Array::zeros({2, 3})), true, 1});
  const Folder folder;
  SafetensorsWriter writer;
  const std::vector<std::byte> bytes(24);
  writer.add(p->label(), FileDtype::i32, {2, 3}, bytes);
  writer.write(folder / "adapter_model.safetensors");
  contains(error_of([&] { load_adapter_values(folder.path, {p}); }),
           "I32 in the file; need a floating type");
}

TEST_CASE("a tokenizer.json cannot make much of little") {
  const std::string model =
      R"("model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}})";
  const auto refused = [&](const std::string& keys, const char* why, const char* text = "aaaa") {
    contains(tokenizer_error("{" + keys + ", " + model, text), why);
  };
  const std::string many(100'000, 'b');
  refused(R"("normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": ")" + many +
              "\"}",
          "its normalizer makes more than");
  refused(R"("normalizer": {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": ")" + many +
              "\"}",
          "its normalizer makes more than", " ");
  refused(R"("normalizer": {"type": "Prepend", "prepend": ")" + many + "\"}",
          "its normalizer makes more than");
  std::string steps, cuts;
  for (int i = 0; i < 40; ++i) {
    steps += R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"},)";
    cuts += R"({"type": "Metaspace", "replacement": "x"},)";
  }
  refused(R"("normalizer": {"type": "Sequence", "normalizers": [)" + steps + R"({"type": "NFC"}]})",
          "its normalizer makes more than");
  refused(R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [)" + cuts +
              R"({"type": "Whitespace"}]})",
          "more than 32 steps");
  const std::string a = R"({"Sequence": {"id": "A", "type_id": 0}})",
                    b = R"({"Sequence": {"id": "B", "type_id": 0}})";
  const auto around = [&](const std::string& single, const std::string& pair) {
    return R"("post_processor": {"type": "TemplateProcessing", "single": [)" + single +
           "], \"pair\": [" + pair + "], \"special_tokens\": {}}";
  };
  CHECK(tokenizer_error("{" + around(a, a + "," + b) + ", " + model, "a") == "(no error)");
  refused(around(a + "," + a, a + "," + b), "has text A 2 times and B 0 times; need 1 and 0");
  refused(around(a, a), "has text A 1 times and B 0 times; need 1 and 1");
  refused(around(b, a + "," + b), "has text A 0 times");
  contains(tokenizer_error(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [],
           "continuing_subword_prefix": ")" +
                           many + "\"}}"),
           "its prefix has 100000 bytes");
  contains(tokenizer_error(R"({"model": {"type": "WordLevel", "vocab": {"a": 1000000000}}})"),
           "'a' has id 1000000000");
}

TEST_CASE("vocabularies and merges of older files that hold a zero byte are refused") {
  const auto refused = [](const char* vocab, const char* merges) {
    const Folder folder;
    std::ofstream(folder / vocab) << std::string(vocab) + "\0" << std::string("a\0b", 3);
    if (merges) std::ofstream(folder / merges) << "a b\n";
    contains(error_of([&] { Tokenizer::load(folder.path); }), "is zero");
  };
  refused("vocab.txt", nullptr);
  refused("vocab.json", "merges.txt");
}
