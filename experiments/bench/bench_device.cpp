// Training steps on the CUDA device: seconds, memory, and the part of the device's own matrix rate
// that a step reaches, for each method; and the first losses beside those of the same steps on the
// host, without which a time says nothing. Steps are handed over as graphs (cuda::gathered) and, in
// a column of their own, call by call.
//
// Useful FLOP as in bench_step: per token and block 4P + 12sd for what leaves the base frozen, and
// 6P + 12sd for full fine-tuning, with the vocabulary head's 4dV or 6dV; an adapter's own are not
// counted. A step ends when its loss is on the host.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "experiments/bench/trainer.h"
#include "experiments/bench/workloads.h"
#include "experiments/bench/yardstick.h"
#include "tensor/cuda/runtime.h"

namespace graft {
namespace {

constexpr double kRate = 1e-4;
constexpr int kWarmUp = 6, kOnHost = 2;  // by then a step is a graph

Batch batch_of(const Workload& w, int vocab) {
  Batch b;
  for (int s = 0; s < w.sequences; ++s) {
    b.length.push_back(w.length);
    b.example.push_back(s);
    for (int i = 0; i < w.length; ++i) {
      b.token.push_back((s * 131 + i * 17) % vocab);
      b.token_label.push_back(i + 1 < w.length ? (s * 131 + i * 17 + 17) % vocab : -1);
    }
  }
  return b;
}

std::unique_ptr<Trainer> trainer_on(ArrayKind kind, const Cell& cell) {
  auto model = std::make_unique<Model>(arch_of(cell.workload), Build{.seed = 1});
  if (is_half(kind.dtype))  // as a checkpoint of that type would be loaded
    model->each([&](Weight& w) { w.parameter().value = Tensor(w.value().value().to(kind.dtype)); });
  model->move_to(kind.device);
  auto trainer = std::make_unique<Trainer>(std::move(model), cell.spec);
  if (is_half(kind.dtype)) trainer->compute_in(kind.dtype);
  return trainer;
}

double useful_flop(const Arch& arch, const Workload& w, bool full) {
  const double n = double(w.sequences) * w.length, d = arch.width,
               heads = double(arch.kv_heads) / arch.heads;
  const double p = (2 + 2 * heads) * d * d + (arch.gated ? 3 : 2) * d * arch.hidden;
  const double attended = arch.causal ? 0.5 * (w.length + 1) : w.length;
  return (full ? 6 : 4) * n * (arch.layers * p + d * arch.vocab) +
         12.0 * arch.layers * n * attended * d;
}

// GRAFT_GRAPHS as given, but while one of these lives.
class WithoutGraphs {
 public:
  WithoutGraphs() { setenv("GRAFT_GRAPHS", "0", 1); }
  ~WithoutGraphs() {
    given_ ? setenv("GRAFT_GRAPHS", before_.c_str(), 1) : unsetenv("GRAFT_GRAPHS");
  }

