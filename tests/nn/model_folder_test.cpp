// Model folders: what is saved, what is refused, and what is left when saving fails.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "nn/models/presets.h"
#include "nn/text/bpe_trainer.h"
#include "tests/nn/model_fixtures.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("a saved folder has the bytes of the tensors it was loaded from") {
  for (const std::string family : kFamilies) {
    CAPTURE(family);
    const Folder folder;
    const auto model = load_model(fixture(family));
    save_model(*model, folder.path);
    const SafetensorsReader before(fixture(family) / "model.safetensors");
    const SafetensorsReader after(folder / "model.safetensors");
    CHECK(before.tensors().size() == after.tensors().size());
    for (const auto& tensor : before.tensors()) {
      const std::string& name = tensor.first;
      CAPTURE(name);
      CHECK(after.at(name).shape == tensor.second.shape);
      CHECK(std::ranges::equal(before.bytes(name), after.bytes(name)));
    }
    const auto again = load_model(folder.path);
    CHECK(again->arch() == model->arch());
    CHECK(again->hash() == model->hash());
    CHECK(folder.entries() == 2);
  }
}

TEST_CASE("weights are stored in 16 bits, rounded to the nearest, and read as such") {
  const auto model = load_model(fixture("gpt2"));
  for (const FileDtype dtype : {FileDtype::f16, FileDtype::bf16}) {
    const Folder folder;
    save_model(*model, folder.path, dtype);
    const auto narrow = load_model(folder.path);
    const Array &x = model->embedding.token.value().value(),
                &y = narrow->embedding.token.value().value();
    CHECK(y.dtype() == (dtype == FileDtype::f16 ? Dtype::f16 : Dtype::bf16));
    double worst = 0;
    for (int i = 0; i < x.numel(); ++i)
      worst = std::max(worst, std::abs(x.at(i) - y.at(i)) / std::abs(x.at(i)));
    CHECK(worst > 0);
    CHECK(worst <= (dtype == FileDtype::f16 ? 0x1p-11 : 0x1p-8));
  }
  Tensor& up = model->blocks[0]->mlp.up.w.parameter().value;
  up = Tensor(Array::full(up.shape(), 70000));
  const Folder folder;
  contains(error_of([&] { save_model(*model, folder.path, FileDtype::f16); }),
           "transformer.h.0.mlp.c_fc.weight holds 70000");
  CHECK(folder.entries() == 0);
}

TEST_CASE("every difference between a model file and its config.json is in one message") {
  Copy copy("bert");
  copy.rename(
      [](const std::string& name) -> std::vector<std::string> {
        if (name == "bert.encoder.layer.1.output.dense.bias") return {};
        if (name == "bert.embeddings.LayerNorm.weight") return {name, "bert.surprise"};
        if (name == "cls.predictions.bias") return {};
        return {name};
      },
      [](SafetensorsWriter& writer) {
        writer.add("cls.predictions.bias", FileDtype::f32, {2}, std::vector<float>{1, 2});
      });
  const std::string message = copy.error();
  contains(message, copy.path.string());
  contains(message, "bert.encoder.layer.1.output.dense.bias [16] is missing");
  contains(message, "bert.surprise [16] is unexpected");
  contains(message, "cls.predictions.bias is [2]; need [50]");
}

