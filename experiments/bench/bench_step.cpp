// A training step against this machine's own matrix product: how much of the speed that OpenBLAS
// reaches on a large product a whole LoRA step and a whole full fine-tuning step reach, counting
// useful work only, and what the step keeps in memory.
//
// Useful FLOP of a step of N tokens (sequences of s), per token and block, with P numbers in the
// block's matrices: LoRA 4P + 12sd (forward and the gradient of the input; 6r(a+b) for each LoRA
// matrix besides), full 6P + 12sd. The vocabulary head is frozen: 4dV, or 6dV where it trains.
// Products, attention and LoRA alternate in one process; medians are printed.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "experiments/ablations/lab.h"
#include "experiments/bench/trainer.h"
#include "experiments/bench/yardstick.h"
#include "nn/models/presets.h"

namespace graft {
namespace {

constexpr double kRate = 1e-4;

Batch tokens(const Arch& arch, int sequences, int length) {
  Batch b;
  for (int s = 0; s < sequences; ++s) {
    b.length.push_back(length);
    b.example.push_back(s);
    for (int i = 0; i < length; ++i) {
      b.token.push_back((s * 131 + i * 17) % arch.vocab);
      b.token_label.push_back(i + 1 < length ? (s * 131 + i * 17 + 17) % arch.vocab : -1);
    }
  }
  return b;
}

void run(int layers, int sequences, int length, int steps) {
  Arch arch = arch_named("gpt2");
  arch.layers = layers;
  const double n = double(sequences) * length, d = arch.width, f = arch.hidden;
  const Batch batch = tokens(arch, sequences, length);
  Products products;
  Trainer lora(std::make_unique<Model>(arch, Build{}), "lora:r=8,on=q+v"),
      full(std::make_unique<Model>(arch, Build{}), "full");
  const double p = 4 * d * d + 2 * d * f, head = d * arch.vocab;
  const double lora_flop = n * (layers * (4 * p + 12 * length * d + 6 * 8 * 4 * d) + 4 * head);
  const double full_flop = n * (layers * (6 * p + 12 * length * d) + 6 * head);
  std::vector<double> blas, a, b;
  products.openblas(), lora.step(batch, kRate), full.step(batch, kRate);
  for (int i = 0; i < steps; ++i) {
    blas.push_back(products.openblas());
    const StepResult l = lora.step(batch, kRate), w = full.step(batch, kRate);
    a.push_back(l.seconds), b.push_back(w.seconds);
    fmt::print(
        "step {}: sgemm {:.0f} GFLOP/s; lora {:.2f} s, loss {:.4f}, gradient {:.3g}; full {:.2f} "
        "s, loss {:.4f}, gradient {:.3g}\n",
        i + 1, products.flop() / blas.back() / 1e9, l.seconds, l.loss, l.norm, w.seconds, w.loss,
        w.norm);
    std::fflush(stdout);
  }
  const double rate = products.flop() / median(blas);
  const double ra = lora_flop / median(a), rb = full_flop / median(b);
  fmt::print("\nOpenBLAS core {}, sgemm 4096^3 {:.0f} GFLOP/s; our kernels: {}\n", openblas_core(),
             rate / 1e9, core_name());
  fmt::print("{} layers, width {}, {} x {} tokens, medians of {} steps\n", layers, d, sequences,
             length, steps);
  fmt::print("lora step / sgemm rate        {:.3f}   (aim: at least 0.60)\n", ra / rate);
  fmt::print("lora step / full step, time   {:.3f}   (aim: at most 0.75)\n", median(a) / median(b));
  fmt::print("full rate / lora rate         {:.3f}   (aim: at least 0.95)\n", rb / ra);
  fmt::print("lora: bytes kept per token and block / ((6d+F) 4)  {:.3f}   (aim: at most 1.2)\n",
             double(lora.kept_bytes(batch)) / (n * layers) / ((6 * d + f) * 4));
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 20, layers = argc > 2 ? std::atoi(argv[2]) : 12;
  if (steps < 1 || layers < 1) {
    fmt::print(stderr, "usage: bench_step [steps] [layers]\n");
    return 2;
  }
  try {
    graft::run(layers, 4, 256, steps);
  } catch (const graft::Error& error) {
    fmt::print(stderr, "bench_step: {}\n", error.what());
    return 1;
  }
  return 0;
}
