#include "peft/adapterhub.h"

#include <cmath>

#include "nn/models/family.h"
#include "nn/text/json_entry.h"
#include "peft/files.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string without(std::string name, std::string_view ending) {
  return name.substr(0, name.size() - ending.size());
}

std::string module_of(const Arch& a, const Site& site) {
  const auto place = [&](Part part) {
    return place_of(a, {site.stack, site.layer, part}, "weight").module;
  };
  const bool mlp = site.part == Part::mlp;
  if (a.family == "bert" || a.family == "roberta")
    return without(place(mlp ? Part::down : Part::o), ".dense") + ".adapters";
  if (a.family == "gpt2" || a.family == "llama")
    return place(Part::block) + (mlp ? ".output_adapters" : ".attention_adapters") + ".adapters";
  check(a.family == "t5",
        "AdapterHub: family {} is not known there; there are bert, roberta, gpt2, "
        "llama and t5",
        a.family);
  const Part norm = mlp ? Part::norm2 : site.part == Part::cross ? Part::norm_x : Part::norm1;
  return without(place(norm), ".layer_norm") + ".adapters";
}

// --- reading -------------------------------------------------------------------------------------

std::map<std::string, Array> read_tensors(const fs::path& file, const std::string& prefix,
                                          std::vector<std::string>& problems) {
  const SafetensorsReader reader(file);
  bool whole = prefix.empty();  // a body that was saved alone has names without the prefix
  for (const auto& [name, info] : reader.tensors()) whole |= name.starts_with(prefix);
  std::map<std::string, Array> tensors;
  for (const auto& [name, info] : reader.tensors()) {
    if (!is_floating(info.dtype)) {
      problems.push_back(fmt::format("{} is {}", name, name_of(info.dtype)));
      continue;
    }
    Array value = Array::empty(info.shape);
    reader.read_f32(name, value);
    if (const std::string bad = not_finite(value); !bad.empty())
      problems.push_back(
          fmt::format("{} {}: {}; the run that wrote it went astray or the file is "
                      "damaged; train it again, at a lower rate",
                      name, value.shape(), bad));
    tensors[whole ? name : prefix + name] = std::move(value);
  }
  return tensors;
}

// The method and its options without m, on and layers; and what of the tensors follows from them.
struct Said {
  std::string method, more;
  bool norm_after = false, learned = false;
  std::vector<Part> parts;
};

void read_scaling(PeftReading& r, Said& said, double standard) {
  r.asked.insert("scaling");
  const json scaling = r.config.value("scaling", json(1.0));
  said.learned = scaling == "learned";
  if (!said.learned && !scaling.is_number())
    r.problem(
        fmt::format("option scaling = {}; a number or learned is followed here", shown(scaling)));
  else if (said.learned)
    said.more += ",s=learned";
  else if (scaling.get<double>() != standard)
    said.more += fmt::format(",s={}", scaling.get<double>());
}

void read_place(PeftReading& r, Said& said) {
  const bool parallel = r.get("is_parallel", false), before = r.get("original_ln_before", false);
  said.norm_after = r.get("ln_after", false);
  const json residual = r.config.value("residual_before_ln", json(true));
  r.unused("residual_before_ln");
  if (!parallel && before && residual != true)
    r.problem(
        fmt::format("residual_before_ln = {} with original_ln_before; only true is followed "
                    "here",
                    shown(residual)));
  if (r.get("adapter_residual_before_ln", false) && said.norm_after && !parallel)
    r.problem("option adapter_residual_before_ln = true is not followed here");
  if (!r.get("original_ln_after", true))
    r.problem("option original_ln_after = false is not followed here");
  said.method = parallel ? "parallel" : before ? "pfeiffer" : "houlsby";
  said.more = parallel ? ",place=residual" : before ? "" : ",norms=no";
}

