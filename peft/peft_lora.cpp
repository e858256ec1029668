// LoRA in PEFT's folders: `MODULE.lora_A.weight` [r, in] and `MODULE.lora_B.weight` [out, r], the
// scale as lora_alpha / r (or / sqrt(r), use_rslora), other ranks and alphas by patterns of names.
//
// GPT-2's c_attn is one module there and three linears here. Read, it is share=qkv: q, k and v read
// one A and have their rows of B, which trains as it does there; so it is written. As of their own
// (share=none) stand one below the other when written, the Bs on the diagonal: rank and alpha are
// so much larger, the scale is not.
#include <cmath>
#include <tuple>

#include "peft/lora.h"
#include "peft/peft_base.h"
#include "peft/peft_targets.h"

namespace graft {
namespace {

using nlohmann::json;

struct Found {
  const PeftModule* module;
  Array a, b;
  double alpha = 0;
  int rank() const { return static_cast<int>(a.dim(0)); }
};

// Whether PEFT's re.match("(.*\.)?(KEY)$", name) would find a name, for keys that are names.
bool matches_pattern(const std::string& name, const std::string& key) {
  return key.starts_with('^') ? name == key.substr(1) : is_target(name, key);
}

// A pattern's numbers by module; problems for keys that are more than names, or match nothing.
std::map<std::string, double> pattern(PeftReading& r, const char* key,
                                      const std::vector<Found>& found) {
  std::map<std::string, double> values;
  r.asked.insert(key);
  const json given = r.config.value(key, json());
  if (given.is_null()) return values;
  if (!given.is_object()) {
    r.problem(fmt::format("option {} is not an object", key));
    return values;
  }
  for (const std::string& name : r.order[key]) {
    const json& value = given.at(name);
    const bool plain = std::ranges::all_of(name.substr(name.starts_with('^')), [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.';
    });
    if (!plain || !value.is_number()) {
      r.problem(fmt::format("{}: '{}' = {}; only names and numbers are followed here", key, name,
                            value.dump()));
      continue;
    }
    bool any = false;
    for (const Found& f : found)
      if (matches_pattern(f.module->name, name)) {
        any = true;
        values.emplace(f.module->name, value.get<double>());  // PEFT takes the first
      }
    if (!any) r.problem(fmt::format("{}: no module that is adapted matches '{}'", key, name));
  }
  return values;
}

bool is_embedding(const PeftModule& m) { return m.pieces[0].site.part == Part::embed; }

// `there`: the modules of which the file has something, be it of the wrong shape.
std::vector<Found> take_pairs(PeftReading& r, const std::vector<PeftModule>& modules,
                              std::set<const PeftModule*>& there) {
  std::vector<Found> found;
  for (const PeftModule& m : modules) {
    const bool table = is_embedding(m);
    const auto a = r.tensors.find(m.name + (table ? ".lora_embedding_A" : ".lora_A.weight"));
    const auto b = r.tensors.find(m.name + (table ? ".lora_embedding_B" : ".lora_B.weight"));
    const auto none = r.tensors.end();
    if (a == none && b == none) continue;
    there.insert(&m);
    if (a == none || b == none || a->second.ndim() != 2 || a->second.dim(1) != m.in ||
        a->second.dim(0) < 1 || b->second.shape() != Shape{m.out, a->second.dim(0)}) {
      r.problem(fmt::format("{} needs lora_A [r, {}] and lora_B [{}, r]; the file has {} and {}",
                            m.name, m.in, m.out,
                            a == none ? "none" : fmt::format("{}", a->second.shape()),
                            b == none ? "none" : fmt::format("{}", b->second.shape())));
    } else {
      found.push_back({&m, a->second, b->second});
    }
    if (a != none) r.tensors.erase(a);
    if (b != none) r.tensors.erase(b);
  }
  return found;
}

void give_values(PeftReading& r, const Found& f) {
  if (is_embedding(*f.module)) {
    const std::string label = to_string(f.module->pieces[0].site) + " lora_embedding_";
    r.out.values[label + "A"] = f.a.transpose().as_contiguous();
    r.out.values[label + "B"] = f.b;
    return;
  }
  std::int64_t row = 0;
  r.out.values[to_string(f.module->pieces[0].site) + " lora_A"] = f.a;  // LoraOptions::a_site
  for (const auto& [site, rows] : f.module->pieces) {
    const std::string label = to_string(site) + " ";
    r.out.values[label + "lora_B"] = f.b.slice(0, row, row + rows).clone();
    row += rows;
  }
}

// A run of layers, and what is adapted alike in it.
using Group = std::tuple<int, double, int, int>;  // rank, alpha, first and last layer

// The spec that edits exactly these linears. Layers count in both stacks of an encoder-decoder, so
// what is adapted in one must be in the other.
// `more` goes to every part of it, `linears` to those of linears, `once` to the first.
std::string spec_of(PeftReading& r, const std::vector<Found>& found, const std::string& more,
                    const std::string& linears, const std::string& once) {
  std::map<Part, std::map<int, std::map<Stack, std::pair<int, double>>>> at;
  const Found* table = nullptr;
  std::set<Part> fused;
  for (const Found& f : found) {
    if (is_embedding(*f.module)) table = &f;
    for (const auto& piece : f.module->pieces) {
      const auto [stack, layer, part] = piece.site;
      if (f.module->pieces.size() > 1) fused.insert(part);
      if (part != Part::embed) at[part][layer][stack] = {f.rank(), f.alpha};
    }
  }
  std::map<Group, std::vector<Part>> groups;
  for (const auto& [part, layers] : at) {
    std::vector<Group> runs;
    for (const auto& [layer, stacks] : layers) {
      const auto [rank, alpha] = stacks.begin()->second;
      const bool across =
          part == Part::xq || part == Part::xk || part == Part::xv || part == Part::xo;
      const std::size_t both =
          r.arch.crosses() && !across && layer < std::min(r.arch.layers, r.arch.encoder_layers) ? 2
                                                                                                : 1;
      if (stacks.size() != both || (both == 2 && stacks.rbegin()->second != stacks.begin()->second))
        r.problem(
            fmt::format("{} of layer {} is adapted otherwise in the encoder than in the "
                        "decoder, which no spec here can say",
                        name(part), layer));
      if (!runs.empty() && runs.back() == Group{rank, alpha, std::get<2>(runs.back()), layer - 1})
        std::get<3>(runs.back()) = layer;
      else
        runs.push_back({rank, alpha, layer, layer});
    }
    for (const Group& run : runs) groups[run].push_back(part);
  }
  std::string spec;
  const int last_layer = std::max(r.arch.layers, r.arch.encoder_layers) - 1;
  for (const auto& [group, parts] : groups) {
    const auto [rank, alpha, first, last] = group;
    const bool share = std::ranges::any_of(parts, [&](Part p) { return fused.contains(p); });
    spec += fmt::format("{}lora:r={},alpha={},on={}{}{}{}{}", spec.empty() ? "" : "|", rank, alpha,
                        to_string(parts), share ? ",share=qkv" : "", more, linears,
                        spec.empty() ? once : "");
    if (first != 0 || last != last_layer)
      spec += first == last ? fmt::format(",layers={}", first)
                            : fmt::format(",layers={}-{}", first, last);
  }
  if (table)
    spec += fmt::format("{}lora:r={},alpha={},on=embed{}{}", spec.empty() ? "" : "|", table->rank(),
                        table->alpha, more, spec.empty() ? once : "");
  return spec;
}

// The base's biases that train; copies that PEFT's bias=all saves of heads beside them. Whether the
// model has any such.
bool take_biases(PeftReading& r, const std::string& which, const std::vector<PeftTensor>& tensors,
                 const std::vector<Found>& found, const std::set<Part>& saved) {
  if (which != "none" && which != "all" && which != "lora_only")
    r.problem(fmt::format("option bias = {} is not followed here", which));
  if (which != "all" && which != "lora_only") return false;
  bool any = false;
  std::erase_if(r.tensors, [](const auto& t) {
    return t.first.ends_with(".modules_to_save.bias") || t.first.ends_with(".original_module.bias");
  });
  for (const PeftTensor& t : tensors) {
    const bool adapted =
        std::ranges::any_of(found, [&](const Found& f) { return f.module->name == t.module; });
    if (is_inner_bias(t) && !saved.contains(t.part()) && (adapted || which == "all")) {
      any = true;
      take_base(r, t, t.module + (adapted ? ".base_layer." : ".") + t.tensor);
    }
  }
  return any;
}

// The tokens' table, as a module that can be adapted.
void add_embedding(std::vector<PeftModule>& modules, const std::vector<PeftTensor>& tensors,
                   const Arch& arch) {
  for (const PeftTensor& t : tensors)
    if (t.part() == Part::embed && t.parameter == "weight")
      modules.push_back({t.module, arch.vocab, arch.width, {{t.pieces[0].site, arch.width}}});
}

// PEFT saves the table along with its update.
void drop_copy(PeftReading& r, const PeftModule& m) {
  const auto copy = r.tensors.find(m.name + ".base_layer.weight");
  if (copy == r.tensors.end() || copy->second.shape() != Shape{m.in, m.out}) return;
  r.tensors.erase(copy);
  r.out.notes.push_back("the folder's copy of the embeddings is taken to be the base's");
}

void check_start(PeftReading& r) {
  r.asked.insert("init_lora_weights");
  const json init = r.config.value("init_lora_weights", json(true));
  // The others change the base's weights, which are then not the folder's base any more.
  if (!init.is_boolean() && init != "gaussian" && init != "orthogonal" && init != "eva")
    r.problem(
        fmt::format("init_lora_weights = {} changes the base's weights before training; "
                    "convert the adapter to plain LoRA in PEFT first",
                    init.dump()));
}

}  // namespace

void read_peft_lora(PeftReading& r) {
  std::vector<PeftModule> modules = peft_modules(r.arch);
  const std::vector<PeftTensor> tensors = peft_tensors(r.arch);
  add_embedding(modules, tensors, r.arch);
  std::set<const PeftModule*> there;
  std::vector<Found> found = take_pairs(r, modules, there);
  check_targets(r, modules, there, "linear", "lora_A.weight");
  check_start(r);
  const int rank = r.get("r", 8);
  const double alpha = r.get("lora_alpha", 8.0), dropout = r.get("lora_dropout", 0.0);
  const bool rank_stabilised = r.get("use_rslora", false);
  r.get("fan_in_fan_out", false);  // follows from the module
  r.unused(
      "eva_config corda_config lora_ga_config loftq_config megatron_config megatron_core "
      "qalora_group_size");
  r.off(
      "exclude_modules use_dora use_qalora lora_bias layers_pattern layer_replication "
      "trainable_token_indices target_parameters alora_invocation_tokens arrow_config use_bdlora "
      "velora_config monteclora_config kasa_config ensure_weight_tying");
  const auto ranks = pattern(r, "rank_pattern", found), alphas = pattern(r, "alpha_pattern", found);
  for (Found& f : found) {
    const auto other = ranks.find(f.module->name), scale = alphas.find(f.module->name);
    const double said = other == ranks.end() ? rank : other->second;
    f.alpha = scale == alphas.end() ? alpha : scale->second;
    if (said != f.rank())
      r.problem(
          fmt::format("{} has rank {}, the configuration says {}", f.module->name, f.rank(), said));
    if (is_embedding(*f.module)) {
      drop_copy(r, *f.module);
      if (r.arch.crosses()) r.problem("PEFT adapts an embedding that neither stack of T5 reads");
    }
    give_values(r, f);
  }
  if (found.empty()) r.problem("no linear of the model has a lora_A");
  const std::set<Part> saved = take_saved(r, tensors);
  const std::string biases = r.get("bias", std::string("none"));
  const bool biased = take_biases(r, biases, tensors, found, saved);
  std::string once = biased && biases == "all" ? ",bias=all" : "";
  if (!saved.empty()) once += ",save=" + to_string(std::vector<Part>(saved.begin(), saved.end()));
  r.out.spec = spec_of(r, found,
                       (dropout > 0 ? fmt::format(",dropout={}", dropout) : "") +
                           (rank_stabilised ? ",scale=rs" : ""),
                       biased && biases == "lora_only" ? ",bias=lora_only" : "", once);
}

}  // namespace graft