 private:
  const char* const given_ = std::getenv("GRAFT_GRAPHS");
  const std::string before_ = given_ ? given_ : "";
};

// One line of the table. What is wrong with its numbers, "" where nothing is, stands behind them.
std::string measure(const Cell& cell, const std::string& workload, const std::string& method,
                    int steps, bool host, Dtype dtype, double rate) {
  check(cell.workload.length > 0, "workload {} has no fixed length", workload);
  const Arch arch = arch_of(cell.workload);
  const Batch batch = batch_of(cell.workload, arch.vocab);
  pool::trim(), pool::reset_peak();
  StepResult last;
  std::vector<double> seconds, one_by_one, losses;
  long commands = 0;
  std::string wrong;
  {
    const auto trainer = trainer_on({dtype, Device::cuda}, cell);
    for (int i = -kWarmUp; i < steps; ++i) {
      last = trainer->step(batch, kRate);
      losses.push_back(last.loss);
      if (i >= 0) seconds.push_back(last.seconds);
    }
    const cuda::Work before = cuda::work();
    last = trainer->step(batch, kRate);
    commands = cuda::work().commands - before.commands;
    const cuda::Work after = cuda::work();
    if (after.replayed - before.replayed != after.lists - before.lists + after.parts - before.parts)
      wrong = fmt::format("no graph stood in for a step like the ones before {}", after.in_vain);
    const WithoutGraphs off;
    for (int i = 0; i < steps; ++i) one_by_one.push_back(trainer->step(batch, kRate).seconds);
  }
  const double peak = double(pool::peak_bytes(Device::cuda));
  std::string beside = "-";
  if (host) {
    const auto trainer = trainer_on({Dtype::f32, Device::cpu}, cell);
    double loss = 0;
    for (int i = 0; i < kOnHost; ++i) loss = trainer->step(batch, kRate).loss;
    beside = fmt::format("{:.5f}", loss);
    // So that a NaN is wrong, too.
    if (!(std::abs(loss - losses.at(kOnHost - 1)) <
          (is_half(dtype) ? 1e-2 : 1e-3) * std::abs(loss)))
      wrong = fmt::format("step {}'s loss is not the host's {}", kOnHost, wrong);
  }
  fmt::print("{:<10}{:<15}{:>10.2f}{:>14.2f}{:>10}{:>12.3f}{:>10.0f}{:>12.5f}{:>12.4g}{:>12}{}{}\n",
             workload, method, 1e3 * median(seconds), 1e3 * median(one_by_one), commands,
             useful_flop(arch, cell.workload, method == "full") / median(seconds) / rate,
             peak / 1e6, losses.at(kOnHost - 1), last.norm, beside,
             wrong.empty() ? "" : "  FAILED: ", wrong);
  return wrong;
}

// How many methods failed: the others' lines are worth their time all the same.
int run(const std::string& workload, const std::vector<std::string>& methods, int steps, bool host,
        Dtype dtype) {
  (void)device_named("cuda");
  const double rate = device_matrix_rate(4096, dtype);
  fmt::print("{}; {} product 4096^3: {:.1f} TFLOP/s; medians of {} steps\n", cuda::device_name(),
             name(dtype), rate / 1e12, steps);
  fmt::print("{:<10}{:<15}{:>10}{:>14}{:>10}{:>12}{:>10}{:>12}{:>12}{:>12}\n", "workload", "method",
             "ms", "call by call", "commands", "useful/max", "peak MB", "loss", "gradient",
             "host's loss");
  int failed = 0;
  for (const std::string& method : methods) {
    try {
      const Cell cell = cell_named(workload, method);
      if (!cell.why_not.empty()) continue;
      failed += !measure(cell, workload, method, steps, host, dtype, rate).empty();
    } catch (const std::exception& error) {
      fmt::print("{:<10}{:<15}FAILED: {}\n", workload, method, error.what());
      ++failed;
    }
    std::fflush(stdout);
  }
  return failed;
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  std::vector<std::string> given(argv + 1, argv + argc);
  const auto flag = [&given](const char* name) { return std::erase(given, name) > 0; };
  const bool host = flag("--host"), bf16 = flag("--bf16");
  const int steps = given.empty() ? 20 : std::atoi(given[0].c_str());
  if (steps < 1 || given.size() > 3) {
    fmt::print(stderr,
               "usage: bench_device [steps] [workload] [methods] [--bf16] [--host]\n"
               "  --bf16  rows and what is frozen in bf16, masters and sums in f32\n"
               "  --host  two steps of each method on the host in f32, too, and their losses "
               "compared\n");
    return 2;
  }
  std::vector<std::string> methods = graft::method_names();
  if (given.size() > 2) {
    methods.clear();
    std::istringstream names(given[2]);
    for (std::string name; std::getline(names, name, ',');) methods.push_back(name);
  }
  try {
    const int failed = graft::run(given.size() > 1 ? given[1] : "gpt2", methods, steps, host,
                                  bf16 ? graft::Dtype::bf16 : graft::Dtype::f32);
    return failed > 0;
  } catch (const graft::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
