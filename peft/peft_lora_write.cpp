// LoRA written for PEFT; peft_lora.cpp reads it and says how the two belong together.
#include <cmath>

#include "peft/lora.h"
#include "peft/peft_base.h"
#include "peft/peft_modules.h"

namespace graft {
namespace {

using nlohmann::json;

struct Pair {
  Array a, b;
  Site a_site;  // of pairs with one and the same A
  const LoraOptions* options = nullptr;
};

// One module's A, B, rank and alpha out of its pieces'.
struct Joined {
  Array a, b;
  int rank = 0;
  double alpha = 0;
  std::map<Site, std::int64_t> column;  // in B, of each A's first rank
  int pieces = 0;                       // that are adapted
  bool stacked = true;                  // As of their own, or else one
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
    out.alpha = o.alpha(piece.site), ++out.pieces, out.stacked = !o.shared;
    if (out.column.emplace(at->second.a_site, out.rank).second)
      out.rank += static_cast<int>(at->second.a.dim(0));
    if (m.pieces.size() > 1) continue;
    out.a = at->second.a, out.b = at->second.b;
    return out;
  }
  out.stacked |= out.column.size() > 1;
  if (out.stacked)
    out.alpha = scale * (rank_stabilised ? std::sqrt(double(out.rank)) : double(out.rank));
  out.a = Array::zeros({out.rank, m.in}), out.b = Array::zeros({m.out, out.rank});
  std::int64_t row = 0;
  for (const auto& piece : m.pieces) {
    if (const auto at = pairs.find(piece.site); at != pairs.end()) {
      const std::int64_t r = at->second.a.dim(0), column = out.column.at(at->second.a_site);
      out.a.slice(0, column, column + r).copy_from(at->second.a);
      out.b.slice(0, row, row + piece.rows).slice(1, column, column + r).copy_from(at->second.b);
    }
    row += piece.rows;
  }
  return out;
}

bool is_shared(const Site& site, const std::map<Site, Pair>& pairs) {
  return std::ranges::count_if(
             pairs, [&](const auto& p) { return p.second.a_site == pairs.at(site).a_site; }) > 1;
}

void note(PeftWriting& w, const std::string& text) {
  if (std::ranges::count(w.notes, text) == 0) w.notes.push_back(text);
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

using Biases = LoraOptions::Biases;

// The embedding's A and B, where it is adapted; adds to ranks, alphas and names as linears do.
void write_embedding(PeftWriting& w, const LoraOptions& o, std::map<std::string, double>& ranks,
                     std::map<std::string, double>& alphas, std::set<std::string>& names) {
  check(!w.source.arch.crosses(),
        "export: '{}' adapts the embeddings of an encoder-decoder; what PEFT would adapt there "
        "neither stack reads",
        w.source.spec);
  for (const PeftTensor& t : peft_tensors(w.source.arch)) {
    if (t.part() != Part::embed || t.parameter != "weight") continue;
    for (const auto& p : w.source.parameters)
      if (p->name == "lora_embedding_A")
        w.tensors[t.module + ".lora_embedding_A"] =
            p->value.value().to(Dtype::f32).transpose().as_contiguous();
      else if (p->name == "lora_embedding_B")
        w.tensors[t.module + ".lora_embedding_B"] = p->value.value().to(Dtype::f32).as_contiguous();
    ranks[t.module] = o.rank(t.pieces[0].site), alphas[t.module] = o.alpha(t.pieces[0].site);
    names.insert(t.module);
  }
}

// What of the base trains: biases, under the name of the layer inside LoRA's where there is one,
// and modules to save, under their own.
void write_base(PeftWriting& w, const std::vector<LoraOptions>& options,
                const std::set<std::string>& adapted) {
  std::set<Part> saved;
  std::set<Biases> biases;
  for (const LoraOptions& o : options) {
    saved.insert(o.save.begin(), o.save.end());
    // lora_only says nothing of embeddings, which have no bias.
    if (!o.where.parts.empty() || o.biases == Biases::all) biases.insert(o.biases);
  }
  const bool all = biases.contains(Biases::all);
  check(all ? !biases.contains(Biases::lora_only) : biases.size() <= 1,
        "export: '{}' has parts with different bias=; a folder of PEFT's has one", w.source.spec);
  w.config["bias"] = all ? "all" : biases.contains(Biases::lora_only) ? "lora_only" : "none";
  std::set<std::string> modules;
  for (Part part : saved) {
    const std::string why = no_save(w.source.arch, part, !w.source.head.empty());
    check(why.empty(), "export: save={}: {}", name(part), why);
  }
  for (const PeftTensor& t : peft_tensors(w.source.arch)) {
    const bool inside = !saved.contains(t.part()) && adapted.contains(t.module);
    if (put_base(w, t, t.module + (inside ? ".base_layer." : ".") + t.tensor) &&
        saved.contains(t.part()))
      modules.insert(t.module);
  }
  if (!modules.empty()) w.config["modules_to_save"] = modules;
}

std::vector<LoraOptions> options_of(const PeftSource& source) {
  std::vector<Options> methods = parse_spec(source.spec);
  std::vector<LoraOptions> options;
  for (Options& o : methods) {
    options.emplace_back(o, source.arch);
    check(options[0].rank_stabilised == options.back().rank_stabilised &&
              options[0].dropout_rate == options.back().dropout_rate,
          "export: '{}' has parts with different scale= or dropout=; a folder of PEFT's has one",
          source.spec);
  }
  return options;
}

std::map<Site, Pair> pairs_of(const PeftSource& source, const std::vector<LoraOptions>& options) {
  std::map<Site, Pair> pairs;
  const int layers = std::max(source.arch.layers, source.arch.encoder_layers);
  for (const auto& p : source.parameters) {
    if (p->name != "lora_A" && p->name != "lora_B") continue;
    Pair& pair = pairs[p->site];
    (p->name == "lora_A" ? pair.a : pair.b) = p->value.value().to(Dtype::f32).as_contiguous();
    for (const LoraOptions& o : options)
      if (o.where.has(p->site, layers)) pair.options = &o;
  }
  for (auto& [site, pair] : pairs) {
    pair.a_site = pair.options->a_site(site);
    pair.a = pairs.at(pair.a_site).a;
  }
  return pairs;
}

}  // namespace

void write_peft_lora(PeftWriting& w) {
  const std::vector<LoraOptions> options = options_of(w.source);
  const std::map<Site, Pair> pairs = pairs_of(w.source, options);
  std::map<std::string, double> ranks, alphas;
  std::set<std::string> names;
  for (const PeftModule& m : peft_modules(w.source.arch)) {
    if (std::ranges::none_of(m.pieces, [&](const auto& p) { return pairs.contains(p.site); }))
      continue;
    const Joined j = joined(m, pairs);
    w.tensors[m.name + ".lora_A.weight"] = j.a, w.tensors[m.name + ".lora_B.weight"] = j.b;
    ranks[m.name] = j.rank, alphas[m.name] = j.alpha;
    names.insert(m.name);
    const bool fused = m.pieces.size() > 1;
    if (fused && j.stacked)
      note(w, "q, k and v are one module in PEFT: their lora_As stand in one, of as many ranks");
    if (fused && !j.stacked && j.pieces < static_cast<int>(m.pieces.size()))
      note(w,
           "q, k and v are one module in PEFT: rows of lora_B that do not train here are 0 there, "
           "and train");
    if (!fused && is_shared(m.pieces[0].site, pairs))
      note(w, "share=qkv: the one lora_A of q, k and v is copied for each; PEFT trains them apart");
  }
  for (const LoraOptions& o : options)
    if (o.embed) write_embedding(w, o, ranks, alphas, names);
  write_base(w, options, names);
  write_numbers(w, "r", "rank_pattern", ranks);
  write_numbers(w, "lora_alpha", "alpha_pattern", alphas);
  w.config["target_modules"] = targets_for(w.source.arch, names);
  w.config["lora_dropout"] = options[0].dropout_rate;
  w.config["use_rslora"] = options[0].rank_stabilised;
  w.config["init_lora_weights"] = true;
  w.config["fan_in_fan_out"] = w.source.arch.family == "gpt2";  // Conv1D's
}

}  // namespace graft
