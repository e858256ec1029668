// What the tests of PEFT's folders share: fixtures that PEFT wrote, copies to spoil, and adapters
// of ours to write.
#pragma once

#include <doctest/doctest.h>

#include <span>

#include "nn/models/heads.h"
#include "nn/pooling.h"
#include "peft/methods.h"
#include "peft/peft_folder.h"
#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

namespace graft::testing {

inline fs::path peft_fixture(const std::string& name) {
  return fs::path(__FILE__).parent_path() / "../fixtures/peft" / name;
}

// A head as a run's spec says it, for this many classes.
inline void set_head(Model& model, const std::string& head, const std::string& pool, int rows) {
  std::vector<std::string> labels;
  for (int i = 0; i < rows; ++i) labels.push_back(fmt::format("class {}", i));
  if (head == "family")
    model.set_head(start_family_head(model.build(), model, labels).head);
  else
    model.set_head(std::make_unique<LinearHead>(model.build(), model.arch(), rows, pool_named(pool),
                                                head == "dense"));
}

// A base with an adapter of PEFT's on it.
struct Adapted {
  Adapted(const fs::path& folder, const std::string& base, const std::string& own_pool = "mean")
      : model(load_model(fixture(base))), read(read_peft_folder(folder, model->arch())) {
    if (!read.head.head.empty()) head_pool = read.head.head == "family" ? "" : own_pool;
    if (!read.head.head.empty()) set_head(*model, read.head.head, head_pool, read.head.rows);
    adaptation.emplace(all_methods(), read.spec, *model);
    const Parameters all = parameters();
    CHECK(all.size() == read.values.size() + (read.head.base_pooler ? 2 : 0));
    for (const auto& p : all)
      if (!read.head.base_pooler || p->site.part != Part::head_dense)
        p->value.value().copy_from(read.values.at(p->label()));
  }
  Parameters parameters() {
    Parameters all = adaptation->parameters();
    const Parameters head = train_head(*model);
    all.insert(all.end(), head.begin(), head.end());
    return all;
  }
  // What the fixture's outputs.safetensors has.
  Array output(const std::string& kind, const Batch& batch) {
    if (kind == "logits") return logits_of(*model, batch).value();
    Ctx ctx;
    const Sequence s = model->forward(batch, ctx);
    if (kind == "hidden") return s.rows.value();
    return model->head().scores(*model, s, batch, ctx).value();
  }

  std::unique_ptr<Model> model;
  PeftAdapter read;
  std::string head_pool;
  std::optional<Adaptation> adaptation;
};

inline std::string kind_of(const SafetensorsReader& outputs) {
  for (const char* kind : {"logits", "hidden", "scores"})
    if (outputs.tensors().contains(kind)) return kind;
  return "";
}

inline Array expected(const SafetensorsReader& outputs) {
  const std::string kind = kind_of(outputs);
  Array value = Array::empty(outputs.at(kind).shape);
  outputs.read_f32(kind, value);
  return value;
}

// A copy of a fixture's folder to spoil.
struct Spoilt : Folder {
  explicit Spoilt(const std::string& name) {
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      fs::copy(peft_fixture(name) / file, path / file);
  }
  void set(const std::string& key, const ordered_json& value) {
    ordered_json config = ordered_json::parse(read_file(path / "adapter_config.json"));
    config[key] = value;
    write_file_atomically(path / "adapter_config.json", config.dump());
  }
  // Writes the tensors again, each under the name that `change` gives it, "" for none.
  void rename(const std::function<std::string(const std::string&)>& change,
              const std::function<void(SafetensorsWriter&)>& add = {}) {
    SafetensorsWriter writer;
    {
      const SafetensorsReader reader(path / "adapter_model.safetensors");
      for (const auto& [name, info] : reader.tensors())
        if (const std::string now = change(name); !now.empty())
          writer.add(now, info.dtype, info.shape, reader.bytes(name));
    }
    if (add) add(writer);
    writer.write(path / "adapter_model.safetensors");
  }
  std::string error(const std::string& base) const {
    return error_of([&] { read_peft_folder(path, load_arch(fixture(base))); });
  }
};

inline std::string same(const std::string& name) { return name; }

// An adapter of ours with noise for values, for writing. base_pooler: the head's first matrix is
// left as the base has it.
struct Ours {
  Ours(const std::string& base, const std::string& spec, const std::string& head = "",
       const std::string& pool = "", bool base_pooler = false)
      : model(load_model(fixture(base))),
        of_base(load_model(fixture(base))),
        spec(spec),
        head(head),
        pool(pool) {
    if (!head.empty()) set_head(*model, head, pool, 3);
    adaptation.emplace(all_methods(), spec, *model);
    parameters = adaptation->parameters();
    const Parameters heads = train_head(*model);
    parameters.insert(parameters.end(), heads.begin(), heads.end());
    for (const auto& p : parameters)
      if (!base_pooler || p->site.part != Part::head_dense) add_noise(*p, 0.3, 5);
  }
  std::vector<std::string> write(const fs::path& folder, bool language = false) const {
    return write_peft_folder(folder, {model->arch(), spec, parameters, head, pool, language,
                                      "the-base", saved_pooler(*of_base)});
  }
  std::unique_ptr<Model> model, of_base;
  std::string spec, head, pool;
  std::optional<Adaptation> adaptation;
  Parameters parameters;
};

// outputs.safetensors as the fixtures have it: what was read and what came of it.
inline void write_outputs(const fs::path& folder, const Batch& batch, const std::string& kind,
                          const Array& result) {
  SafetensorsWriter writer;
  const auto ints = [&](const char* name, const auto& values) {
    const std::vector<std::int32_t> v(values.begin(), values.end());
    writer.add(name, FileDtype::i32, {static_cast<std::int64_t>(v.size())},
               std::as_bytes(std::span(v)));
  };
  ints("tokens", batch.token), ints("lengths", batch.length);
  if (batch.source)
    ints("source", batch.source->token), ints("source_lengths", batch.source->length);
  writer.add(kind, result);
  writer.write(folder / "outputs.safetensors");
}

inline Batch some_batch(const Model& model) {
  Batch batch = ragged(model.arch(), {5, 1, 8});
  if (model.encoder) batch.source = std::make_shared<Batch>(batch);
  return batch;
}

}  // namespace graft::testing
