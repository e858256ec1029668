// A method of one's own and an ablation of it, outside graft: LoRA with its A tied.
//
//     h = W0 x + B_l A x,   A [r, in] one for all layers of a stack and part, B_l [out, r] of
//                           layer l
//
// After Renduchintala et al. 2023 (Tied-LoRA, 2311.09578), whose scaling vectors are left out.
// Trains: A and every B_l. Count: r (in + L out) for each part. Start: B = 0, the base bit for bit.
//
//   tied OUT        the method contract on three bodies, then the ablation; its page is in OUT
//   tied graft ...  every command of `graft`, with this method among the others:
//                   tied graft explain --model DIR --method tied:r=2,on=q+v
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "experiments/ablations/sweep.h"
#include "experiments/cli/main.h"
#include "nn/files/atomic.h"
#include "peft/contract.h"
#include "peft/methods.h"
#include "peft/part_shapes.h"

using namespace graft;

namespace {

struct Tied : Adapter {
  Tied(Options& o, const Arch& arch)
      : Adapter("tied"), where(o.where("q+v", arch)), r(o.integer("r", 8)) {}

  void attach(Model& m) override {
    std::map<std::pair<Stack, Part>, Tensor> shared;
    for (Linear* l : m.linears(where)) {
      Tensor& a = shared[{l->site.stack, l->site.part}];
      const Init gaussian{Init::Kind::normal, 1 / std::sqrt(3.0 * l->in())};
      if (!a.defined())
        a = param(m, {l->site.stack, -1, l->site.part}, "tied_A", {r, l->in()}, gaussian);
      const Tensor b = param(m, l->site, "tied_B", {l->out_width(), r}, {});  // zeros
      hold(l->site, l->out.add("tied", [a, b](Tensor y, const Tensor& x, const Ctx&) {
        return add_linear(std::move(y), linear(x, a), b, 1);
      }));
    }
  }

  std::int64_t formula(const Arch& arch) const override {
    std::int64_t count = 0;
    for (const Arch& stack : arch.stacks())
      for (Part part : where.parts) {
        const std::int64_t layers = count_of(where, stack, part);
        const PartShape s = shape_of(stack, part);
        if (layers > 0) count += r * (s.in + layers * s.out);
      }
    return count;
  }

  Where where;
  int r;
};

Methods with_tied() {
  Methods all = all_methods();
  all.push_back({.name = "tied",
                 .paper = "after Renduchintala et al. 2023",
                 .slots = "linear out",
                 .formula = "r (in + L out) per part",
                 .options = "r=8 on=q+v layers=all",
                 .mergeable = false,
                 .starts_as_base = true,
                 .make = [](Options& o, const Arch& a) -> std::unique_ptr<Adapter> {
                   return std::make_unique<Tied>(o, a);
                 },
                 .example = "tied:r=2,on=q+v"});
  return all;
}

// What the sea is like: a task as a folder of files.
std::filesystem::path write_task(const std::filesystem::path& folder) {
  const char* const words[2][4] = {{"calm", "smooth", "quiet", "gentle"},
                                   {"rough", "stormy", "angry", "wild"}};
  std::string rows = "text,label\n";
  for (int i = 0; i < 200; ++i)
    rows += fmt::format("The sea was {} on day {},{}\n", words[i % 2][i / 2 % 4], i,
                        i % 2 ? "stay" : "sail");
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "rows.csv", rows);
  write_file_atomically(folder / "task.json",
                        R"({"format": "csv", "train": "rows.csv", "a": "text", "label": "label"})");
  return folder;
}

int run(const std::filesystem::path& out) {
  const Methods methods = with_tied();
  for (const Body body : kBodies) {
    const auto clauses = run_contract(methods, methods.back().example, body);
    fmt::print("{}:\n{}", name(body), text_of(clauses));
    if (!all_kept(clauses)) return 1;
  }
  // One budget, A tied or not: 3 layers of width 96, 2 parts.
  const nlohmann::json ablation = {{"name", "tied or not"},
                                   {"base", GRAFT_BASES "/tiny"},
                                   {"task", write_task(out / "task").string()},
                                   {"grid", {{"method", {"tied:r=3,on=q+v", "lora:r=2,on=q+v"}}}},
                                   {"lr", 1e-2},
                                   {"epochs", 2},
                                   {"batch", 16},
                                   {"seeds", {1, 2}}};
  Lab lab(methods, cli::base_folder);
  fmt::print("report: {}\n",
             run_sweep(lab, cli::base_folder, ablation, out / "ablation", {}, 0).string());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "graft") return cli_main(argc - 1, argv + 1, with_tied());
  try {
    return run(argc > 1 ? argv[1] : "tied-results");
  } catch (const std::exception& e) {
    fmt::print(stderr, "tied: {}\n", e.what());
    return 1;
  }
}