TEST_CASE("a model file may lack the base's prefix, use old names, and hold known extras") {
  const auto cut = [](std::size_t n) {
    return [n](const std::string& name) { return std::vector<std::string>{name.substr(n)}; };
  };
  const auto same = [](const Copy& copy, const std::string& family) {
    return load_model(copy.path)->hash() == load_model(fixture(family))->hash();
  };
  Copy gpt2("gpt2");
  gpt2.rename(cut(12), [](SafetensorsWriter& writer) {
    writer.add("h.1.attn.bias", FileDtype::f32, {1, 1}, std::vector<float>{1});
  });
  CHECK(same(gpt2, "gpt2"));

  Copy bert("bert");
  bert.rename([](const std::string& name) -> std::vector<std::string> {
    std::string old = name;
    const std::size_t norm = old.find("LayerNorm.");
    if (norm != std::string::npos)
      old = old.substr(0, norm) + "LayerNorm." + (old.ends_with("weight") ? "gamma" : "beta");
    if (name == "bert.embeddings.word_embeddings.weight")
      return {old, "cls.predictions.decoder.weight"};
    if (name == "cls.predictions.bias") return {old, "bert.pooler.dense.bias"};
    return {old};
  });
  CHECK(same(bert, "bert"));

  Copy opt("opt");
  opt.rename([](const std::string& name) -> std::vector<std::string> {
    if (name == "model.decoder.embed_positions.weight") return {name, "lm_head.weight"};
    return {name};
  });
  contains(opt.error(), "lm_head.weight differs from model.decoder.embed_tokens.weight");
}

TEST_CASE("a model in several files is read through its index") {
  Copy copy("llama");
  const std::string first = "model-00001-of-00002.safetensors",
                    second = "model-00002-of-00002.safetensors";
  ordered_json map;
  SafetensorsWriter writers[2];
  {
    const SafetensorsReader reader(copy / "model.safetensors");
    for (const auto& [name, info] : reader.tensors()) {
      const int at = name.find("layers.1") != std::string::npos;
      writers[at].add(name, info.dtype, info.shape, reader.bytes(name));
      map[name] = at ? second : first;
    }
  }
  writers[0].write(copy.path / first);
  writers[1].write(copy.path / second);
  fs::remove(copy / "model.safetensors");
  write_file_atomically(copy / "model.safetensors.index.json",
                        ordered_json{{"metadata", {}}, {"weight_map", map}}.dump());
  CHECK(load_model(copy.path)->hash() == load_model(fixture("llama"))->hash());
  map["lm_head.weight"] = "../elsewhere";
  write_file_atomically(copy / "model.safetensors.index.json",
                        ordered_json{{"weight_map", map}}.dump());
  contains(copy.error(), "\"../elsewhere\" is not the name of a file");
}

TEST_CASE("weights that torch wrote, or that Git keeps elsewhere, are told apart from none") {
  Copy copy("gpt2");
  fs::remove(copy / "model.safetensors");
  contains(copy.error(), "No such file");
  write_file_atomically(copy / "pytorch_model.bin", "PK");
  contains(copy.error(), "there is a pytorch_model.bin: save it as safetensors");
  const char* pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
  write_file_atomically(copy / "model.safetensors", pointer);
  contains(copy.error(), "model.safetensors: this is a Git LFS pointer");
  write_file_atomically(copy / "config.json", pointer);
  contains(copy.error(), "config.json: this is a Git LFS pointer");
}

TEST_CASE(
    "what a base's folder says beside its model is put in place with the model, or not at all") {
  const Folder base, out;
  const auto model = load_model(fixture("gpt2"));
  write_file_atomically(base / "config.json", "{}");
  write_file_atomically(base / "chat_template.jinja", "{{ messages }}");
  write_file_atomically(base / "generation_config.json", R"({"eos_token_id": [7, 9]})");
  save_model(*model, out.path, FileDtype::f32, nullptr, base.path);
  CHECK(out.entries() == 4);
  CHECK(read_file(out / "generation_config.json") == read_file(base / "generation_config.json"));
  CHECK(read_file(out / "chat_template.jinja") == "{{ messages }}");
  const std::string config = read_file(out / "config.json");
  write_file_atomically(base / "generation_config.json", R"({"eos_token_id": "</s>"})");
  contains(error_of([&] { save_model(*model, out.path, FileDtype::f32, nullptr, base.path); }),
           "generation_config.json: eos_token_id");
  CHECK(out.entries() == 4);
  CHECK(read_file(out / "config.json") == config);
  CHECK(read_file(out / "generation_config.json") == R"({"eos_token_id": [7, 9]})");
}