// versioned: files from before there were versions say gelu and mean its tanh form.
Said read_options(PeftReading& r, bool versioned) {
  static const std::map<std::string, std::string> kNames{
      {"relu", "relu"},          {"gelu", "gelu"},
      {"gelu_new", "gelu_tanh"}, {"gelu_pytorch_tanh", "gelu_tanh"},
      {"swish", "silu"},         {"silu", "silu"},
      {"tanh", "tanh"}};
  Said said;
  read_place(r, said);
  const std::string f = r.get("non_linearity", std::string("relu"));
  if (f == "gelu" && !versioned)
    said.more += ",f=gelu_tanh";
  else if (const auto at = kNames.find(f); at != kNames.end())
    said.more += ",f=" + at->second;
  else
    r.problem(fmt::format("option non_linearity = {} is not followed here", f));
  read_scaling(r, said, said.method == "parallel" ? 4 : 1);
  if (const double dropout = r.get("dropout", 0.0); dropout > 0)
    said.more += fmt::format(",dropout={}", dropout);
  if (said.norm_after) said.more += ",norm=after";
  if (r.get("mh_adapter", false)) said.parts.push_back(Part::attn);
  if (r.get("cross_adapter", false) && r.arch.crosses()) said.parts.push_back(Part::cross);
  if (r.get("output_adapter", false)) said.parts.push_back(Part::mlp);
  if (said.parts.empty()) r.problem("none of mh_adapter, output_adapter, cross_adapter is on");
  if (r.get("stochastic_depth", 0.0) != 0)
    r.problem("option stochastic_depth is not followed here");
  r.off("architecture inv_adapter use_gating phm_layer ln_before");
  r.unused(
      "factorized_phm_W factorized_phm_rule hypercomplex_nonlinearity init_weights "
      "init_weights_seed inv_adapter_reduction_factor learn_phm phm_bias phm_c_init phm_dim "
      "phm_init_range phm_rank shared_W_phm shared_phm_rule");
  return said;
}

// The width of the bottleneck in a layer; 0: there is none.
int width_at(PeftReading& r, int index) {
  r.unused("leave_out reduction_factor");
  const json left = r.config.value("leave_out", json::array());
  if (left.is_array() && std::ranges::count(left, json(index)) > 0) return 0;
  json factor = r.config.value("reduction_factor", json());
  if (factor.is_object())
    factor = factor.value(std::to_string(index), factor.value("default", json()));
  if (factor.is_number() && factor.get<double>() > 0)
    return hub_width(r.arch.width, factor.get<double>());
  r.problem(fmt::format("reduction_factor says nothing of layer {}", index));
  return 0;
}

void take_adapter(PeftReading& r, const HubPlace& place, const std::string& name, int m,
                  const Said& said) {
  for (const HubTensor& t : hub_tensors(r.arch.width, m, said.norm_after, said.learned)) {
    const std::string there = place.module + "." + name + "." + t.there;
    const auto at = r.tensors.find(there);
    if (at == r.tensors.end() || at->second.shape() != t.shape)
      r.problem(
          fmt::format("need {} {}; the file has {}", there, t.shape,
                      at == r.tensors.end() ? "none" : fmt::format("{}", at->second.shape())));
    else
      r.out.values[to_string(place.site) + " " + t.here] = at->second;
    if (at != r.tensors.end()) r.tensors.erase(at);
  }
}

// One part of the spec for each run of layers with one width.
std::string spec_of(PeftReading& r, const Said& said, const std::map<int, std::set<int>>& widths) {
  struct Run {
    int m, first, last;
  };
  std::vector<Run> runs;
  for (const auto& [layer, at] : widths) {
    if (at.size() > 1)
      r.problem(
          fmt::format("layer {} is adapted otherwise in the encoder than in the decoder, "
                      "which no spec here can say",
                      layer));
    const int m = *at.rbegin();
    if (m == 0) continue;
    if (!runs.empty() && runs.back().m == m && runs.back().last == layer - 1)
      runs.back().last = layer;
    else
      runs.push_back({m, layer, layer});
  }
  std::string spec;
  for (const auto& [m, first, last] : runs) {
    spec += fmt::format("{}{}:m={},on={}{}", spec.empty() ? "" : "|", said.method, m,
                        to_string(said.parts), said.more);
    if (first == 0 && last == static_cast<int>(widths.size()) - 1) continue;
    spec += first == last ? fmt::format(",layers={}", first)
                          : fmt::format(",layers={}-{}", first, last);
  }
  return spec;
}

