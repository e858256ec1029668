// LoRA in PEFT's folders: `MODULE.lora_A.weight` [r, in] and `MODULE.lora_B.weight` [out, r], the
// scale as lora_alpha / r (or / sqrt(r), use_rslora), other ranks and alphas by patterns of names.
//
// GPT-2's c_attn is one module there and three linears here. Read, q, k and v get A each and their
// rows of B: the same function, but each has an A of its own to train. Written, the As stand one
// below the other and the Bs on the diagonal: rank and alpha are so much larger, the scale is not.
#include <cmath>
#include <tuple>

#include "peft/lora.h"
#include "peft/peft_targets.h"

namespace graft {
namespace {

using nlohmann::json;

// --- reading ------------------------------------------------------------------------------------

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
  for (const auto& [name, value] : given.items()) {
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

std::vector<Found> take_pairs(PeftReading& r, const std::vector<PeftModule>& modules) {
  std::vector<Found> found;
  for (const PeftModule& m : modules) {
    const auto a = r.tensors.find(m.name + ".lora_A.weight");
    const auto b = r.tensors.find(m.name + ".lora_B.weight");
    const auto none = r.tensors.end();
    if (a == none && b == none) continue;
    if (a == none || b == none || a->second.ndim() != 2 || a->second.dim(1) != m.in ||
        a->second.dim(0) < 1 || b->second.shape() != Shape{m.out, a->second.dim(0)}) {
      r.problem(fmt::format("{} needs lora_A [r, {}] and lora_B [{}, r]; the file has {} and {}",
                            m.name, m.in, m.out, a == none ? Shape{} : a->second.shape(),
                            b == none ? Shape{} : b->second.shape()));
    } else {
      found.push_back({&m, a->second, b->second});
    }
    if (a != none) r.tensors.erase(a);
    if (b != none) r.tensors.erase(b);
  }
  return found;
}

void give_values(PeftReading& r, const Found& f) {
  std::int64_t row = 0;
  for (const auto& [site, rows] : f.module->pieces) {
    const std::string label = to_string(site) + " ";
    r.out.values[label + "lora_A"] = f.a;
    r.out.values[label + "lora_B"] = f.b.slice(0, row, row + rows).clone();
    row += rows;
  }
}

// A run of layers, and what is adapted alike in it.
using Group = std::tuple<int, double, int, int>;  // rank, alpha, first and last layer

// The spec that edits exactly these linears. Layers count in both stacks of an encoder-decoder, so
// what is adapted in one must be in the other.
std::string spec_of(PeftReading& r, const std::vector<Found>& found, const std::string& more) {
  std::map<Part, std::map<int, std::map<Stack, std::pair<int, double>>>> at;
  for (const Found& f : found)
    for (const auto& piece : f.module->pieces)
      at[piece.site.part][piece.site.layer][piece.site.stack] = {f.rank(), f.alpha};
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
    spec += fmt::format("{}lora:r={},alpha={},on={}{}", spec.empty() ? "" : "|", rank, alpha,
                        to_string(parts), more);
    if (first != 0 || last != last_layer)
      spec += first == last ? fmt::format(",layers={}", first)
                            : fmt::format(",layers={}-{}", first, last);
  }
  return spec;
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
  const std::vector<PeftModule> modules = peft_modules(r.arch);
  std::vector<Found> found = take_pairs(r, modules);
  std::set<const PeftModule*> there;
  for (const Found& f : found) there.insert(f.module);
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
      "bias exclude_modules use_dora use_qalora lora_bias layers_pattern layer_replication "
      "trainable_token_indices target_parameters alora_invocation_tokens arrow_config use_bdlora "
      "velora_config monteclora_config kasa_config ensure_weight_tying");
  const auto ranks = pattern(r, "rank_pattern", found), alphas = pattern(r, "alpha_pattern", found);
  bool fused = false;
  for (Found& f : found) {
    const auto other = ranks.find(f.module->name), scale = alphas.find(f.module->name);
    const double said = other == ranks.end() ? rank : other->second;
    f.alpha = scale == alphas.end() ? alpha : scale->second;
    if (said != f.rank())
      r.problem(
          fmt::format("{} has rank {}, the configuration says {}", f.module->name, f.rank(), said));
    fused |= f.module->pieces.size() > 1;
    give_values(r, f);
  }
  if (found.empty()) r.problem("no linear of the model has a lora_A");
  if (fused)
    r.out.notes.push_back(
        "PEFT has one lora_A for q, k and v; here each has a copy of its own, trained apart");
  r.out.spec = spec_of(r, found,
                       (dropout > 0 ? fmt::format(",dropout={}", dropout) : "") +
                           (rank_stabilised ? ",scale=rs" : ""));
}

// --- writing ------------------------------------------------------------------------------------

namespace {

struct Pair {
  Array a, b;
  const LoraOptions* options = nullptr;
};

// One module's A, B, rank and alpha out of its pieces'.
struct Joined {
  Array a, b;
  int rank = 0;
  double alpha = 0;
};

Joined joined(const PeftModule& m, const std::map<Site, Pair>& pairs) {
  Joined out;
  double scale = 0;
  bool rank_stabilised = false;
  for (const auto& piece : m.pieces) {
    const auto at = pairs.find(piece.site);
    if (at == pairs.end()) continue;
    const LoraOptions& o = *at->second.options;
    const double own = o.scale(piece.site);
    check(out.rank == 0 || scale == own,
          "export: q, k and v of {} are scaled by {} and {}; in PEFT they are one module with one "
          "scale",
          m.name, scale, own);
    scale = own, rank_stabilised = o.rank_stabilised;
    out.rank += static_cast<int>(at->second.a.dim(0));
    if (m.pieces.size() == 1) return {at->second.a, at->second.b, out.rank, o.alpha(piece.site)};
  }
  out.alpha = scale * (rank_stabilised ? std::sqrt(double(out.rank)) : double(out.rank));
  out.a = Array::zeros({out.rank, m.in}), out.b = Array::zeros({m.out, out.rank});
  std::int64_t row = 0, column = 0;
  for (const auto& piece : m.pieces) {
    if (const auto at = pairs.find(piece.site); at != pairs.end()) {
      const std::int64_t r = at->second.a.dim(0);
      out.a.slice(0, column, column + r).copy_from(at->second.a);
      out.b.slice(0, row, row + piece.rows).slice(1, column, column + r).copy_from(at->second.b);
      column += r;
    }
    row += piece.rows;
  }
  return out;
}

json number(double x) { return x == std::floor(x) ? json(static_cast<std::int64_t>(x)) : json(x); }

// The value that most modules have goes into the configuration itself, the others into a pattern.
void write_numbers(PeftWriting& w, const char* key, const char* pattern_key,
                   const std::map<std::string, double>& by_module) {
  std::map<double, std::set<std::string>> modules;
  for (const auto& [name, value] : by_module) modules[value].insert(name);
  const auto most =
      std::ranges::max_element(modules, {}, [](const auto& m) { return m.second.size(); });
  w.config[key] = number(most->first);
  w.config[pattern_key] = json::object();
  for (const auto& [value, names] : modules)
    for (const std::string& name : value == most->first ? std::set<std::string>() : names)
      w.config[pattern_key][name] = number(value);
}

}  // namespace

void write_peft_lora(PeftWriting& w) {
  std::vector<Options> methods = parse_spec(w.source.spec);
  std::vector<LoraOptions> options;
  for (Options& o : methods) {
    options.emplace_back(o, w.source.arch);
    check(
        !options.back().embed && options.back().save.empty() &&
            options.back().biases == LoraOptions::Biases::none,
        "export: '{}' adapts embeddings (on=embed), biases or modules to save, which this version "
        "does not write for PEFT",
        w.source.spec);
    check(options[0].rank_stabilised == options.back().rank_stabilised &&
              options[0].dropout_rate == options.back().dropout_rate,
          "export: '{}' has parts with different scale= or dropout=; a folder of PEFT's has one",
          w.source.spec);
  }
  std::map<Site, Pair> pairs;
  const int layers = std::max(w.source.arch.layers, w.source.arch.encoder_layers);
  for (const auto& p : w.source.parameters) {
    if (p->name != "lora_A" && p->name != "lora_B") continue;
    Pair& pair = pairs[p->site];
    (p->name == "lora_A" ? pair.a : pair.b) = p->value.value().to(Dtype::f32).as_contiguous();
    for (const LoraOptions& o : options)
      if (o.where.has(p->site, layers)) pair.options = &o;
  }
  std::map<std::string, double> ranks, alphas;
  std::set<std::string> names;
  for (const PeftModule& m : peft_modules(w.source.arch)) {
    if (std::ranges::none_of(m.pieces, [&](const auto& p) { return pairs.contains(p.site); }))
      continue;
    const Joined j = joined(m, pairs);
    w.tensors[m.name + ".lora_A.weight"] = j.a, w.tensors[m.name + ".lora_B.weight"] = j.b;
    ranks[m.name] = j.rank, alphas[m.name] = j.alpha;
    names.insert(m.name);
    if (m.pieces.size() > 1 && w.notes.empty())
      w.notes.push_back(
          "q, k and v are one module in PEFT: their lora_As stand in one, of as many ranks");
  }
  write_numbers(w, "r", "rank_pattern", ranks);
  write_numbers(w, "lora_alpha", "alpha_pattern", alphas);
  w.config["target_modules"] = targets_for(w.source.arch, names);
  w.config["lora_dropout"] = options[0].dropout_rate;
  w.config["use_rslora"] = options[0].rank_stabilised;
  w.config["bias"] = "none";
  w.config["init_lora_weights"] = true;
  w.config["fan_in_fan_out"] = w.source.arch.family == "gpt2";  // Conv1D's
}

}  // namespace graft
