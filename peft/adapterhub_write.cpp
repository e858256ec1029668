// Bottleneck adapters written for AdapterHub; adapterhub.h says how the two belong together.
#include <cmath>

#include "nn/files/atomic.h"
#include "peft/adapterhub.h"
#include "peft/bottleneck.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Place = BottleneckOptions::Place;

constexpr const BottleneckForm* kForms[] = {&kHoulsby, &kPfeiffer, &kParallel, &kSeries};

const BottleneckForm* form_of(const std::string& method) {
  for (const BottleneckForm* form : kForms)
    if (method == form->method) return form;
  return nullptr;
}

const char* name_there(Map f) {
  switch (f) {
    case Map::relu:
      return "relu";
    case Map::gelu:
      return "gelu";
    case Map::gelu_tanh:
      return "gelu_new";
    case Map::tanh:
      return "tanh";
    default:
      return "swish";
  }
}

// Throws where AdapterHub has no such adapter.
void check_options(const BottleneckOptions& o, const Arch& arch, const std::string& spec) {
  check(!o.norms,
        "export: '{}' trains the base's norms; AdapterHub's folder has the adapters "
        "alone: norms=no",
        spec);
  check(o.bias && o.norm != BottleneckOptions::Norms::before,
        "export: '{}' has bias=no or norm=before, which AdapterHub's safetensors have not", spec);
  check(o.place == Place::serial || o.place == Place::joined || o.place == Place::residual ||
            (o.place == Place::parallel && !arch.pre_norm),
        "export: '{}'; in a pre-norm model AdapterHub reads the residual stream: place=residual",
        spec);
  for (Part part : o.where.parts)
    check(part == Part::attn || part == Part::mlp || part == Part::cross,
          "export: '{}' adapts single linears; AdapterHub's are sub-layers", spec);
}

// Of all parts of a spec, which may differ in m and layers alone.
std::vector<BottleneckOptions> options_of(const PeftSource& source) {
  std::vector<BottleneckOptions> all;
  std::vector<Options> methods = parse_spec(source.spec);
  for (Options& o : methods) {
    const BottleneckForm* form = form_of(o.method());
    check(form != nullptr, "export: '{}' is no bottleneck adapter", source.spec);
    all.emplace_back(o, source.arch, *form);
    check_options(all.back(), source.arch, source.spec);
    const BottleneckOptions &a = all.front(), &b = all.back();
    check(
        a.where.parts == b.where.parts && a.f == b.f && a.place == b.place &&
            a.learned == b.learned && a.s == b.s && a.dropout_rate == b.dropout_rate &&
            a.norm == b.norm,
        "export: '{}' has parts that differ in more than m= and layers=; a folder of AdapterHub's "
        "has one configuration",
        source.spec);
  }
  return all;
}

// A factor by which AdapterHub finds m again.
json factor_for(int width, int m) {
  double factor = double(width) / m;
  while (hub_width(width, factor) < m) factor = std::nextafter(factor, 0);
  return factor == std::floor(factor) ? json(static_cast<int>(factor)) : json(factor);
}

json config_for(const BottleneckOptions& o) {
  const auto has = [&](Part part) { return std::ranges::count(o.where.parts, part) > 0; };
  return {{"mh_adapter", has(Part::attn)},
          {"output_adapter", has(Part::mlp)},
          {"cross_adapter", has(Part::cross)},
          {"non_linearity", name_there(o.f)},
          {"original_ln_before", o.place == Place::joined},
          {"original_ln_after", true},
          {"residual_before_ln", true},
          {"adapter_residual_before_ln", false},
          {"ln_before", false},
          {"ln_after", o.norm == BottleneckOptions::Norms::after},
          {"is_parallel", o.place == Place::residual || o.place == Place::parallel},
          {"scaling", o.learned ? json("learned") : json(o.s)},
          {"dropout", o.dropout_rate},
          {"init_weights", "bert"},
          {"use_gating", false},
          {"inv_adapter", nullptr},
          {"phm_layer", false}};
}

constexpr const char* kName = "graft";
// The release whose folders are written; one without a version is read as older ones were.
constexpr const char* kVersion = "adapters.1.3.0";

}  // namespace

bool is_for_adapterhub(const std::string& spec) {
  for (const Options& o : parse_spec(spec))
    if (!form_of(o.method())) return false;
  return true;
}

std::vector<std::string> write_adapterhub_folder(const fs::path& folder, const PeftSource& source) {
  const std::vector<BottleneckOptions> options = options_of(source);
  const BottleneckOptions& first = options.front();
  json config = config_for(first), factors = json::object(), left = json::array();
  std::map<std::string, Array> values;
  for (const auto& p : source.parameters)
    values[p->label()] = p->value.value().to(Dtype::f32).as_contiguous();
  SafetensorsWriter writer;
  for (const HubPlace& place : hub_places(source.arch, first.where.parts)) {
    const auto at = std::ranges::find_if(options, [&](const BottleneckOptions& o) {
      return o.where.has(place.site, std::max(source.arch.layers, source.arch.encoder_layers));
    });
    if (at == options.end()) {
      if (!std::ranges::count(left, json(place.index))) left.push_back(place.index);
      continue;
    }
    factors[std::to_string(place.index)] = factor_for(source.arch.width, at->m);
    for (const HubTensor& t :
         hub_tensors(source.arch.width, at->m, config["ln_after"], first.learned))
      writer.add(place.module + "." + kName + "." + t.there,
                 values.at(to_string(place.site) + " " + t.here));
  }
  std::set<json> different(factors.begin(), factors.end());
  config["reduction_factor"] = different.size() == 1 ? *different.begin() : factors;
  config["leave_out"] = left;
  const json whole{{"config", config},          {"name", kName},
                   {"version", kVersion},       {"model_type", source.arch.family},
                   {"model_name", source.base}, {"hidden_size", source.arch.width}};
  check(!fs::exists(folder / "adapter_config.json"),
        "export: '{}' has an adapter already; give another folder", folder.string());
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error, "export: cannot make folder '{}': {}", folder.string(), error.message());
  writer.write(folder / "adapter.safetensors");
  write_file_atomically(folder / "adapter_config.json", whole.dump(2) + "\n");
  if (source.head.empty()) return {};
  return {"the head is not written: AdapterHub keeps heads in files of its own"};
}

}  // namespace graft
