// Models whose files have half precision: views of the mapped file that compute as if widened.
#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "nn/generate.h"
#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr FileDtype kHalves[] = {FileDtype::f16, FileDtype::bf16};

// A fixture saved again in another type.
struct Stored : Folder {
  Stored(const std::string& family, FileDtype dtype) {
    save_model(*load_model(fixture(family)), path, dtype);
  }
};

// The same model with its weights widened to f32 in memory.
std::unique_ptr<Model> widened_copy(const fs::path& folder) {
  auto model = load_model(folder);
  model->each([](Weight& w) { w.parameter().value = Tensor(w.value().value().own_copy()); });
  return model;
}

Batch fixture_batch(const std::string& family) {
  return batch_of(SafetensorsReader(fixture(family) / "outputs.safetensors"));
}

// Bytes of the files in `folder` that are in this process's memory.
double resident(const fs::path& folder) {
  std::ifstream maps("/proc/self/smaps");
  double bytes = 0;
  bool ours = false;
  for (std::string line; std::getline(maps, line);) {
    const bool field = line.substr(0, line.find(' ')).ends_with(':');  // else a mapping begins
    if (!field) ours = line.find(folder.string()) != std::string::npos;
    if (ours && line.starts_with("Rss:")) bytes += 1024 * std::stod(line.substr(4));
  }
  return bytes;
}

bool in_a_file(const Array& a) { return a.storage()->keepalive != nullptr; }

// The file with one byte more of header, so that no number of more than a byte is aligned.
void misalign(const fs::path& path) {
  std::string bytes = read_file(path);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  bytes.insert(8 + length, " ");
  ++length;
  std::memcpy(bytes.data(), &length, 8);
  write_file_atomically(path, bytes);
}

}  // namespace

TEST_CASE("a model stored in half precision gives the bits of its weights widened") {
  for (const std::string family : kFamilies)
    for (const FileDtype dtype : kHalves) {
      CAPTURE(family);
      CAPTURE(name_of(dtype));
      const Stored folder(family, dtype);
      const auto narrow = load_model(folder.path), wide = widened_copy(folder.path);
      narrow->each([&](Weight& w) {
        CAPTURE(w.parameter().label());
        CHECK(is_half(w.value().dtype()));
        CHECK(in_a_file(w.value().value()));
      });
      const Batch batch = fixture_batch(family);
      CHECK(same_bits(logits_of(*narrow, batch).value(), logits_of(*wide, batch).value()));
      CHECK(narrow->hash() == wide->hash());
    }
}

TEST_CASE("losses over the vocabulary read a half-precision table, tied or not") {
  for (const char* family : {"gpt2", "llama", "bert", "t5"})
    for (const FileDtype dtype : kHalves) {
      CAPTURE(family);
      const Stored folder(family, dtype);
      const auto narrow = load_model(folder.path), wide = widened_copy(folder.path);
      Batch batch = fixture_batch(family);
      batch.token_label = batch.token;
      const auto loss = [&](const Model& model) {
        Ctx ctx;
        return model.lm_loss(model.forward(batch, ctx), batch, ctx).value();
      };
      CHECK(same_bits(loss(*narrow), loss(*wide)));
    }
}

TEST_CASE("files of several types, each tensor in its own, make one model") {
  for (const char* family : {"llama", "opt", "gpt2"}) {
    CAPTURE(family);
    const Stored halves(family, FileDtype::f16), others(family, FileDtype::bf16);
    const Copy whole(family);
    const Folder sharded;
    fs::copy_file(whole / "config.json", sharded / "config.json");
    SafetensorsWriter writers[3];
    ordered_json map;
    int at = 0;
    const SafetensorsReader readers[] = {SafetensorsReader(halves / "model.safetensors"),
                                         SafetensorsReader(others / "model.safetensors"),
                                         SafetensorsReader(whole / "model.safetensors")};
    for (const auto& [name, info] : readers[0].tensors()) {
      const SafetensorsReader& from = readers[at % 3];
      writers[at % 3].add(name, from.at(name).dtype, info.shape, from.bytes(name));
      map[name] = fmt::format("part-{}.safetensors", at++ % 3);
    }
    for (int i = 0; i < 3; ++i)
      writers[i].write(sharded.path / fmt::format("part-{}.safetensors", i));
    write_file_atomically(sharded / "model.safetensors.index.json",
                          ordered_json{{"weight_map", map}}.dump());
    const auto mixed = load_model(sharded.path), wide = widened_copy(sharded.path);
    std::set<Dtype> types;
    mixed->each([&](Weight& w) { types.insert(w.value().dtype()); });
    CHECK(types == std::set<Dtype>{Dtype::f32, Dtype::f16, Dtype::bf16});
    const Batch batch = fixture_batch(family);
    CHECK(same_bits(logits_of(*mixed, batch).value(), logits_of(*wide, batch).value()));
  }
}