json read_hub_config(const fs::path& folder) {
  const std::string file = (folder / "adapter_config.json").string();
  return parse_strict(file, read_file(file));
}

}  // namespace

std::vector<HubPlace> hub_places(const Arch& arch, const std::vector<Part>& parts) {
  std::vector<HubPlace> all;
  int below = 0;
  for (const Arch& stack : arch.stacks()) {
    for (int layer = 0; layer < stack.layers; ++layer)
      for (Part part : parts) {
        const Site site{stack.stack, layer, part};
        if (!is_across(part) || stack.crosses())
          all.push_back({site, below + layer, module_of(arch, site)});
      }
    below += stack.layers;
  }
  return all;
}

std::vector<HubTensor> hub_tensors(int width, int m, bool norm_after, bool learned) {
  std::vector<HubTensor> all{{"adapter_down.0.weight", "down.weight", {m, width}},
                             {"adapter_down.0.bias", "down.bias", {m}},
                             {"adapter_up.weight", "up.weight", {width, m}},
                             {"adapter_up.bias", "up.bias", {width}}};
  if (norm_after) {
    all.push_back({"adapter_norm_after.weight", "norm.weight", {width}});
    all.push_back({"adapter_norm_after.bias", "norm.bias", {width}});
  }
  if (learned) all.push_back({"scaling", "scale", {1}});
  return all;
}

int hub_width(int width, double factor) {
  // As Python's int(width // factor), which is exact.
  const double whole = (width - std::fmod(double(width), factor)) / factor;
  return std::max(1, static_cast<int>(std::min(std::round(whole), 1e6)));
}

bool is_adapterhub_folder(const fs::path& folder) {
  if (!fs::exists(folder / "adapter_config.json")) return false;
  const json config = read_hub_config(folder);
  return config.is_object() && config.contains("config") && config.contains("model_type");
}

PeftAdapter read_adapterhub_folder(const fs::path& folder, const Arch& arch) {
  const json whole = read_hub_config(folder);
  check(whole.is_object() && whole.value("config", json()).is_object() &&
            whole.value("name", json()).is_string(),
        "AdapterHub folder '{}': adapter_config.json needs a config and a name", folder.string());
  const fs::path values = folder / "adapter.safetensors";
  check(fs::exists(values), "AdapterHub folder '{}': has no adapter.safetensors{}", folder.string(),
        fs::exists(folder / "pytorch_adapter.bin")
            ? "; pytorch_adapter.bin is a torch pickle, which is not read: save the adapter with "
              "use_safetensors=True"
            : "");
  PeftAdapter out;
  PeftReading r{arch, whole["config"], {}, out, {}, {}, {}};
  if (whole.value("model_type", json()) != arch.family)
    r.problem(fmt::format("it is for family {}", shown(whole.value("model_type", json()))));
  const Said said = read_options(r, whole.contains("version"));
  r.tensors = read_tensors(values, family_named(arch.family).prefix, r.problems);
  std::map<int, std::set<int>> widths;
  for (const HubPlace& place : hub_places(arch, said.parts)) {
    const int m = width_at(r, place.index);
    widths[place.site.layer].insert(m);
    if (m > 0) take_adapter(r, place, whole["name"], m, said);
  }
  out.spec = spec_of(r, said, widths);
  if (out.spec.empty()) r.problem("no layer has an adapter");
  for (const auto& [key, value] : r.config.items())
    if (!r.asked.contains(key)) r.problem(fmt::format("option {} is not followed here", key));
  for (const auto& [name, value] : r.tensors)
    r.problem(fmt::format("unexpected tensor {} {}", name, value.shape()));
  check(r.problems.empty(), "AdapterHub folder '{}' does not fit the model ({}):\n  {}",
        folder.string(), arch.family, fmt::join(r.problems, "\n  "));
  if (fs::exists(folder / "head_config.json"))
    out.notes.push_back("the head beside the adapter is not read");
  return out;
}

}  // namespace graft
