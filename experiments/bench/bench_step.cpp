// A training step against this machine's own matrix product: how much of the speed that OpenBLAS
// reaches on a large product a whole LoRA step and a whole full fine-tuning step reach, counting
// useful work only; what LoRA adds to the frozen model's own passes; what the promise of the same
// bits costs; and what a step keeps in memory.
//
// Useful FLOP of a step, per token and block, with P numbers in the block's matrices and s rows
// that a token attends to: LoRA 4P + 12sd (forward and the gradient of the input; 6r(a+b) for each
// LoRA matrix besides), full 6P + 12sd. In a causal model s is half of the sequence's tokens: the
// other half is not computed. A vocabulary head, where there is one: 4dV, or 6dV where it
// trains. Padding, and what is computed twice, do not count. Everything takes turns in one process,
// every second turn the other way round. A ratio is of two times of one turn; its median and
// quartiles over the turns are printed, without the first ones, which are slower: the pool still
// asks the system for memory then.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "experiments/ablations/lab.h"
#include "experiments/bench/step_products.h"
#include "experiments/bench/trainer.h"
#include "experiments/bench/workloads.h"
#include "experiments/bench/yardstick.h"
#include "nn/models/heads.h"
#include "tensor/packed.h"

namespace graft {
namespace {

constexpr double kRate = 1e-4;
constexpr int kRank = 8, kLabels = 26, kWarmUp = 3;

// Sequences of the workload's length; else the middle of each eighth of supersense's, over and
// over.
Batch batch_of(const Arch& arch, const Workload& w) {
  constexpr int kSentences[] = {7, 10, 12, 15, 18, 22, 27, 37};
  Batch b;
  for (int s = 0; s < w.sequences; ++s) {
    const int length = w.length > 0 ? w.length : kSentences[s % 8];
    b.length.push_back(length);
    b.example.push_back(s);
    b.label.push_back(s % kLabels);
    for (int i = 0; i < length; ++i) {
      b.token.push_back((s * 131 + i * 17) % arch.vocab);
      b.token_label.push_back(i + 1 < length ? (s * 131 + i * 17 + 17) % arch.vocab : -1);
    }
  }
  return b;
}

std::unique_ptr<Model> built(const Arch& arch) {
  auto model = std::make_unique<Model>(arch, Build{.seed = 1});
  if (!arch.causal)
    model->set_head(std::make_unique<LinearHead>(model->build(), arch, kLabels, Pool::mean));
  return model;
}

// Seconds of the passes of a model without an adapter, of which the gradient is wanted at the first
// block's input alone.
double bare_step(Model& model, const Batch& batch) {
  const double begun = now();
  Ctx ctx{.train = true};
  Sequence s = model.embed(batch, ctx);
  s.rows = Tensor::leaf(s.rows.value());
  s = model.finish(model.run_blocks(std::move(s), ctx, 0, model.arch().layers), ctx);
  backward(model.has_head() ? model.head().loss(model.head().scores(model, s, batch, ctx), batch)
                            : model.lm_loss(s, batch, ctx));
  return now() - begun;
}

struct Flop {
  double lora = 0, full = 0;
};
Flop useful(const Arch& arch, const Batch& batch) {
  const double d = arch.width, p = 4 * d * d + 2 * d * arch.hidden, layers = arch.layers;
  double n = 0, pairs = 0;
  for (const int length : batch.length)
    n += length, pairs += arch.causal ? 0.5 * length * (length + 1) : double(length) * length;
  const double head = arch.causal ? 4 * n * d * arch.vocab : 0, attention = layers * 12 * pairs * d;
  return {n * layers * (4 * p + 6 * kRank * 4 * d) + attention + head,
          n * layers * 6 * p + attention + 1.5 * head};
}

// One of the things that take turns, and its seconds in each.
struct Timed {
  std::function<double()> once;
  std::vector<double> seconds = {};
};

// Of each turn `scale` times a's time over b's.
Spread ratio(const Timed& a, const Timed& b, double scale = 1) {
  std::vector<double> of;
  for (std::size_t i = 0; i < a.seconds.size(); ++i)
    of.push_back(scale * a.seconds[i] / b.seconds[i]);
  return spread(of);
}

void run(const std::string& name, int steps) {
  const Workload workload = workload_named(name);
  packed::set_limit(std::size_t{1} << 32);  // no model here takes the room from another
  const Arch arch = arch_of(workload);
  check(!arch.gated, "bench_step: a gated block's products are not counted here");
  const Batch batch = batch_of(arch, workload);
  Trainer lora(built(arch), fmt::format("lora:r={},on=q+v", kRank)), full(built(arch), "full");
  const auto bare = built(arch);
  const double n = double(batch.tokens());
  Products square;
  StepProducts products(*bare, batch.tokens(),
                        std::ranges::count_if(batch.token_label, [](int l) { return l >= 0; }),
                        kRank);
  const auto step = [&](Trainer& trainer, const char* what, Checkpoint checkpoint) {
    return [&trainer, &batch, what, checkpoint] {
      const StepResult r = trainer.step(batch, kRate, checkpoint);
      fmt::print("  {} {:.4f} s, loss {:.4f}, gradient {:.3g};", what, r.seconds, r.loss, r.norm);
      return r.seconds;
    };
  };
  Timed sgemm{[&] { return square.openblas(); }};
  Timed a{step(lora, "lora", Checkpoint::none)}, b{step(full, "full", Checkpoint::none)};
  Timed c{[&] { return bare_step(*bare, batch); }};
  Timed forgetful{step(lora, "with checkpoints", Checkpoint::inner)};
  Timed ours{[&] { return products.ours(); }}, blas{[&] { return products.openblas(); }};
  std::vector<Timed*> turn = {&b, &sgemm, &a, &c, &forgetful, &ours, &blas};
  for (int i = -kWarmUp; i < steps; ++i) {
    if (i == 0)
      for (Timed* timed : turn) timed->seconds.clear();
    fmt::print("{} {}:", i < 0 ? "warm-up" : "turn", i < 0 ? i + kWarmUp : i);
    for (Timed* timed : turn) timed->seconds.push_back(timed->once());
    fmt::print(" sgemm {:.0f} GFLOP/s\n", square.flop() / sgemm.seconds.back() / 1e9);
    std::fflush(stdout);
    std::ranges::reverse(turn);
  }
  const Flop flop = useful(arch, batch);
  fmt::print("\nOpenBLAS core {}, sgemm 4096^3 {:.0f} GFLOP/s; our kernels: {}\n", openblas_core(),
             square.flop() / median(sgemm.seconds) / 1e9, core_name());
  fmt::print(
      "{}: {} layers, width {}, {} sequences, {} tokens, {} turns; {:.0f} MB of frozen weights "
      "packed, of two models\n",
      name, arch.layers, arch.width, workload.sequences, n, steps, double(packed::bytes()) / 1e6);
  fmt::print(
      "seconds, medians: lora {:.4f}, full {:.4f}, no adapter {:.4f}; products {:.4f}, by OpenBLAS "
      "{:.4f}\nratios, medians (quartiles):\n",
      median(a.seconds), median(b.seconds), median(c.seconds), median(ours.seconds),
      median(blas.seconds));
  const auto line = [](const char* what, const Spread& s, const char* reach) {
    fmt::print("{:<46}{:.3f} ({:.3f} to {:.3f})   reach: {}\n", what, s.median, s.low, s.high,
               reach);
  };
  line("lora step, useful FLOP/s / sgemm's", ratio(sgemm, a, flop.lora / square.flop()),
       "at least 0.80");
  line("lora step / the step without adapter", ratio(a, c), "at most 1.06");
  line("lora step / full step", ratio(a, b), "at most 0.70");
  line("full rate / lora rate", ratio(a, b, flop.full / flop.lora), "at least 0.95");
  line("a step's products, ours / OpenBLAS's", ratio(ours, blas), "at most 1.05");
  line("lora step, --checkpoint inner / without", ratio(forgetful, a), "at most 1.30");
  const auto kept = [&](const char* what, Checkpoint checkpoint, const char* reach) {
    const double bytes = double(lora.kept_bytes(batch, checkpoint)) / (n * arch.layers);
    fmt::print("{:<46}{:.3f}   reach: {}\n", what, bytes / ((6.0 * arch.width + arch.hidden) * 4),
               reach);
  };
  kept("lora: bytes kept / token / block / ((6d+F) 4)", Checkpoint::none, "at most 1.05");
  kept("  the same, --checkpoint inner", Checkpoint::inner, "at most 0.30");
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 20;
  if (steps < 1 || argc > 3) {
    fmt::print(stderr, "usage: bench_step [steps] [workload]\n");
    return 2;
  }
  try {
    graft::run(argc > 2 ? argv[2] : "gpt2", steps);
  } catch (const graft::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
