// What a step costs when the frozen blocks beneath the lowest trained one are computed once for
// each example and kept, beside computing them each time; and that the numbers are the same.
//
//     bench_frozen FOLDER [epochs] [batch] [METHOD]
//
// FOLDER: a base, such as experiments/bases/encoder. Two trainers step through the same rows of
// supersense in turns. In the first epoch the rows are computed and kept; the ratio is of the later
// ones.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <vector>

#include "experiments/bench/trainer.h"
#include "experiments/bench/yardstick.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/run_parts.h"
#include "nn/models/folder.h"

namespace graft {
namespace {

constexpr double kRate = 1e-3;
constexpr std::size_t kMostBytes = std::size_t{1} << 32;

struct Work {
  EncodedTask task;
  int batch;
  int steps() const { return static_cast<int>(task.train.size()) / batch; }
  Batch of(int epoch, int step) const {
    const auto order = shuffled(task.train.size(), 1, static_cast<std::uint32_t>(epoch));
    return make_batch(task, task.train, order, std::size_t(step) * batch, batch);
  }
};

// Each epoch's steps: seconds with and without kept rows.
struct Epoch {
  std::vector<double> kept, computed, ratio;
};

Epoch run_epoch(Trainer& with, Trainer& without, const Work& work, int epoch) {
  Epoch e;
  for (int step = 0; step < work.steps(); ++step) {
    const Batch batch = work.of(epoch, step);
    StepResult a, b;
    if (step % 2) a = with.step(batch, kRate);
    b = without.step(batch, kRate);
    if (step % 2 == 0) a = with.step(batch, kRate);
    check(a.loss == b.loss && a.norm == b.norm,
          "bench_frozen: epoch {}, step {}: loss {} and gradient {} with kept rows, {} and {} "
          "without",
          epoch, step, a.loss, a.norm, b.loss, b.norm);
    e.kept.push_back(a.seconds), e.computed.push_back(b.seconds);
    e.ratio.push_back(a.seconds / b.seconds);
  }
  return e;
}

void run(const std::filesystem::path& base, int epochs, int batch, const std::string& method) {
  RunSpec spec;
  spec.method = method, spec.head = "linear";
  Work work{{}, batch};
  const auto trainer = [&] {
    auto model = load_model(base);
    if (work.task.train.empty())
      work.task = encode_task(task_named("supersense"), Tokenizer::load(base), model->arch(),
                              {.train_rows = 800, .dev_rows = 1, .test_rows = 1});
    model->set_head(make_head(work.task, spec, *model));
    return std::make_unique<Trainer>(std::move(model), method);
  };
  const auto with = trainer(), without = trainer();
  with->keep_frozen_rows(kMostBytes);
  check(with->frozen_rows()->blocks() > 0, "bench_frozen: {} trains in the lowest block", method);
  check(work.steps() > 0, "bench_frozen: a batch of {}; there are {} rows", batch,
        work.task.train.size());
  std::printf("%s, batch %d: %d of the blocks are frozen beneath it\n", method.c_str(), batch,
              with->frozen_rows()->blocks());
  std::vector<double> later;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const Epoch e = run_epoch(*with, *without, work, epoch);
    if (epoch > 0) later.insert(later.end(), e.ratio.begin(), e.ratio.end());
    std::printf("epoch %d: kept %.2f ms, computed %.2f ms a step (medians), ratio %.3f\n",
                epoch + 1, 1e3 * median(e.kept), 1e3 * median(e.computed), median(e.ratio));
    std::fflush(stdout);
  }
  check(hash_of(with->parameters()) == hash_of(without->parameters()),
        "bench_frozen: other weights at the end");
  const Spread all = spread(later);
  std::printf(
      "all losses, gradients and weights the same; %.0f MB of rows kept\n"
      "later epochs, kept / computed  %.3f (quartiles %.3f to %.3f; at most 0.45, aim 0.41)\n",
      double(with->frozen_rows()->bytes()) / 1e6, all.median, all.low, all.high);
  // Last, since OpenBLAS's threads are there from then on.
  std::printf("%s\n", to_string(plain_rate()).c_str());
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  const int epochs = argc > 2 ? std::atoi(argv[2]) : 4, batch = argc > 3 ? std::atoi(argv[3]) : 8;
  if (argc < 2 || epochs < 2 || batch < 1) {
    std::fprintf(stderr,
                 "usage: bench_frozen FOLDER [epochs] [batch] [METHOD]; 2 epochs or more\n");
    return 2;
  }
  try {
    graft::run(argv[1], epochs, batch, argc > 4 ? argv[4] : "lora:r=8,on=q+v,layers=9-11");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_frozen: %s\n", e.what());
    return 1;
  }
}
