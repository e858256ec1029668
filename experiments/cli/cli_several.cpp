// graft combine: several LoRA adapters as one.
#include <filesystem>

#include "experiments/cli/cli.h"
#include "nn/models/folder.h"
#include "peft/combine.h"
#include "peft/files.h"

namespace graft::cli {
namespace {

struct CombineOptions {
  std::vector<std::string> adapters;
  CombineSpec spec;
  std::string out;
  int head = 0;
};

void combine_command(const CombineOptions& o) {
  check(!std::filesystem::exists(std::filesystem::path(o.out) / "adapter_config.json"),
        "combine: '{}' has an adapter already; give another --out", o.out);
  std::vector<LoraValues> all;
  std::vector<nlohmann::json> more;
  for (const std::string& folder : o.adapters) {
    const AdapterFile file = read_adapter_config(folder);
    all.push_back({folder, file.spec, read_adapter_values(folder)});
    more.push_back(file.more);
    for (const char* key : {"model", "base_hash"})
      check(file.more.contains(key), "combine: '{}' lacks '{}' in its configuration", folder, key);
    check(file.more.at("base_hash") == more[0].at("base_hash"),
          "combine: '{}' was trained on another base than '{}'", folder, o.adapters[0]);
  }
  CombinedLora made = combine(all, o.spec, load_arch(base_folder(more[0].at("model"))));
  const bool heads = std::ranges::any_of(more, [](const nlohmann::json& m) {
    return m.contains("head") && !m.value("language", false) && !m.value("text", false);
  });
  const int count = static_cast<int>(all.size());
  check(0 <= o.head && o.head <= count && (o.head == 0 || heads), "combine: --head {}; {}", o.head,
        heads ? fmt::format("need 1..{}", count) : "these adapters have no heads");
  check(o.head > 0 || !heads,
        "combine: these adapters have heads of their tasks, which are not combined; --head 1 takes "
        "the first one's");
  const std::size_t kept = o.head > 0 ? static_cast<std::size_t>(o.head - 1) : 0;
  if (o.head > 0)
    for (const auto& [label, value] : all[kept].values)
      if (label.find(" lora_") == std::string::npos) {
        auto p = std::make_shared<Parameter>();
        const std::size_t at = label.rfind(' ');
        p->name = label.substr(at + 1), p->value = Tensor(value);
        const std::size_t part = label.rfind(' ', at - 1);
        p->site = {label.starts_with("encoder") ? Stack::encoder : Stack::decoder, -1,
                   part_named(label.substr(part + 1, at - part - 1))};
        check(p->label() == label, "combine: '{}' in '{}' is no head's", label, all[kept].name);
        made.parameters.push_back(std::move(p));
      }
  save_adapter(o.out, made.spec, made.parameters, more[kept]);
  fmt::print("{} adapters by {} in {}: {}\n", count, made.how, o.out, made.spec);
  if (made.how.ends_with("svd"))
    fmt::print("cut off {:.3g} of the update (Frobenius), of the worst matrix {:.3g}\n", made.cut,
               made.worst_cut);
}

}  // namespace

void add_combine(const Command& app) {
  static CombineOptions o;
  const Command c =
      app.add_subcommand("combine", "Make several LoRA adapters of one base into one");
  c.add_option("--adapter", o.adapters, "an adapter's folder; several times").required();
  c.add_option("--weights", o.spec.weights, "of each, as in .7,.3; below 0 takes away")
      .delimiter(',')
      .required();
  c.add_option("--how", o.spec.how,
               "cat (exact, ranks add up), svd, linear, ties, dare_linear, dare_ties, "
               "magnitude_prune, and these with _svd")
      .capture_default_str();
  c.add_option("--density", o.spec.density, "part of the entries that stays: ties, dare_*");
  c.add_option("--sign", o.spec.sign, "of ties: total (the standard) or frequency");
  c.add_option("--rank", o.spec.rank,
               "of svd, at least 1; without it the largest of the adapters'");
  c.add_option("--seed", o.spec.seed, "of dare; without it 0");
  c.add_option("--head", o.head, "take the head and task of the first, second, ... adapter");
  c.add_option("--out", o.out).required();
  c.callback([] { combine_command(o); });
}

}  // namespace graft::cli
