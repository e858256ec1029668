// Pretraining runs: windows of a corpus, and the same bits however often a run is stopped.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "experiments/pretrain/pretrain.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

// What is printed meanwhile goes nowhere.
struct Quiet {
  Quiet() : out(::dup(1)) {
    std::fflush(stdout);
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, 1);
    ::close(null);
  }
  ~Quiet() {
    std::fflush(stdout);
    ::dup2(out, 1);
    ::close(out);
  }
  int out;
};

// A few steps on sixty lines; the text and the tokenizer lie in the folder.
PretrainSpec small_run(Stack stack, const Folder& folder) {
  tokenizer().save(folder / "tokenizer.json");
  std::string text;
  for (std::uint32_t i = 0; i < 60; ++i) text += sentence(i) + "\n";
  write_file_atomically(folder / "text", text);
  PretrainSpec spec;
  spec.arch = arch_named(stack == Stack::encoder ? "graft-encoder" : "graft-decoder");
  spec.arch.vocab = tokenizer().size();
  spec.arch.width = 12, spec.arch.layers = 2, spec.arch.heads = spec.arch.kv_heads = 2;
  spec.arch.hidden = 20, spec.arch.positions = 32;
  if (stack == Stack::encoder) spec.arch.dropout = 0.1;  // LLaMA's configuration has none
  spec.train = spec.heldout = folder / "text";
  spec.tokenizer = folder / "tokenizer.json";
  spec.out = folder / "whole";
  spec.length = 16, spec.batch = 4, spec.steps = 14, spec.warmup = 2, spec.cooldown = 4;
  spec.eval_every = 5;
  return spec;
}

}  // namespace

TEST_CASE("pretraining stopped and resumed ends with the bits of one run, and the same log") {
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    const Folder folder;
    PretrainSpec spec = small_run(stack, folder);
    const Quiet quiet;
    const PretrainResult whole = pretrain(spec);
    CHECK(whole.step == 14);
    spec.out = folder / "parts";
    spec.stop_after = 3;
    CHECK(pretrain(spec).step == 3);
    CHECK(pretrain(spec).heldout_loss > 0);  // nothing left to do
    spec.stop_after = 8;
    pretrain(spec);
    std::ofstream(folder / "parts" / "log.jsonl", std::ios::app)
        << "{\"step\": 9, \"train_loss\": 1}\n{\"st";  // logged after the checkpoint, then killed
    spec.stop_after = 0;
    const PretrainResult parts = pretrain(spec);
    CHECK(parts.weights_hash == whole.weights_hash);
    CHECK(parts.heldout_loss == whole.heldout_loss);
    const auto tensors = [](const fs::path& p) {
      return read_file(p / "model" / "model.safetensors");
    };
    CHECK(tensors(folder / "parts") == tensors(folder / "whole"));
    std::string kept;  // lines of the stops themselves are extra
    std::ifstream log(folder / "parts" / "log.jsonl");
    for (std::string line; std::getline(log, line);) {
      const int step = nlohmann::json::parse(line).at("step");
      if (step % 5 == 0 || step == 14) kept += line + "\n";
    }
    CHECK(nlohmann::json::parse(kept.substr(kept.rfind('\n', kept.size() - 2) + 1)) ==
          nlohmann::json::parse([&] {
            const std::string all = read_file(folder / "whole" / "log.jsonl");
            return all.substr(all.rfind('\n', all.size() - 2) + 1);
          }()));
    spec.seed = 1;
    contains(error_of([&] { pretrain(spec); }), "other settings");
    spec.out = folder / "more", spec.batch = 500;
    contains(error_of([&] { pretrain(spec); }), "one step takes 500");
  }
}

TEST_CASE("pretraining killed at random moments ends with the bits and the log of one run") {
  const Threads one(1);
  const Folder folder;
  PretrainSpec spec = small_run(Stack::encoder, folder);
  spec.save_minutes = 0;
  std::uint64_t whole = 0;
  {
    const Quiet quiet;
    whole = pretrain(spec).weights_hash;
  }
  spec.out = folder / "killed";
  std::mt19937 random(7);
  int resumed = 0;
  for (int kills = 0;; ++kills) {
    REQUIRE(kills < 300);
    const bool before = fs::exists(spec.out / "state.safetensors");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const Quiet quiet;
      std::ofstream(folder / "hash") << pretrain(spec).weights_hash << std::flush;
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(2000 + random() % (10000 + 2000 * kills)));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    resumed += before;
    if (!WIFEXITED(status)) continue;
    REQUIRE(WEXITSTATUS(status) == 0);
    break;
  }
  CHECK(resumed > 0);
  CHECK(read_file(folder / "hash") == std::to_string(whole));
  CHECK(read_file(spec.out / "log.jsonl") == read_file(folder / "whole" / "log.jsonl"));
}

