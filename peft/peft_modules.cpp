#include "peft/peft_modules.h"

#include <algorithm>
#include <map>

#include "nn/model.h"
#include "nn/models/family.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

// Names of all modules in the family's tables, in every layer.
std::set<std::string> all_names(const Arch& arch) {
  const Family& family = family_named(arch.family);
  std::set<std::string> names;
  const auto add = [&](const std::vector<ModuleName>& table, int layers) {
    for (const ModuleName& m : table) {
      if (m.where && !(arch.*m.where)) continue;
      const std::size_t at = m.module.find("{}");
      if (at == std::string::npos) names.insert(m.module);
      for (int i = 0; at != std::string::npos && i < layers; ++i)
        names.insert(std::string(m.module).replace(at, 2, std::to_string(i)));
    }
  };
  add(family.modules, arch.layers);
  add(family.encoder, arch.encoder_layers);
  return names;
}

// "query" of "bert.encoder.layer.0.attention.self.query": its last `parts` parts.
std::string ending(const std::string& name, int parts) {
  std::size_t at = name.size();
  for (int i = 0; i < parts && at != std::string::npos; ++i)
    at = at == 0 ? std::string::npos : name.rfind('.', at - 1);
  return at == std::string::npos ? name : name.substr(at + 1);
}

}  // namespace

std::vector<PeftModule> peft_modules(const Arch& arch) {
  Model shapes(arch, {.storage = false});
  std::vector<PeftModule> all;
  std::map<std::string, std::size_t> index;
  for (const Linear* l : shapes.linears({linear_parts(arch)})) {
    const std::string name = place_of(arch, l->site, "weight").module;
    const auto [at, fresh] = index.emplace(name, all.size());
    if (fresh) all.push_back({name, l->in(), 0, {}});
    PeftModule& m = all[at->second];
    m.pieces.push_back({l->site, l->out_width()});
    m.out += l->out_width();
  }
  return all;
}

std::vector<PeftModule> peft_norms(const Arch& arch) {
  Model shapes(arch, {.storage = false});
  std::vector<PeftModule> all;
  for (const Norm* norm : shapes.norms())
    all.push_back({place_of(arch, norm->site, "weight").module,
                   arch.width,
                   arch.width,
                   {{norm->site, arch.width}}});
  return all;
}

bool is_target(const std::string& module, const std::string& target) {
  return module == target || module.ends_with("." + target);
}

std::vector<std::string> targets_for(const Arch& arch, const std::set<std::string>& modules) {
  const std::set<std::string> all = all_names(arch);
  std::set<std::string> targets;
  for (const std::string& module : modules) {
    if (std::ranges::any_of(targets, [&](const auto& t) { return is_target(module, t); })) continue;
    std::string target = module;
    for (int parts = 1; parts <= 3; ++parts) {
      const std::string end = ending(module, parts);
      if (std::ranges::all_of(all, [&](const auto& name) {
            return !is_target(name, end) || modules.contains(name);
          })) {
        target = end;
        break;
      }
    }
    targets.insert(target);
  }
  return {targets.begin(), targets.end()};
}

}  // namespace graft
