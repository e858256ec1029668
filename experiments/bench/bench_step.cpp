// A training step against this machine's own matrix product: how much of the speed that OpenBLAS
// reaches on a large product a whole LoRA step and a whole full fine-tuning step reach, counting
// useful work only, and what the step keeps in memory.
//
// Useful FLOP of a step of N tokens (sequences of s), per token and block, with P numbers in the
// block's matrices: LoRA 4P + 12sd (forward and the gradient of the input; 6r(a+b) for each LoRA
// matrix besides), full 6P + 12sd. The vocabulary head is frozen: 4dV, or 6dV where it trains.
// Products, attention and LoRA alternate in one process; medians are printed.
#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "experiments/ablations/lab.h"
#include "nn/models/presets.h"

extern "C" char* openblas_get_corename();

namespace graft {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

double sgemm_seconds() {
  constexpr int n = 4096;
  static std::vector<float> a(std::size_t(n) * n, 0.5f), b(a), c(a);
  const double t = now();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, a.data(), n, b.data(), n, 0,
              c.data(), n);
  return now() - t;
}

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

struct Arm {
  Arm(const Arch& arch, const std::string& spec, int sequences, int length)
      : model(arch, {}),
        adaptation(all_methods(), spec, model),
        optimizer(adaptation.parameters(), {}),
        batch(tokens(arch, sequences, length)) {}

  double step() {
    const double t = now();
    Ctx ctx{.train = true};
    const Tensor l = model.lm_loss(model.forward(batch, ctx), batch, ctx);
    Gradients grads = backward(l);
    norm = optimizer.step(grads, 1e-4);
    loss = l.item();
    return now() - t;
  }
  std::size_t kept_bytes() {
    std::vector<Array> own;
    model.each([&](Weight& w) { own.push_back(w.value().value()); });
    for (const auto& p : adaptation.parameters()) own.push_back(p->value.value());
    Ctx ctx;
    const Sequence s = model.run_blocks(model.embed(batch, ctx), ctx, 0, model.arch().layers);
    return explain(s.rows, own).kept_bytes;
  }

  Model model;
  Adaptation adaptation;
  Optimizer optimizer;
  Batch batch;
  double loss = 0, norm = 0;
};

void run(int layers, int sequences, int length, int steps) {
  Arch arch = arch_named("gpt2");
  arch.layers = layers;
  const double n = double(sequences) * length, d = arch.width, f = arch.hidden;
  Arm lora(arch, "lora:r=8,on=q+v", sequences, length), full(arch, "full", sequences, length);
  const double p = 4 * d * d + 2 * d * f, head = d * arch.vocab;
  const double lora_flop = n * (layers * (4 * p + 12 * length * d + 6 * 8 * 4 * d) + 4 * head);
  const double full_flop = n * (layers * (6 * p + 12 * length * d) + 6 * head);
  std::vector<double> blas, a, b;
  sgemm_seconds(), lora.step(), full.step();
  for (int i = 0; i < steps; ++i) {
    blas.push_back(sgemm_seconds());
    a.push_back(lora.step());
    b.push_back(full.step());
    std::printf(
        "step %d: sgemm %.0f GFLOP/s; lora %.2f s, loss %.4f, gradient %.3g; full %.2f s, loss "
        "%.4f, gradient %.3g\n",
        i + 1, 2 * 4096.0 * 4096 * 4096 / blas.back() / 1e9, a.back(), lora.loss, lora.norm,
        b.back(), full.loss, full.norm);
    std::fflush(stdout);
  }
  const double rate = 2 * 4096.0 * 4096 * 4096 / median(blas);
  std::printf("\nOpenBLAS core %s, sgemm 4096^3 %.0f GFLOP/s; our kernels: %s\n",
              openblas_get_corename(), rate / 1e9, core_name().c_str());
  std::printf("%d layers, width %.0f, %d x %d tokens, medians of %d steps\n", layers, d, sequences,
              length, steps);
  const double ra = lora_flop / median(a), rb = full_flop / median(b);
  std::printf("lora step / sgemm rate        %.3f   (aim: at least 0.60)\n", ra / rate);
  std::printf("lora step / full step, time   %.3f   (aim: at most 0.75)\n", median(a) / median(b));
  std::printf("full rate / lora rate         %.3f   (aim: at least 0.95)\n", rb / ra);
  std::printf("lora: bytes kept per token and block / ((6d+F) 4)  %.3f   (aim: at most 1.2)\n",
              double(lora.kept_bytes()) / (n * layers) / ((6 * d + f) * 4));
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 20, layers = argc > 2 ? std::atoi(argv[2]) : 12;
  if (steps < 1 || layers < 1) {
    std::fprintf(stderr, "usage: bench_step [steps] [layers]\n");
    return 2;
  }
  graft::run(layers, 4, 256, steps);
  return 0;
}
