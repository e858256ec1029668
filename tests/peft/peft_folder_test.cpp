// Folders of Hugging Face's PEFT: read as PEFT means them, written as PEFT reads them, and refused
// where either could not say what the other does.
#include "peft/peft_folder.h"

#include <doctest/doctest.h>

#include "peft/methods.h"
#include "peft/peft_modules.h"
#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

const fs::path kFixtures = fs::path(__FILE__).parent_path() / "../fixtures/peft";

struct Row {
  const char *name, *base, *spec;
};
constexpr Row kRows[] = {
    {"roberta-dense", "roberta", "lora:r=2,alpha=4,on=q+v,dropout=0.1"},
    {"esm-dense", "esm", "lora:r=2,alpha=3,on=q+up"},
    {"llama-score", "llama", "lora:r=4,alpha=2,on=q+down,scale=rs"},
    {"llama-patterns", "llama",
     "lora:r=2,alpha=4,on=q,layers=0|lora:r=2,alpha=4,on=v|lora:r=2,alpha=5,on=gate|"
     "lora:r=3,alpha=4,on=q,layers=1"},
    {"opt-layers", "opt", "lora:r=2,alpha=4,on=o+down,layers=1"},
    {"gpt2-fused", "gpt2", "lora:r=3,alpha=6,on=q+k+v+down"},
    {"t5", "t5", "lora:r=2,alpha=4,on=q+v+xq"},
    {"bert-body", "bert", "lora:r=2,alpha=4,on=q+k"},
    {"bert-own", "bert", "lora:r=2,alpha=4,on=q+v"}};

