// What the tests of models share: the fixtures of tests/fixtures/models, and copies to spoil.
#pragma once

#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nn/models/folder.h"
#include "tests/nn/folder.h"

namespace graft::testing {

using nlohmann::ordered_json;

inline const char* const kFamilies[] = {"roberta-prelayernorm",
                                        "roberta",
                                        "bert",
                                        "esm",
                                        "gpt2",
                                        "opt",
                                        "llama",
                                        "esm-learned",
                                        "llama-linear",
                                        "llama3",
                                        "t5",
                                        "t5-gated",
                                        "xlm-roberta",
                                        "distilbert",
                                        "mistral",
                                        "qwen2",
                                        "qwen3"};

inline fs::path fixture(const std::string& family) {
  return fs::path(__FILE__).parent_path() / "../fixtures/models" / family;
}

inline std::vector<std::int32_t> read_ints(const SafetensorsReader& file, const std::string& name) {
  std::vector<std::int32_t> values(file.at(name).count());
  std::memcpy(values.data(), file.bytes(name).data(), 4 * values.size());
  return values;
}

inline Batch batch_of(const SafetensorsReader& outputs) {
  Batch batch;
  batch.token = read_ints(outputs, "tokens");
  batch.length = read_ints(outputs, "lengths");
  for (std::size_t i = 0; i < batch.length.size(); ++i)
    batch.example.push_back(static_cast<std::uint32_t>(i));
  if (outputs.tensors().contains("source")) {
    auto source = std::make_shared<Batch>();
    source->token = read_ints(outputs, "source");
    source->length = read_ints(outputs, "source_lengths");
    source->example = batch.example;
    batch.source = std::move(source);
  }
  return batch;
}

inline Tensor logits_of(const Model& model, const Batch& batch) {
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  std::vector<std::int32_t> rows;  // of tokens
  for (std::size_t i = 0; i < s.source.size(); ++i)
    if (s.source[i] >= 0) rows.push_back(static_cast<std::int32_t>(i));
  return model.lm_logits(s, rows, ctx);
}

// A copy of a fixture's folder in which one thing may be changed.
struct Copy : Folder {
  explicit Copy(const std::string& family) {
    for (const char* name : {"config.json", "model.safetensors"})
      fs::copy_file(fixture(family) / name, path / name);
  }
  void set(const std::string& key, const ordered_json& value) {
    ordered_json config = ordered_json::parse(read_file(path / "config.json"));
    config[key] = value;
    write_file_atomically(path / "config.json", config.dump());
  }
  void erase(const std::string& key) {
    ordered_json config = ordered_json::parse(read_file(path / "config.json"));
    config.erase(key);
    write_file_atomically(path / "config.json", config.dump());
  }
  // Writes the tensors again; `change` maps a name to the names that its values get, {} to none.
  using Change = std::function<std::vector<std::string>(const std::string&)>;
  void rename(const Change& change, const std::function<void(SafetensorsWriter&)>& add = {}) {
    SafetensorsWriter writer;
    {
      const SafetensorsReader reader(path / "model.safetensors");
      for (const auto& [name, info] : reader.tensors())
        for (const std::string& now : change(name))
          writer.add(now, info.dtype, info.shape, reader.bytes(name));
    }
    if (add) add(writer);
    writer.write(path / "model.safetensors");
  }
  std::string error() const {
    return error_of([&] { load_model(path); });
  }
};

}  // namespace graft::testing