TEST_CASE("a deeper model starts from a smaller one's blocks, over and over") {
  Arch shallow = small_arch(Stack::encoder, 12, 2, 2), deep = shallow;
  deep.layers = 4;
  SmallModel from(shallow);
  Model to(deep, {.seed = 99});
  stack_from(to, from);
  for (int i = 0; i < 4; ++i)
    CHECK(same_bits(to.blocks[i]->mlp.up.w.value().value(),
                    from.blocks[i % 2]->mlp.up.w.value().value()));
  CHECK(same_bits(to.embedding.token.value().value(), from.embedding.token.value().value()));
  deep.width = 24;
  Model wider(deep, {});
  contains(error_of([&] { stack_from(wider, from); }), "width 24");
  Arch elsewhere = shallow;
  elsewhere.rope_theta = 500;
  Model rotated(elsewhere, {});
  contains(error_of([&] { stack_from(rotated, from); }), "number of layers only");
}

TEST_CASE("a run starts from the model that a shallower run wrote") {
  for (const Stack stack : {Stack::encoder, Stack::decoder}) {
    const Folder folder;
    const Quiet quiet;
    PretrainSpec spec = small_run(stack, folder);
    spec.arch.dropout = 0;
    spec.steps = spec.stop_after = 2;
    spec.out = folder / "shallow";
    pretrain(spec);
    spec.arch.layers = 4, spec.start_from = spec.out / "model", spec.out = folder / "deep";
    CHECK(pretrain(spec).step == 2);
  }
}

TEST_CASE(
    "windows of a corpus: every epoch its own order, masked as the rule says, and repeatable") {
  const Folder folder;
  const PretrainSpec spec = small_run(Stack::encoder, folder);
  const CorpusWindows encoder(spec.train, tokenizer(), 16, false),
      decoder(spec.train, tokenizer(), 16, true);
  const std::int64_t n = encoder.windows(1, 0);
  CHECK(n * 14 <= encoder.tokens());
  CHECK((n + 2) * 14 > encoder.tokens());
  const Batch all = encoder.batch(1, 0, 0, n, {0.15}), again = encoder.batch(1, 0, 0, n, {0.15});
  CHECK(all.token == again.token);
  CHECK(all.token_label == again.token_label);
  CHECK(std::set(all.example.begin(), all.example.end()).size() == static_cast<std::size_t>(n));
  const Batch part = encoder.batch(1, 0, 2, 3, {0.15});  // any part of it is the same
  CHECK(std::equal(part.token.begin(), part.token.end(), all.token.begin() + 2 * 16));
  CHECK(encoder.batch(1, 1, 0, 4, {0.15}).token != encoder.batch(1, 0, 0, 4, {0.15}).token);
  int chosen = 0, masked = 0, kept = 0;
  for (std::size_t i = 0; i < all.token.size(); ++i) {
    if (i % 16 == 0) CHECK(all.token[i] == 2);
    if (i % 16 == 15) CHECK(all.token[i] == 3);
    if (all.token_label[i] < 0) continue;
    ++chosen;
    masked += all.token[i] == 4;
    kept += all.token[i] == all.token_label[i];
    CHECK(all.token_label[i] != 3);
  }
  CHECK(chosen == doctest::Approx(0.15 * 14 * static_cast<double>(n)).epsilon(0.3));
  CHECK(masked == doctest::Approx(0.8 * chosen).epsilon(0.2));
  CHECK(kept < 0.25 * chosen);
  const Batch next = decoder.batch(1, 0, 0, 3, {});
  for (std::size_t i = 0; i < next.token.size(); ++i)
    CHECK(next.token_label[i] == (i % 16 == 15 ? -1 : next.token[i + 1]));
  contains(error_of([&] { encoder.batch(1, 0, n, 1, {}); }), fmt::format("of {}", n));
}
