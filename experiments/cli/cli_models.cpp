// graft methods, count, explain, check: what can be said of a method without training it.
#include <omp.h>

#include <algorithm>

#include "experiments/cli/cli.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "peft/contract.h"
#include "peft/merge_report.h"
#include "peft/trainable.h"

namespace graft::cli {
namespace {

// Of a base or a model's folder; else of a preset.
Arch arch_of(const std::string& name) {
  if (const auto base = find_base(name)) return load_arch(*base);
  const std::vector<std::string> presets = arch_names();
  check(std::ranges::count(presets, name) > 0,
        "'{}' is no base, no folder with a config.json, and no preset; the presets are {}", name,
        fmt::join(presets, ", "));
  return arch_named(name);
}

void methods_command(const Methods& methods) {
  for (const Method& m : methods)
    fmt::print(
        "{}\n  from     {}\n  edits    {}\n  trains   {}\n  options  {}\n  merges   {}\n  start    "
        "{}\n",
        m.name, m.paper, m.slots, m.formula, m.options.empty() ? "none" : m.options,
        m.mergeable ? "yes" : "no", m.starts_as_base ? "the base, bit for bit" : "near the base");
}

void count_command(const Methods& methods, const std::string& arch, const std::string& spec) {
  Model model(arch_of(arch), {.storage = false});
  const Adaptation adaptation(methods, spec, model);
  check(adaptation.count() == adaptation.formula(), "count: {} allocated, but the formula says {}",
        adaptation.count(), adaptation.formula());
  fmt::print("{}\n", trainable_line(model, adaptation));  // alone on standard output, for scripts
  std::fflush(stdout);
  fmt::print(stderr, "merges: {}\n", merges_in_words(adaptation));
}

void explain_command(const Methods& methods, const std::string& arch, const std::string& spec) {
  Model model(arch_of(arch), {.storage = false});
  const Adaptation adaptation(methods, spec, model);
  for (const auto& a : adaptation.adapters()) {
    fmt::print("{}\n", a->name());
    for (const auto& f : a->fired())
      fmt::print("  edit       {:<28} {}\n", to_string(f.site), f.name);
    for (const auto& p : a->parameters())
      fmt::print("  parameter  {:<28} {:<14} {:<18}{:<10}from {}{}\n", to_string(p->site), p->name,
                 fmt::format("{}", p->value.shape()), p->decay ? "decays" : "no decay",
                 a->begins_as(*p), p->lr_scale == 1 ? "" : fmt::format("  rate x {}", p->lr_scale));
  }
  fmt::print("{} numbers train\nmerges: {}\n", adaptation.count(), merges_in_words(adaptation));
}

std::string body_in_words(Body kind) {
  const Arch a = contract_arch(kind);
  return fmt::format("a small {} (width {}, {} layers, {} positions)", name(kind), a.width,
                     a.layers, a.positions);
}

// What does not fit the bodies is said with their sizes.
template <class Run>
auto on_body(const std::string& spec, Body kind, const Run& run) {
  try {
    return run();
  } catch (const Error& e) {
    fail("check: {} on {}: {}", spec, body_in_words(kind), e.what());
  }
}

void check_alone(const Methods& methods, const std::string& spec, Device device) {
  bool kept = true;
  for (const Body kind : kBodies) {
    const auto findings =
        on_body(spec, kind, [&] { return run_contract(methods, spec, kind, device); });
    fmt::print("{} on a small {}\n{}", spec, name(kind), text_of(findings));
    kept &= all_kept(findings);
  }
  check(kept, "check: {} breaks the contract", spec);
}

void check_pairs(const Methods& methods, const std::string& spec) {
  constexpr const char* kWords[] = {"composes", "refused", "BROKEN"};
  int broken = 0;
  for (const Body kind : kBodies) {
    Model shapes(contract_arch(kind), {.storage = false});
    on_body(spec, kind, [&] { const Adaptation alone(methods, spec, shapes); });
    PairBody body(methods, kind);
    for (const Method& m : methods)
      for (const PairResult& r : {body.check(spec, m.example), body.check(m.example, spec)}) {
        fmt::print("{:8}  {} on a small {}: {}\n", kWords[r.kind], r.spec, name(kind), r.detail);
        broken += r.kind == PairResult::broken;
      }
  }
  check(broken == 0, "check: {} pairs with {} neither compose nor are refused", broken, spec);
}

}  // namespace

void add_model_commands(const Command& app, const Methods& methods) {
  static std::string arch, spec;
  static bool pairs = false;
  static std::string device = "cpu";
  app.add_subcommand("methods", "List the methods: paper, slots, count, whether they merge")
      .callback([&] { methods_command(methods); });

  const Command count =
      app.add_subcommand("count", "Trainable parameters of a method, from shapes alone");
  count
      .add_option("--arch,--model", arch,
                  "a base's name, a model folder, or a preset: opt-6.7b, gpt3-175b, bert-base, "
                  "llama-7b, ...; an unknown name lists all presets")
      .required();
  count.add_option("--method", spec, "e.g. lora:r=16,on=q+v").required();
  count.callback([&] { count_command(methods, arch, spec); });

  const Command explain =
      app.add_subcommand("explain", "Every edit and every trainable tensor of a method in a model");
  explain.add_option("--model,--arch", arch, "a base's name, a model folder or a preset")
      .required();
  explain.add_option("--method", spec, "e.g. houlsby:m=64|bitfit").required();
  explain.callback([&] { explain_command(methods, arch, spec); });

  std::vector<std::string> bodies;
  for (const Body kind : kBodies) bodies.push_back(body_in_words(kind));
  const Command contract =
      app.add_subcommand("check", fmt::format("Put a method through the method contract on small "
                                              "models: {}; its options must fit them",
                                              fmt::join(bodies, ", ")));
  contract.add_option("spec", spec, "e.g. lora:r=2,on=q+v").required();
  const Option in_pairs =
      contract.add_flag("--pairs", pairs, "in pairs with every method there is, in both orders");
  contract.add_option("--device", device, kDeviceHelp).capture_default_str().excludes(in_pairs);
  contract.callback([&] {
    omp_set_num_threads(1);  // on models this small more of them only wait for each other
    if (pairs) return check_pairs(methods, spec);
    check_alone(methods, spec, device_named(device));
  });
}

}  // namespace graft::cli
