// Pretraining on sixty lines, for tests.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "experiments/pretrain/pretrain.h"
#include "nn/files/atomic.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

namespace graft::testing {

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
inline PretrainSpec small_run(const std::string& kind, const Folder& folder) {
  tokenizer().save(folder / "tokenizer.json");
  std::string text;
  for (std::uint32_t i = 0; i < 60; ++i) text += sentence(i) + "\n";
  write_file_atomically(folder / "text", text);
  PretrainSpec spec;
  spec.arch = arch_named("graft-" + kind);
  spec.arch.vocab = tokenizer().size() + (kind == "t5" ? 6 : 0);
  spec.arch.width = 12, spec.arch.layers = 2, spec.arch.heads = spec.arch.kv_heads = 2;
  spec.arch.hidden = 20;
  if (kind == "t5")
    spec.arch.encoder_layers = 2, spec.arch.head_size = 6;
  else
    spec.arch.positions = 32;
  if (kind != "decoder") spec.arch.dropout = 0.1;  // LLaMA's configuration has none
  spec.train = spec.heldout = folder / "text";
  spec.tokenizer = folder / "tokenizer.json";
  spec.out = folder / "whole";
  spec.length = 16, spec.batch = 4, spec.steps = 14, spec.warmup = 2, spec.cooldown = 4;
  spec.eval_every = 5;
  return spec;
}

}  // namespace graft::testing