TEST_CASE("a decoder's body that was saved alone is loaded and saved without a vocabulary head") {
  Copy body("llama");
  const auto whole = load_model(fixture("llama"));
  body.rename([](const std::string& name) {
    return name.starts_with("lm_head") ? std::vector<std::string>{}
                                       : std::vector<std::string>{name.substr(6)};
  });
  body.set("architectures", {"LlamaModel"});
  const auto model = load_model(body.path);
  CHECK(!model->arch().lm);
  CHECK(!model->pooler);
  const SafetensorsReader outputs(fixture("llama") / "outputs.safetensors");
  const Batch batch = batch_of(outputs);
  Ctx one, other;
  CHECK(same_bits(model->forward(batch, one).rows.value(),
                  whole->forward(batch, other).rows.value()));
  const Folder again;
  save_model(*model, again.path);
  CHECK(load_model(again.path)->arch() == model->arch());
  CHECK(load_model(again.path)->hash() == model->hash());
  CHECK(SafetensorsReader(again / "model.safetensors").tensors().contains("norm.weight"));
  Copy tied("gpt2");  // its head is the embedding, which is there
  tied.set("architectures", {"GPT2Model"});
  CHECK(load_model(tied.path)->hash() == load_model(fixture("gpt2"))->hash());
}

TEST_CASE("a model that its family cannot say is not saved") {
  Arch arch = load_arch(fixture("gpt2"));
  arch.pre_norm = false;
  Model model(arch, Build{});
  const Folder folder;
  contains(error_of([&] { save_model(model, folder.path); }), "family gpt2 has no keys for all");
  CHECK(folder.entries() == 0);
}

TEST_CASE("a save that fails leaves the folder as it was") {
  const Folder folder;
  const auto before = load_model(fixture("gpt2"));
  save_model(*before, folder.path);
  const auto other = load_model(fixture("bert"));
  {
    const FileSizeLimit full(20000);
    contains(error_of([&] { save_model(*other, folder.path); }), "cannot write the file");
  }
  CHECK(folder.entries() == 2);
  CHECK(load_model(folder.path)->hash() == before->hash());
  fs::create_directory(folder / ".saving");  // of a process that was killed
  write_file_atomically(folder.path / ".saving" / "model.safetensors", "half");
  write_file_atomically(folder / "notes.txt", "mine");
  CHECK(load_model(folder.path)->hash() == before->hash());
  save_model(*other, folder.path);
  CHECK(load_model(folder.path)->hash() == other->hash());
  CHECK(folder.entries() == 3);
  fs::remove(folder / "config.json");  // a save cut off while files are put in place
  contains(error_of([&] { load_model(folder.path); }), "config.json");
}

TEST_CASE("a tokenizer is saved beside its model and must agree with it") {
  const std::string_view text = "one two three";
  BpeTraining options{.vocab_size = 270,
                      .specials = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}};
  const Tokenizer tokenizer = train_bpe(std::span(&text, 1), options);
  Arch arch = load_arch(fixture("roberta-prelayernorm"));
  const Folder folder;
  const auto save = [&] {
    save_model(*std::make_unique<Model>(arch, Build{}), folder.path, FileDtype::f32, &tokenizer);
  };
  contains(error_of(save), "the model's vocabulary only 50");
  arch.vocab = 300;
  save();
  CHECK(Tokenizer::load(folder / "tokenizer.json").size() == tokenizer.size());
  const auto json = ordered_json::parse(read_file(folder / "tokenizer_config.json"));
  CHECK(json["tokenizer_class"] == "PreTrainedTokenizerFast");
  CHECK(json["mask_token"] == "[MASK]");
  CHECK(json["model_max_length"] == 13);
  arch.mask = 4;  // config.json left it out; tokenizer.json has it
  CHECK(load_arch(folder.path) == arch);
  arch.sep = 1;
  contains(error_of(save), "eos_token is 1 in the model; the tokenizer has 3 there");
}

