// Eight arms of one base, alone and side by side: what a step costs an arm when its adapter shares
// each product over the frozen base with seven others', and that its numbers are the same.
//
//     bench_joint FOLDER [steps] [batch] [METHOD]
//
// FOLDER: a base, such as experiments/bases/encoder. The arms are one method at eight rates, each
// with its own order of supersense's rows and its own head. Alone and joint steps take turns.
#include <cmath>
#include <cstdio>
#include <memory>
#include <vector>

#include "experiments/bench/trainer.h"
#include "experiments/bench/yardstick.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/run_parts.h"
#include "nn/models/folder.h"
#include "peft/routed.h"

namespace graft {
namespace {

constexpr int kArms = 8;

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

double rate_of(int arm) { return 1e-4 * std::pow(10, 0.25 * arm); }

// What all arms share: the task and which rows each takes when.
struct Work {
  EncodedTask task;
  int batch;
  Batch of(int arm, int step) const {
    const auto order = shuffled(task.train.size(), static_cast<std::uint32_t>(arm), 0);
    const std::size_t first = std::size_t(step) * batch % (task.train.size() - batch);
    return make_batch(task, task.train, order, first, batch);
  }
};

struct Joint {
  Joint(const std::filesystem::path& base, const EncodedTask& task, const RunSpec& spec)
      : model(load_model(base)) {
    std::vector<Routed::Route> routes;
    for (int arm = 0; arm < kArms; ++arm) routes.push_back({fmt::format("{}", arm), spec.method});
    routed = std::make_unique<Routed>(all_methods(), routes, *model);
    for (int arm = 0; arm < kArms; ++arm) {
      routed->set_head(arm, make_head(task, spec, *model));
      rates.push_back(rate_of(arm));
    }
    training = std::make_unique<RoutedTraining>(*routed, *model, std::vector<OptimSpec>(kArms));
  }
  std::vector<RoutedTraining::Step> step(const std::vector<Batch>& batches) {
    Batch all;
    for (int arm = 0; arm < kArms; ++arm) {
      const Batch& b = batches[static_cast<std::size_t>(arm)];
      append(all.token, b.token), append(all.token_type, b.token_type);
      append(all.length, b.length), append(all.example, b.example);
      append(all.label, b.label), append(all.target, b.target);
      all.adapter.insert(all.adapter.end(), b.length.size(), arm);
    }
    return training->step(all, Ctx{.train = true}, rates);
  }
  std::unique_ptr<Model> model;
  std::unique_ptr<Routed> routed;
  std::vector<double> rates;
  std::unique_ptr<RoutedTraining> training;
};

std::unique_ptr<Model> with_head(const std::filesystem::path& base, const EncodedTask& task,
                                 const RunSpec& spec) {
  auto model = load_model(base);
  model->set_head(make_head(task, spec, *model));
  return model;
}

void run(const std::filesystem::path& base, int steps, int batch, const std::string& method) {
  Work work{{}, batch};
  {
    const auto model = load_model(base);
    work.task = encode_task(task_named("supersense"), Tokenizer::load(base), model->arch(),
                            {.train_rows = 3000, .dev_rows = 1, .test_rows = 1});
  }
  const RunSpec spec = [&] {
    RunSpec s;
    s.method = method, s.head = "linear";
    return s;
  }();
  std::vector<std::unique_ptr<Trainer>> alone;
  for (int arm = 0; arm < kArms; ++arm)
    alone.push_back(std::make_unique<Trainer>(with_head(base, work.task, spec), method));
  Joint joint(base, work.task, spec);
  std::vector<double> a, b, ratio;
  for (int step = 0; step < steps + 2; ++step) {
    std::vector<Batch> batches;
    for (int arm = 0; arm < kArms; ++arm) batches.push_back(work.of(arm, step));
    std::vector<double> loss;
    std::vector<RoutedTraining::Step> together;
    const auto each_alone = [&] {
      const double begun = now();
      for (int arm = 0; arm < kArms; ++arm) {
        const auto i = static_cast<std::size_t>(arm);
        loss.push_back(alone[i]->step(batches[i], rate_of(arm)).loss);
      }
      return now() - begun;
    };
    const auto all_joint = [&] {
      const double begun = now();
      together = joint.step(batches);
      return now() - begun;
    };
    double apart = 0, side_by_side = 0;  // every second step the other way round
    if (step % 2 == 0) apart = each_alone(), side_by_side = all_joint();
    if (step % 2 != 0) side_by_side = all_joint(), apart = each_alone();
    for (int arm = 0; arm < kArms; ++arm)
      check(together[static_cast<std::size_t>(arm)].loss == loss[static_cast<std::size_t>(arm)],
            "bench_joint: step {}, arm {}: loss {} alone, {} joint", step, arm,
            loss[static_cast<std::size_t>(arm)], together[static_cast<std::size_t>(arm)].loss);
    if (step < 2) continue;
    a.push_back(apart / kArms), b.push_back(side_by_side / kArms);
    ratio.push_back(b.back() / a.back());
  }
  for (int arm = 0; arm < kArms; ++arm) {
    const Parameters own = joint.routed->parameters(arm);
    const auto i = static_cast<std::size_t>(arm);
    check(hash_of(own) == hash_of(alone[i]->parameters()), "bench_joint: arm {}: other weights",
          arm);
  }
  std::printf("%d arms of %s, %d sequences each, %d steps: all losses and weights the same\n",
              kArms, method.c_str(), batch, steps);
  std::printf("a step of one arm: alone %.2f ms, joint %.2f ms (medians)\n", 1e3 * median(a),
              1e3 * median(b));
  const Spread all = spread(ratio);
  std::printf("joint / alone  %.3f (quartiles %.3f to %.3f; reach: at most 0.9)\n", all.median,
              all.low, all.high);
  std::printf("%s\n", to_string(plain_rate()).c_str());
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  const int steps = argc > 2 ? std::atoi(argv[2]) : 20, batch = argc > 3 ? std::atoi(argv[3]) : 8;
  if (argc < 2 || steps < 1 || batch < 1) {
    std::fprintf(stderr, "usage: bench_joint FOLDER [steps] [batch] [METHOD]\n");
    return 2;
  }
  try {
    graft::run(argv[1], steps, batch, argc > 4 ? argv[4] : "lora:r=8,on=q+v");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_joint: %s\n", e.what());
    return 1;
  }
}