TEST_CASE("GPT-2's matrices are views of the file: transposed, three to a tensor, never copied") {
  for (const FileDtype dtype : {FileDtype::f32, FileDtype::f16}) {
    const Stored folder("gpt2", dtype);
    const std::size_t before = pool::live_bytes();
    const auto model = load_model(folder.path);
    CHECK(pool::live_bytes() == before);
    const std::int64_t d = model->arch().width, f = model->arch().hidden;
    const Attention& attention = model->blocks[1]->attention;
    for (const Linear* l : {&attention.q, &attention.k, &attention.v}) {
      CHECK(l->w.value().shape() == Shape{d, d});
      CHECK(l->w.value().value().strides() == Shape{1, 3 * d});
      CHECK(l->w.value().value().storage() == attention.q.w.value().value().storage());
    }
    CHECK(model->blocks[1]->mlp.up.w.value().value().strides() == Shape{1, f});
    CHECK(model->embedding.token.value().value().strides() == Shape{d, 1});
  }
}

TEST_CASE("generation from half precision is generation from the widened weights") {
  for (const char* family : {"gpt2", "llama", "t5-gated"})
    for (const FileDtype dtype : kHalves)
      for (const int beams : {1, 3}) {
        CAPTURE(family);
        CAPTURE(beams);
        const Stored folder(family, dtype);
        const auto narrow = load_model(folder.path), wide = widened_copy(folder.path);
        GenerateSpec spec;
        spec.max_tokens = 7;
        spec.beams = beams;
        const std::vector<std::vector<std::int32_t>> prompts{{7, 31, 8}, {5, 9, 22, 41, 3}};
        const auto a = generate(*narrow, prompts, spec), b = generate(*wide, prompts, spec);
        for (std::size_t i = 0; i < prompts.size(); ++i) {
          CHECK(a[i].tokens == b[i].tokens);
          CHECK(a[i].score == b[i].score);
        }
      }
}

TEST_CASE("opening a model reads no byte of its weights; a forward pass reads what it uses") {
  Arch arch = small_arch(Stack::decoder, 192, 6, 4);
  arch.vocab = 20000;
  const Folder folder;
  {
    Model large(arch, {});
    save_model(large, folder.path, FileDtype::f16);
  }
  const double size = double(fs::file_size(folder / "model.safetensors"));
  REQUIRE(size > 10e6);
  const std::size_t before = pool::live_bytes();
  const auto model = load_model(folder.path);
  CHECK(pool::live_bytes() == before);
  // The system maps some pages around those that are read; there are 16 to a group.
  CHECK(resident(folder.path) <= 131072);
  logits_of(*model, ragged(arch, {5, 3}));
  CHECK(resident(folder.path) >= 0.95 * size);
}

TEST_CASE("tensors that are not aligned in their file are copied, and give the same model") {
  for (const FileDtype dtype : {FileDtype::f32, FileDtype::f16, FileDtype::bf16}) {
    const Stored folder("gpt2", dtype);
    const auto aligned = load_model(folder.path);
    misalign(folder / "model.safetensors");
    const auto model = load_model(folder.path);
    CHECK(model->hash() == aligned->hash());
    CHECK(!in_a_file(model->embedding.token.value().value()));
    const Batch batch = fixture_batch("gpt2");
    CHECK(same_bits(logits_of(*model, batch).value(), logits_of(*aligned, batch).value()));
  }
}

TEST_CASE("with f64 the weights of every type are converted") {
  const Stored folder("opt", FileDtype::bf16);
  const auto wide = load_model(folder.path, Dtype::f64);
  wide->each([](Weight& w) { CHECK(w.value().dtype() == Dtype::f64); });
  const Batch batch = fixture_batch("opt");
  CHECK(difference(logits_of(*load_model(folder.path), batch).value(),
                   logits_of(*wide, batch).value()) < 1e-5);
}

TEST_CASE("the weights of a file cannot be written, and stay when it is replaced") {
  const Stored folder("gpt2", FileDtype::f16);
  const auto model = load_model(folder.path);
  const std::uint64_t hash = model->hash();
  Array& value = model->blocks[0]->mlp.up.w.parameter().value.value();
  contains(error_of([&] { value.fill(1); }), "lies in a mapped file, which is not written");
  save_model(*load_model(fixture("gpt2")), folder.path);
  CHECK(model->hash() == hash);
  CHECK(load_model(folder.path)->hash() != hash);
}

TEST_CASE("an edit of a matrix or a norm sees a half-precision weight as f32") {
  const Stored folder("gpt2", FileDtype::f16);
  const auto narrow = load_model(folder.path), wide = widened_copy(folder.path);
  const Batch batch = fixture_batch("gpt2");
  const auto edited = [&](Model& m) {
    Block& block = *m.blocks[0];
    const Handle matrix = block.mlp.up.weight.add("twice", [](Tensor w, const Ctx&) {
      CHECK(w.dtype() == Dtype::f32);
      return w + w;
    });
    const Handle norm = block.norm1.affine.add("more", [](Affine a, const Ctx&) {
      return Affine{2.0 * a.gain, a.bias + a.gain};
    });
    return logits_of(m, batch).value();
  };
  const Array a = edited(*narrow);
  CHECK(same_bits(a, edited(*wide)));
  CHECK(!same_bits(a, logits_of(*narrow, batch).value()));
}

TEST_CASE("what trains is not stored in half precision") {
  contains(error_of([] { Tensor::leaf(Array::zeros({2}, Dtype::f16), "w"); }),
           "leaf: 'w' is stored as f16; what trains is f32 or f64");
}