// A base with an adapter of PEFT's on it.
struct Adapted {
  Adapted(const fs::path& folder, const std::string& base, const std::string& own_pool = "mean")
      : model(load_model(fixture(base))), read(read_peft_folder(folder, model->arch())) {
    if (!read.head.head.empty()) {
      const std::string pool = read.head.pool.empty() ? own_pool : read.head.pool;
      model->set_head(std::make_unique<LinearHead>(model->build(), model->arch(), read.head.rows,
                                                   pool == "mean"  ? Pool::mean
                                                   : pool == "cls" ? Pool::cls
                                                                   : Pool::last,
                                                   read.head.head == "dense"));
      head_pool = pool;
    }
    adaptation.emplace(all_methods(), read.spec, *model);
    const Parameters all = parameters();
    CHECK(all.size() == read.values.size());
    for (const auto& p : all) p->value.value().copy_from(read.values.at(p->label()));
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

std::string kind_of(const SafetensorsReader& outputs) {
  for (const char* kind : {"logits", "hidden", "scores"})
    if (outputs.tensors().contains(kind)) return kind;
  return "";
}

Array expected(const SafetensorsReader& outputs) {
  const std::string kind = kind_of(outputs);
  Array value = Array::empty(outputs.at(kind).shape);
  outputs.read_f32(kind, value);
  return value;
}

// A copy of a fixture's folder to spoil.
struct Spoilt : Folder {
  explicit Spoilt(const std::string& name) {
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      fs::copy(kFixtures / name / file, path / file);
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

std::string same(const std::string& name) { return name; }

// An adapter of ours with noise for values, for writing.
struct Ours {
  Ours(const std::string& base, const std::string& spec, const std::string& head = "",
       const std::string& pool = "", bool head_bias = true)
      : model(load_model(fixture(base))), spec(spec), head(head), pool(pool) {
    if (!head.empty())
      model->set_head(std::make_unique<LinearHead>(model->build(), model->arch(), 3,
                                                   pool == "mean"  ? Pool::mean
                                                   : pool == "cls" ? Pool::cls
                                                                   : Pool::last,
                                                   head == "dense"));
    adaptation.emplace(all_methods(), spec, *model);
    parameters = adaptation->parameters();
    const Parameters heads = train_head(*model);
    parameters.insert(parameters.end(), heads.begin(), heads.end());
    for (const auto& p : parameters)
      if (head_bias || p->site.part != Part::head || p->name != "bias") add_noise(*p, 0.3, 5);
  }
  std::vector<std::string> write(const fs::path& folder, bool language = false) const {
    return write_peft_folder(folder,
                             {model->arch(), spec, parameters, head, pool, language, "the-base"});
  }
  std::unique_ptr<Model> model;
  std::string spec, head, pool;
  std::optional<Adaptation> adaptation;
  Parameters parameters;
};

Batch some_batch(const Model& model) {
  Batch batch = ragged(model.arch(), {5, 1, 8});
  if (model.encoder) batch.source = std::make_shared<Batch>(batch);
  return batch;
}

struct Written {
  const char *name, *base, *spec, *head, *pool;
  bool language;
};
constexpr Written kWritten[] = {
    {"roberta", "roberta", "lora:r=2,alpha=5,on=q+o+down,dropout=0.1", "dense", "cls", false},
    {"roberta-mean", "roberta", "lora:r=2,on=q", "linear", "mean", false},
    {"prelayernorm", "roberta-prelayernorm", "lora:r=2,on=q+k+v+o+up+down", "dense", "cls", false},
    {"esm", "esm", "lora:r=1,on=v,layers=1", "dense", "cls", false},
    {"bert-own", "bert", "lora:r=2,alpha=16,on=q+v", "linear", "mean", false},
    {"bert-parts", "bert", "lora:r=2,on=o|lora:r=3,alpha=1,on=down,layers=0", "linear", "mean",
     false},
    {"gpt2", "gpt2", "lora:r=2,alpha=6,on=q+v+o+down", "", "", true},
    {"gpt2-rs", "gpt2", "lora:r=2,alpha=3,on=q+k+v+up,scale=rs,layers=1", "", "", true},
    {"opt", "opt", "lora:r=2,on=k+up", "", "", true},
    {"llama", "llama", "lora:r=2,alpha=1.5,on=q+gate+up+down", "", "", true},
    {"llama-score", "llama", "lora:r=2,on=q+v", "linear", "last", false},
    {"t5", "t5", "lora:r=2,alpha=4,on=q+xv+up", "", "", true}};

}  // namespace

TEST_CASE("adapters that PEFT trained give PEFT's outputs here") {
  for (const Row& row : kRows) {
    const std::string name = row.name;
    CAPTURE(name);
    Adapted adapted(kFixtures / row.name, row.base);
    CHECK(adapted.read.spec == row.spec);
    const SafetensorsReader outputs(kFixtures / row.name / "outputs.safetensors");
    const Array got = adapted.output(kind_of(outputs), batch_of(outputs));
    CHECK(difference(got, expected(outputs)) <= 1e-5);
    CHECK(is_peft_folder(kFixtures / row.name));
  }
  CHECK_FALSE(is_peft_folder(fixture("bert")));
}

TEST_CASE("an adapter written for PEFT and read again is the same function") {
  for (const Written& row : kWritten) {
    const std::string name = row.name;
    CAPTURE(name);
    const bool bias = std::string_view(row.name) != "llama-score";
    const Ours ours(row.base, row.spec, row.head, row.pool, bias);
    const Folder folder;
    ours.write(folder.path, row.language);
    Adapted again(folder.path, row.base);
    const Batch batch = some_batch(*ours.model);
    const std::string kind = *row.head ? "scores" : "logits";
    Ctx ctx;
    const Sequence s = ours.model->forward(batch, ctx);
    const Array before = *row.head ? ours.model->head().scores(*ours.model, s, batch, ctx).value()
                                   : logits_of(*ours.model, batch).value();
    CHECK(difference(again.output(kind, batch), before) <= 1e-6);
    if (std::string_view(row.base) != "gpt2") {
      const Ours twice(row.base, again.read.spec, row.head, row.pool, bias);
      for (const auto& p : ours.parameters)
        CHECK(same_bits(again.read.values.at(p->label()), p->value.value()));
    }
    contains(error_of([&] { ours.write(folder.path); }), "has an adapter already");
  }
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
  dora.set("bias", "all");
  dora.set("peft_knows_more", {{"x", 1}});
  dora.rename(same, [](SafetensorsWriter& w) {
    w.add("base_model.model.bert.encoder.layer.0.attention.self.query.lora_magnitude_vector",
          Array::full({16}, 1));
  });
  const std::string all = dora.error("bert");
  contains(all, "option use_dora = true is not followed here");
  contains(all, "option bias = \"all\"");
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
  refused("peft_type", "IA3", "peft_type is 'IA3'; this version follows LORA");
  refused("task_type", "TOKEN_CLS", "task_type TOKEN_CLS is not followed here");
  refused("task_type", "SEQ_CLS", "the class of family bert has a head that is not followed");
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
  refused("bert", "lora:r=2|bitfit", "has no counterpart in PEFT");
  refused("bert", "lora:r=2,on=q|lora:r=2,on=v,scale=rs", "different scale= or dropout=");
  refused("gpt2", "lora:r=2,on=q|lora:r=2,alpha=5,on=v", "are scaled by 1 and 2.5");
}

TEST_CASE("a head that transformers' class has not is announced as a module of one's own") {
  const auto notes = [](const char* base, const char* head, const char* pool, bool bias) {
    const Ours ours(base, "lora:r=2,on=q", head, pool, bias);
    const Folder folder;
    std::string text;
    for (const std::string& note : ours.write(folder.path)) text += note;
    const auto config = ordered_json::parse(read_file(folder / "adapter_config.json"));
    return text + " | " + config["task_type"].dump();
  };
  CHECK(notes("roberta", "dense", "cls", true) == R"( | "SEQ_CLS")");
  CHECK(notes("llama", "linear", "last", false) == R"( | "SEQ_CLS")");
  contains(notes("llama", "linear", "last", true), "its class has no bias there | null");
  contains(notes("roberta", "linear", "mean", true),
           "it is `classifier`, for a module of your own");
}

// For tests/fixtures/peft/adapters.py; run with --no-skip.
TEST_CASE("folders for adapters.py" * doctest::skip()) {
  const char* out = std::getenv("GRAFT_PEFT");
  if (!out) {
    MESSAGE("SKIPPED: GRAFT_PEFT names no folder to write to");
    return;
  }
  for (const Written& row : kWritten) {
    if (std::string_view(row.name) == "roberta-mean") continue;  // as bert-own
    const Ours ours(row.base, row.spec, row.head, row.pool,
                    std::string_view(row.name) != "llama-score");
    const fs::path folder = fs::path(out) / row.name;
    ours.write(folder, row.language);
    const Batch batch = some_batch(*ours.model);
    Ctx ctx;
    const Sequence s = ours.model->forward(batch, ctx);
    const bool headed = *row.head;
    const Array result = headed ? ours.model->head().scores(*ours.model, s, batch, ctx).value()
                                : logits_of(*ours.model, batch).value();
    SafetensorsWriter writer;
    const auto ints = [&](const char* name, const auto& values) {
      const std::vector<std::int32_t> v(values.begin(), values.end());
      writer.add(name, FileDtype::i32, {static_cast<std::int64_t>(v.size())},
                 std::as_bytes(std::span(v)));
    };
    ints("tokens", batch.token), ints("lengths", batch.length);
    if (batch.source)
      ints("source", batch.source->token), ints("source_lengths", batch.source->length);
    writer.add(headed ? "scores" : "logits", result);
    writer.write(folder / "outputs.safetensors");
    const bool own = headed && std::string_view(row.pool) == "mean";
    write_file_atomically(folder / "about.json", ordered_json{{"base", row.base},
                                                              {"kind", !headed ? "logits"
                                                                       : own   ? "own"
                                                                               : "scores"}}
                                                     .dump());
  }
}
