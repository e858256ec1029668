// How a LoRA step's time and memory grow, and what theory says that they should.
//
//     bench_growth [--along A,B] [--steps N] [--out FOLDER]
//
// A decoder of GPT-2's kind is varied along one thing at a time: tokens (in sequences of 64),
// length (one sequence), batch (2048 tokens in so many sequences), layers, width, rank. Memory is
// the most that lies in the pool during a step beyond what lies there before it: weights, adapter
// and optimizer are not among it. Both are shown per token, so that what grows with the tokens is
// a flat line.
//
// Theory, per token (sequences of s; d width, F hidden, L layers, V vocabulary, r rank):
//   time    (L (4P + 6sd + 24rd) + 4dV) / the rate of our own product of 4096^3 in the same run;
//           P = 4d^2 + 2dF. Half of 12sd: a token attends to those before it.
//   memory  4L (6d + F) bytes: what frozen blocks must keep for backward.
// Writes FOLDER/growth.json, and for each thing growth-time-THING.svg and growth-memory-THING.svg.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "experiments/ablations/lab.h"
#include "experiments/bench/trainer.h"
#include "experiments/bench/yardstick.h"
#include "experiments/harness/plot.h"
#include "nn/files/atomic.h"
#include "nn/models/presets.h"
#include "tensor/pool.h"