// Folders and logits for tests/fixtures/models/check_roundtrip.py; run with --no-skip.
TEST_CASE("a body that was saved alone is loaded, saved as such, and has no vocabulary head") {
  for (const char* family : {"bert", "roberta", "esm"}) {
    CAPTURE(family);
    Copy body(family);
    const auto whole = load_model(fixture(family));
    const std::string head = family == std::string("bert") ? "cls." : "lm_head.";
    const auto named = [&](const std::string& name) {
      const std::string own = name.starts_with(head) ? "" : name.substr(name.find('.') + 1);
      return own.empty() ? std::vector<std::string>{} : std::vector<std::string>{own};
    };
    body.rename(named, [](SafetensorsWriter& writer) {
      writer.add("pooler.dense.weight", Array::full({16, 16}, 0.5));
      writer.add("pooler.dense.bias", Array::full({16}, 0.25));
    });
    std::string name = ordered_json::parse(read_file(body / "config.json"))["architectures"][0];
    body.set("architectures", {name.replace(name.find("ForMaskedLM"), 11, "Model")});
    const auto model = load_model(body.path);
    CHECK(!model->arch().lm);
    REQUIRE(model->pooler);
    const SafetensorsReader outputs(fixture(family) / "outputs.safetensors");
    const Batch batch = batch_of(outputs);
    Ctx one, other;
    const Sequence rows = model->forward(batch, one);
    CHECK(same_bits(rows.rows.value(), whole->forward(batch, other).rows.value()));
    contains(error_of([&] { model->lm_logits(rows, {0}, one); }), "without a head");
    const Folder again;
    save_model(*model, again.path, FileDtype::f32, nullptr);
    CHECK(load_model(again.path)->hash() == model->hash());
    const SafetensorsReader saved(again / "model.safetensors");
    CHECK(saved.tensors().contains("pooler.dense.weight"));
    CHECK(saved.tensors().contains("encoder.layer.1.output.dense.weight"));
    body.rename([](const std::string& n) {
      return n.starts_with("pooler") ? std::vector<std::string>{} : std::vector<std::string>{n};
    });
    CHECK(!load_model(body.path)->pooler);
  }
}

TEST_CASE("folders for check_roundtrip.py" * doctest::skip()) {
  const char* out = std::getenv("GRAFT_ROUNDTRIP");
  if (!out) {
    MESSAGE("SKIPPED: GRAFT_ROUNDTRIP names no folder to write to");
    return;
  }
  std::vector<std::string> names(std::begin(kFamilies), std::end(kFamilies));
  names.insert(names.end(), {"graft-encoder", "graft-decoder", "graft-t5"});
  const std::string_view text = "the quick brown fox jumps over the lazy dog";
  BpeTraining options{.vocab_size = 270,
                      .specials = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}};
  const Tokenizer tokenizer = train_bpe(std::span(&text, 1), options);
  for (const std::string& name : names) {
    const bool own = name.starts_with("graft");
    const auto model = own ? std::make_unique<Model>(arch_named(name), Build{.seed = 7})
                           : load_model(fixture(name));
    const fs::path folder = fs::path(out) / name;
    const Tokenizer marked = tokenizer.with_sentinels(2);
    save_model(*model, folder, FileDtype::f32,
               !own             ? nullptr
               : model->encoder ? &marked
                                : &tokenizer);
    Batch batch;
    batch.token = {7, 30, 12, 9, 44, 8, 21}, batch.length = {5, 2}, batch.example = {0, 1};
    if (model->encoder) batch.source = std::make_shared<Batch>(batch);
    const Array logits = logits_of(*model, batch).value();
    SafetensorsWriter writer;
    writer.add("tokens", FileDtype::i32, {7}, std::as_bytes(std::span(batch.token)));
    writer.add("lengths", FileDtype::i32, {2}, std::as_bytes(std::span(batch.length)));
    writer.add("logits", FileDtype::f32, logits.shape(),
               std::span(logits.data<float>(), static_cast<std::size_t>(logits.numel())));
    writer.write(folder / "outputs.safetensors");
  }
}
