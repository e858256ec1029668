// Training steps of the workloads and methods that experiments/bench/against_pytorch.sh compares
// with PyTorch's.
//
//     bench_train list [--device cuda]
//     bench_train prepare WORKLOAD METHOD --out FOLDER --batches N   prints the cell's folder
//     bench_train run CELL [--device cuda] [--compute bf16]
//     bench_train draw RESULTS.json STEM   writes STEM-time.svg and STEM-memory.svg
//
// run says one JSON line when its first step is done, and then answers lines of standard input with
// one each, so that two programs can take turns:
//     steps I N    N steps, with batches I, I + 1, ...; behind the last comes the first again:
//                  {"loss": [...], "norm": [...], "seconds": of all}
//     products     GFLOP/s of a product of 4096^3, ours and OpenBLAS's: {"ours", "blas", "core"};
//                  on a device both are cuBLAS's
//     memory       the most bytes there were at once on the device: {"peak"}
#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "experiments/ablations/lab.h"
#include "experiments/bench/trainer.h"
#include "experiments/bench/workloads.h"
#include "experiments/bench/yardstick.h"
#include "experiments/harness/plot.h"
#include "experiments/runs/computing.h"
#include "nn/files/strict_json.h"
#include "nn/models/folder.h"
#include "tensor/cuda/runtime.h"

namespace graft {
namespace {

using nlohmann::json;

void say(const json& line) {
  fmt::print("{}\n", line.dump());
  std::fflush(stdout);
}

void list(Device device) {
  for (const Workload& w : workloads())
    for (const std::string& method : method_names())
      if (const Cell cell = cell_named(w.name, method);
          cell.why_not.empty() && (!w.for_devices || device == Device::cuda))
        fmt::print("{} {}\n", w.name, method);
}

json steps(Trainer& trainer, const PreparedCell& cell, std::size_t first, std::size_t count) {
  std::vector<double> loss, norm;
  double seconds = 0;
  for (std::size_t i = first; i < first + count; ++i) {
    const StepResult r = trainer.step(cell.batches[i % cell.batches.size()], cell.rate);
    loss.push_back(r.loss), norm.push_back(r.norm), seconds += r.seconds;
  }
  return {{"loss", loss}, {"norm", norm}, {"seconds", seconds}};
}

json products(const Computing& where) {
  if (where.device == "cuda") {
    const double rate = device_matrix_rate(4096, compute_named(where.compute)) / 1e9;
    return {{"ours", rate}, {"blas", rate}, {"core", cuda::device_name()}};
  }
  static Products all;
  static const double warm = all.ours() + all.openblas();
  check(warm > 0, "bench_train: the clock stands still");
  const double ours = all.ours(), blas = all.openblas();
  return {{"ours", all.flop() / ours / 1e9},
          {"blas", all.flop() / blas / 1e9},
          {"core", openblas_core()}};
}

void run(const std::string& folder, const Computing& where) {
  const PreparedCell cell = read_cell(folder);
  auto model = load_model(cell.model);
  model->move_to(device_of(where));
  Trainer trainer(std::move(model), cell.spec);
  if (const Dtype compute = compute_named(where.compute); is_half(compute))
    trainer.compute_in(compute);
  pool::reset_peak();
  json line = steps(trainer, cell, 0, 1);
  line["trainable"] = trainer.trainable();
  line["kernels"] = core_name();
  say(line);
  for (std::string asked; std::getline(std::cin, asked);) {
    std::istringstream words(asked);
    std::string verb;
    std::size_t first = 0, count = 0;
    words >> verb;
    if (verb == "products") {
      say(products(where));
      continue;
    }
    if (verb == "memory") {
      say({{"peak", pool::peak_bytes(Device::cuda)}});
      continue;
    }
    check(verb == "steps" && words >> first >> count && count > 0,
          "bench_train: '{}'; need `steps I N`, `products` or `memory`", asked);
    say(steps(trainer, cell, first, count));
  }
}

// One bar for each workload that was run with a method.
GroupPlot bars(const json& cells, const std::string& title,
               const std::function<PlotPoint(const json&)>& point) {
  GroupPlot plot;
  plot.ours.title = title;
  plot.ours.y_label = "ours / PyTorch's";
  plot.ours.baselines = {{"as PyTorch", 1.0, {}}};
  std::map<std::string, std::size_t> group, series;
  for (const json& cell : cells) {
    if (!cell.at("valid").get<bool>()) continue;  // the two sides did not do the same
    const std::string method = cell.at("method"), workload = cell.at("workload");
    if (group.emplace(method, plot.groups.size()).second) plot.groups.push_back(method);
    if (series.emplace(workload, plot.ours.series.size()).second)
      plot.ours.series.push_back({workload, {}});
    PlotPoint p = point(cell);
    p.x = double(group.at(method));
    plot.ours.series[series.at(workload)].points.push_back(p);
  }
  return plot;
}

void draw_ratios(const std::string& results, const std::string& stem) {
  const json cells = parse_strict(results, read_file(results)).at("cells");
  const auto time = [](const json& cell) {
    const json& r = cell.at("ratio");
    return PlotPoint{0, r.at("median"), Interval{r.at("low"), r.at("high")}};
  };
  const auto memory = [](const json& cell) {
    const json& m = cell.at("memory");
    return PlotPoint{0, m.at("graft").get<double>() / m.at("pytorch").get<double>(), {}};
  };
  draw(bars(cells, "Time of a training step, with its quartiles", time), stem + "-time");
  draw(bars(cells, "Peak memory of training", memory), stem + "-memory");
  fmt::print("{0}-time.svg, {0}-memory.svg\n", stem);
}

int main_of(int argc, char** argv) {
  CLI::App app("Training steps, timed beside PyTorch's");
  app.require_subcommand(1);
  std::string listed_for = "cpu";
  CLI::App* listed = app.add_subcommand("list", "The cells there are");
  listed->add_option("--device", listed_for)->check(CLI::IsMember({"cpu", "cuda"}));
  listed->callback([&] { list(listed_for == "cuda" ? Device::cuda : Device::cpu); });
  std::string workload, method, out, folder;
  int batches = 40;
  TextSource from;
  CLI::App* made = app.add_subcommand("prepare", "Write a cell's files");
  made->add_option("workload", workload)->required();
  made->add_option("method", method)->required();
  made->add_option("--out", out, "folder of models and cells")->required();
  made->add_option("--batches", batches)->check(CLI::PositiveNumber)->capture_default_str();
  made->add_option("--sst2", from.sst2, "GLUE's SST-2, for the lengths of bert's texts");
  made->add_option("--tokenizer", from.tokenizer, "and the tokenizer that gives them");
  made->callback([&] {
    fmt::print("{}\n", prepare(cell_named(workload, method), out, batches, from).string());
  });
  CLI::App* ran = app.add_subcommand("run", "Train, a step for each line that is read");
  ran->add_option("cell", folder)->required();
  Computing where;
  ran->add_option("--device", where.device, "cpu or cuda")->capture_default_str();
  ran->add_option("--compute", where.compute, "f32, or on a device bf16 or f16")
      ->capture_default_str();
  ran->callback([&] { run(folder, where); });
  std::string results, stem;
  CLI::App* drawn = app.add_subcommand("draw", "Figures of what against_pytorch.sh measured");
  drawn->add_option("results", results)->required();
  drawn->add_option("stem", stem)->required();
  drawn->callback([&] { draw_ratios(results, stem); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return 0;
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  try {
    return graft::main_of(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_train: {}\n", error.what());
    return 1;
  }
}
