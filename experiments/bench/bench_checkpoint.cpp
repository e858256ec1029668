// A large checkpoint in half precision: how soon it is open, and what running it takes in memory
// beyond its own file.
//
//     bench_checkpoint FOLDER [ARCH]
//
// Makes a model of ARCH's shapes (opt-1.3b: 2.6 GB) with random f16 weights in FOLDER, where there
// is none, a piece at a time; then opens it, runs 256 tokens forward twice (the first run brings
// the file's pages in), continues them by 64 greedy ones, and prints seconds and the most memory
// that was resident: pages of the file count, too.
#include <cstdio>

#include "experiments/bench/yardstick.h"
#include "nn/generate.h"
#include "nn/models/config.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "nn/models/stored.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

constexpr int kTokens = 256, kNew = 64;

// Uniform of standard deviation 0.02 around `middle`.
SafetensorsWriter::Make random_halves(std::int64_t count, float middle, std::uint64_t seed) {
  return [=](const SafetensorsWriter::Take& take) {
    std::vector<F16> piece;
    std::uint64_t state = seed;
    for (std::int64_t left = count; left > 0; left -= static_cast<std::int64_t>(piece.size())) {
      piece.resize(static_cast<std::size_t>(std::min<std::int64_t>(left, 1 << 20)));
      for (F16& x : piece) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        const float u = static_cast<float>(state >> 40) * 0x1p-24f;
        x = F16(middle + 0.0693f * (u - 0.5f));
      }
      take(std::as_bytes(std::span(piece)));
    }
  };
}

void make(const fs::path& folder, const Arch& arch) {
  Model shapes(arch, Build{.storage = false});
  SafetensorsWriter writer;
  std::uint64_t seed = 1;
  for (const Stored& tensor : stored_tensors(shapes)) {
    const bool gain =
        tensor.shape.size() == 1 && tensor.pieces[0]->parameter().name == "weight";  // of a norm
    writer.add(tensor.name, FileDtype::f16, tensor.shape,
               random_halves(count(tensor.shape), gain ? 1.0f : 0.0f, seed++));
  }
  fs::create_directories(folder);
  writer.write(folder / "model.safetensors");
  write_file_atomically(folder / "config.json", config_text(arch, "float16"));
}

template <class F>
double seconds(F f) {
  const double begun = now();
  f();
  return now() - begun;
}

void run(const fs::path& folder) {
  double bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") bytes += double(entry.file_size());
  std::unique_ptr<Model> model;
  const double before = resident("VmRSS");
  const double opening = seconds([&] { model = load_model(folder); });
  fmt::print("file                     {:9.1f} MB, {} parameters, weights as {}\n", bytes / 1e6,
             model->parameters(), name(model->blocks[0]->mlp.up.w.value().dtype()));
  fmt::print("opened in                {:9.3f} s, {:.1f} MB more resident\n", opening,
             (resident("VmRSS") - before) / 1e6);
  Batch batch;
  batch.length = {kTokens};
  batch.example = {0};
  for (int i = 0; i <= kTokens; ++i) {
    const std::int32_t token = static_cast<std::int32_t>((i * 7919 + 11) % model->arch().vocab);
    if (i > 0) batch.token_label.push_back(token);
    if (i < kTokens) batch.token.push_back(token);
  }
  for (const char* which : {"first", "second"}) {
    double loss = 0;
    const double forward = seconds([&] {
      NoRecord off;
      Ctx ctx;
      loss = model->lm_loss(batch, ctx).item();
    });
    fmt::print("{} tokens forward       {:9.3f} s, the {} time (loss {:.4f})\n", kTokens, forward,
               which, loss);
  }
  GenerateSpec spec;
  spec.max_tokens = kNew;
  const double generating = seconds([&] { generate(*model, {batch.token}, spec); });
  fmt::print("{} tokens, greedy         {:9.3f} s, the prompt's {} among them\n", kNew, generating,
             kTokens);
  fmt::print(
      "most resident            {:9.1f} MB, {:.3f} x the file; of it not the file's {:.1f}\n",
      resident("VmHWM") / 1e6, resident("VmHWM") / bytes, resident("RssAnon") / 1e6);
  fmt::print("pool's peak              {:9.1f} MB\n", double(pool::peak_bytes()) / 1e6);
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  using namespace graft;
  try {
    check(argc == 2 || argc == 3, "usage: bench_checkpoint FOLDER [ARCH]");
    const fs::path folder = argv[1];
    if (!fs::exists(folder / "config.json"))
      make(folder, arch_named(argc > 2 ? argv[2] : "opt-1.3b"));
    run(folder);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_checkpoint: {}\n", error.what());
    return 1;
  }
}