namespace graft {
namespace {

using nlohmann::json;

struct Point {
  int sequences = 4, length = 256, layers = 4, width = 384, rank = 8;
};

struct Line {
  std::string name, label;
  std::vector<int> at;
  void (*set)(Point&, int);
};

const std::vector<Line>& lines() {
  static const std::vector<Line> all{
      {"tokens",
       "tokens, in sequences of 64",
       {64, 128, 256, 512, 1024, 2048, 4096, 8192},
       [](Point& p, int v) { p.length = 64, p.sequences = v / 64; }},
      {"length",
       "tokens of one sequence",
       {128, 256, 512, 1024, 2048, 4096, 8192},
       [](Point& p, int v) { p.length = v, p.sequences = 1; }},
      {"batch",
       "sequences of 2048 tokens together",
       {1, 2, 4, 8, 16, 32, 64},
       [](Point& p, int v) { p.sequences = v, p.length = 2048 / v; }},
      {"layers", "layers", {1, 2, 4, 8, 16, 24}, [](Point& p, int v) { p.layers = v; }},
      {"width", "width", {64, 128, 256, 384, 512, 768, 1024}, [](Point& p, int v) { p.width = v; }},
      {"rank", "rank of q's and v's LoRA", {1, 2, 4, 8, 16, 32, 64, 128, 256}, [](Point& p, int v) {
         p.rank = v;
       }}};
  return all;
}

Arch arch_of(const Point& p) {
  Arch a = arch_named("gpt2");
  a.vocab = 8192, a.positions = 8192, a.dropout = a.attention_dropout = 0;
  a.layers = p.layers, a.width = p.width, a.hidden = 4 * p.width;
  a.heads = a.kv_heads = p.width / 64;
  return a;
}

Batch batch_of(const Point& p, int vocab) {
  Batch b;
  for (int s = 0; s < p.sequences; ++s) {
    b.length.push_back(p.length);
    b.example.push_back(static_cast<std::uint32_t>(s));
    for (int i = 0; i < p.length; ++i) {
      b.token.push_back((s * 131 + i * 17) % vocab);
      b.token_label.push_back(i + 1 < p.length ? (s * 131 + i * 17 + 17) % vocab : -1);
    }
  }
  return b;
}

double theory_flop(const Point& p, const Arch& a) {
  const double d = a.width, block = 4 * d * d + 2 * d * a.hidden;
  return p.layers * (4 * block + 6.0 * p.length * d + 24.0 * p.rank * d) + 4 * d * a.vocab;
}
double theory_bytes(const Point& p, const Arch& a) {
  return 4.0 * p.layers * (6.0 * a.width + a.hidden);
}

// Per token.
struct Measured {
  Spread seconds;
  double bytes, kept;
};

Measured measure(const Point& p, const Arch& arch, int steps) {
  Trainer trainer(std::make_unique<Model>(arch, Build{}), fmt::format("lora:r={},on=q+v", p.rank));
  const Batch batch = batch_of(p, arch.vocab);
  const auto tokens = static_cast<double>(batch.tokens());
  // What frozen weights keep packed (tensor/packed.h) is made in the first steps.
  for (int i = 0; i < 3; ++i) trainer.step(batch, 1e-4);
  std::vector<double> seconds;
  const std::size_t before = pool::live_bytes();
  pool::reset_peak();
  for (int i = 0; i < steps; ++i) seconds.push_back(trainer.step(batch, 1e-4).seconds / tokens);
  const double bytes = double(pool::peak_bytes() - before) / tokens;
  return {spread(seconds), bytes, double(trainer.kept_bytes(batch)) / tokens};
}

json grow(const Line& line, double rate, int steps) {
  json points = json::array();
  fmt::print(
      "\n{:>8}  us per token (quartiles)      theory  times  kB per token      kept   theory\n",
      line.name);
  for (const int v : line.at) {
    Point p;
    line.set(p, v);
    const Arch arch = arch_of(p);
    const Measured m = measure(p, arch, steps);
    pool::trim();
    const double seconds = theory_flop(p, arch) / rate, bytes = theory_bytes(p, arch);
    fmt::print("{:>8}  {:8.1f} ({:.1f} to {:.1f}) {:>14.1f} {:>6.2f} {:>13.1f} {:>9.1f} {:>8.1f}\n",
               v, m.seconds.median * 1e6, m.seconds.low * 1e6, m.seconds.high * 1e6, seconds * 1e6,
               m.seconds.median / seconds, m.bytes / 1e3, m.kept / 1e3, bytes / 1e3);
    std::fflush(stdout);
    points.push_back({{"at", v},
                      {"seconds", {m.seconds.low, m.seconds.median, m.seconds.high}},
                      {"theory_seconds", seconds},
                      {"bytes", m.bytes},
                      {"kept", m.kept},
                      {"theory_bytes", bytes}});
  }
  return points;
}

void draw_line(const Line& line, const json& points, const std::filesystem::path& out) {
  LinePlot time{line.label, true, {}, {}}, memory = time;
  time.ours.title = "Time of a LoRA step, per token";
  time.ours.y_label = "microseconds";
  memory.ours.title = "Memory of a LoRA step beside the weights, per token";
  memory.ours.y_label = "kB";
  Series step{"measured (quartiles)", {}}, ideal{"useful FLOP at the product's own rate", {}};
  Series most{"at most in use", {}}, kept{"kept by the blocks for backward", {}},
      least{"4 L (6d + F)", {}};
  for (const json& p : points) {
    const double x = p.at("at");
    const auto s = p.at("seconds").get<std::vector<double>>();
    step.points.push_back({x, s[1] * 1e6, Interval{s[0] * 1e6, s[2] * 1e6}});
    ideal.points.push_back({x, p.at("theory_seconds").get<double>() * 1e6, {}});
    most.points.push_back({x, p.at("bytes").get<double>() / 1e3, {}});
    kept.points.push_back({x, p.at("kept").get<double>() / 1e3, {}});
    least.points.push_back({x, p.at("theory_bytes").get<double>() / 1e3, {}});
  }
  time.ours.series = {step, ideal};
  memory.ours.series = {most, kept, least};
  draw(time, out / ("growth-time-" + line.name));
  draw(memory, out / ("growth-memory-" + line.name));
}

void run(const std::vector<std::string>& along, int steps, const std::filesystem::path& out) {
  std::filesystem::create_directories(out);
  const PlainRate rate = plain_rate();
  fmt::print("{}\n", to_string(rate));
  json all{{"ours", rate.ours / 1e9}, {"openblas", rate.openblas / 1e9}, {"core", openblas_core()}};
  for (const Line& line : lines()) {
    if (!along.empty() && std::ranges::find(along, line.name) == along.end()) continue;
    all[line.name] = grow(line, rate.ours, steps);
    draw_line(line, all[line.name], out);
    write_file_atomically(out / "growth.json", all.dump(1) + "\n");
  }
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  CLI::App app("How a LoRA step's time and memory grow");
  std::vector<std::string> along, names;
  for (const auto& line : graft::lines()) names.push_back(line.name);
  std::string out = "results/growth";
  int steps = 5;
  app.add_option("--along", along, "of tokens, length, batch, layers, width, rank; all")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  app.add_option("--steps", steps)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--out", out)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    graft::run(along, steps, out);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_growth: {}\n", error.what());
    return 1;
  }
}
