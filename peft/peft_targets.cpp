#include "peft/peft_targets.h"

#include "peft/part_shapes.h"

namespace graft {
namespace {

using nlohmann::json;

std::vector<int> layers_asked(PeftReading& r) {
  r.asked.insert("layers_to_transform");
  const json given = r.config.value("layers_to_transform", json());
  std::vector<int> layers;
  if (given.is_null()) return layers;
  const json list = given.is_array() ? given : json::array({given});
  for (const json& one : list) {
    if (!one.is_number_unsigned() || one.get<std::uint64_t>() > 100000) {
      r.problem(fmt::format("layers_to_transform has {}; need numbers of layers", one.dump()));
      continue;
    }
    layers.push_back(one);
  }
  // Which of the two numbers in T5's names PEFT takes for the layer depends on its version.
  if (!layers.empty() && r.arch.crosses())
    r.problem("layers_to_transform means different layers in different versions of PEFT");
  return layers;
}

}  // namespace

void check_targets(PeftReading& r, const std::vector<PeftModule>& modules,
                   const std::set<const PeftModule*>& there, const std::string& kind,
                   const std::string& tensor) {
  const json targets_json = r.config.value("target_modules", json());
  const std::vector<std::string> targets = r.texts("target_modules");
  if (targets_json.is_string())
    return r.problem(fmt::format(
        "target_modules is the pattern '{}'; only a list of names is followed here", targets[0]));
  const std::vector<int> layers = layers_asked(r);
  const auto targeted = [&](const PeftModule& m, const std::string& target) {
    return m.name == target ||
           (is_target(m.name, target) &&
            (layers.empty() || std::ranges::count(layers, m.pieces[0].site.layer)));
  };
  for (const std::string& target : targets) {
    bool any = false;
    for (const PeftModule& m : modules) {
      if (!targeted(m, target)) continue;
      any = true;
      if (!there.contains(&m))
        r.problem(
            fmt::format("target_modules has {}, but there is no {}.{}", target, m.name, tensor));
    }
    if (!any) r.problem(fmt::format("target_modules has {}; no {} is called that", target, kind));
  }
  for (const PeftModule* m : there)
    if (std::ranges::none_of(targets, [&](const auto& t) { return targeted(*m, t); }))
      r.problem(fmt::format("{} is in the file, but not in target_modules{}", m->name,
                            layers.empty() ? "" : " and layers_to_transform"));
}

std::string spec_on(PeftReading& r, const std::string& method, const std::set<Site>& sites) {
  const int end = std::max(r.arch.layers, r.arch.encoder_layers) - 1;
  const int both_have = r.arch.crosses() ? std::min(r.arch.layers, r.arch.encoder_layers) : 0;
  std::map<Part, std::map<int, int>> stacks;  // of each part and layer, how many have it
  for (const Site& site : sites) ++stacks[site.part][site.layer];
  std::map<std::pair<int, int>, std::vector<Part>> groups;  // parts, by a range of layers
  for (const auto& [part, layers] : stacks) {
    std::vector<std::pair<int, int>> runs;
    for (const auto& [layer, count] : layers) {
      if (count != (r.arch.crosses() && layer < both_have && !is_across(part) ? 2 : 1))
        r.problem(
            fmt::format("{}{} is adapted in one of the encoder and the decoder alone, which no "
                        "spec here can say",
                        name(part), layer < 0 ? "" : fmt::format(" of layer {}", layer)));
      if (layer < 0)
        runs.push_back({0, end});
      else if (!runs.empty() && runs.back().second == layer - 1)
        runs.back().second = layer;
      else
        runs.push_back({layer, layer});
    }
    for (const auto& run : runs) groups[run].push_back(part);
  }
  std::string spec;
  for (const auto& [run, parts] : groups) {
    spec += fmt::format("{}{}:on={}", spec.empty() ? "" : "|", method, to_string(parts));
    if (run != std::pair(0, end))
      spec += run.first == run.second ? fmt::format(",layers={}", run.first)
                                      : fmt::format(",layers={}-{}", run.first, run.second);
  }
  return spec;
}

}  // namespace graft
