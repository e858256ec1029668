// (IA)3 and tuned norms in PEFT's folders.
//
// IA3: `MODULE.ia3_l`, [out, 1] times a module's output; [1, in] times its input where
// feedforward_modules names it, which here is `down` alone. What PEFT multiplies at the input of
// attention's last matrix, as its standard targets of BERT do, is the same as at the values' output
// where each query head has its own: it is folded into these. GPT-2's c_attn is q, k and v, and all
// of them are scaled; written, what is not scaled is 1.
// LN_TUNING: `MODULE.ln_tuning_layers.weight` and `.bias`, in place of the base's.
#include "peft/part_shapes.h"
#include "peft/peft_targets.h"

namespace graft {
namespace {

using nlohmann::json;

// PEFT looks at the end of the name alone.
bool is_feedforward(const std::vector<std::string>& ends, const std::string& module) {
  return std::ranges::any_of(ends, [&](const auto& end) { return module.ends_with(end); });
}

std::string label(const Site& site, const char* name) { return to_string(site) + " " + name; }

// Multiplies into what is there.
void scale_by(PeftReading& r, const Site& site, const Array& by) {
  const auto [at, fresh] = r.out.values.emplace(label(site, "ia3_l"), by.clone());
  if (fresh) return;
  for (std::int64_t i = 0; i < by.numel(); ++i) at->second.data<float>()[i] *= by.data<float>()[i];
}

// Takes one module's vector to the sites that it scales.
void give_vector(PeftReading& r, const PeftModule& m, const Array& l, bool input,
                 std::set<Site>& sites) {
  const auto scale = [&](Site site, const Array& by) {
    sites.insert(site);
    scale_by(r, site, by);
  };
  const Site first = m.pieces[0].site;
  if (!input) {
    std::int64_t row = 0;
    for (const auto& [site, rows] : m.pieces) {
      if (site.part == Part::down)
        r.problem(
            fmt::format("{} is scaled behind its product; here only what enters it is", m.name));
      scale(site, l.slice(0, row, row + rows).clone());
      row += rows;
    }
  } else if (first.part == Part::down) {
    scale(first, l);
  } else if ((first.part == Part::o || first.part == Part::xo) && r.arch.heads == r.arch.kv_heads) {
    scale({first.stack, first.layer, first.part == Part::o ? Part::v : Part::xv}, l);
    if (r.out.notes.empty())
      r.out.notes.push_back(
          "PEFT scales what enters attention's last matrix; here it is part of "
          "the scale of v, which is the same function");
  } else {
    r.problem(fmt::format("feedforward_modules has {}; what enters it has no scale here", m.name));
  }
}

}  // namespace

void read_peft_ia3(PeftReading& r) {
  const std::vector<PeftModule> modules = peft_modules(r.arch);
  const std::vector<std::string> ends = r.texts("feedforward_modules");
  r.unused("init_ia3_weights fan_in_fan_out");
  r.off("exclude_modules");
  std::set<const PeftModule*> there;
  std::set<Site> sites;
  for (const PeftModule& m : modules) {
    const auto at = r.tensors.find(m.name + ".ia3_l");
    if (at == r.tensors.end()) continue;
    there.insert(&m);
    const bool input = is_feedforward(ends, m.name);
    const Shape want = input ? Shape{1, m.in} : Shape{m.out, 1};
    if (at->second.shape() != want)
      r.problem(fmt::format("{}.ia3_l is {}; need {}", m.name, at->second.shape(), want));
    else
      give_vector(r, m, at->second.reshape({at->second.numel()}), input, sites);
    r.tensors.erase(at);
  }
  check_targets(r, modules, there, "linear", "ia3_l");
  if (there.empty()) r.problem("no linear of the model has an ia3_l");
  r.out.spec = spec_on(r, "ia3", sites);
}

void write_peft_ia3(PeftWriting& w) {
  std::map<Site, Array> scales;
  for (const auto& p : w.source.parameters)
    if (p->name == "ia3_l") scales[p->site] = p->value.value().to(Dtype::f32).as_contiguous();
  std::set<std::string> outputs, inputs;
  for (const PeftModule& m : peft_modules(w.source.arch)) {
    if (std::ranges::none_of(m.pieces, [&](const auto& p) { return scales.contains(p.site); }))
      continue;
    const bool input = m.pieces[0].site.part == Part::down;
    Array l = Array::full({input ? m.in : m.out}, 1);
    std::int64_t row = 0;
    for (const auto& [site, rows] : m.pieces) {
      if (const auto at = scales.find(site); at != scales.end())
        l.slice(0, row, row + (input ? m.in : rows)).copy_from(at->second);
      else if (w.notes.empty())
        w.notes.push_back(fmt::format(
            "q, k and v are one module in PEFT: what is not scaled is 1 there, and trains, too"));
      row += rows;
    }
    w.tensors[m.name + ".ia3_l"] = l.reshape(input ? Shape{1, m.in} : Shape{m.out, 1});
    (input ? inputs : outputs).insert(m.name);
  }
  const auto& arch = w.source.arch;
  const std::vector<std::string> fed = targets_for(arch, inputs);
  std::vector<std::string> targets = targets_for(arch, outputs);
  targets.insert(targets.end(), fed.begin(), fed.end());
  w.config["target_modules"] = targets;
  w.config["feedforward_modules"] = fed;
  w.config["init_ia3_weights"] = true;
  w.config["fan_in_fan_out"] = arch.family == "gpt2";  // Conv1D's
}

void read_peft_norms(PeftReading& r) {
  const std::vector<PeftModule> modules = peft_norms(r.arch);
  r.off("exclude_modules");
  std::set<const PeftModule*> there;
  std::set<Site> sites;
  for (const PeftModule& m : modules)
    for (const char* name : {"weight", "bias"}) {
      const auto at = r.tensors.find(m.name + ".ln_tuning_layers." + name);
      const bool wanted = !r.arch.rms || name == std::string("weight");
      if (at == r.tensors.end()) {
        if (wanted && there.contains(&m))
          r.problem(fmt::format("{}.ln_tuning_layers.{} is not there", m.name, name));
        continue;
      }
      if (!wanted) continue;  // then it is unexpected
      if (at->second.shape() != Shape{m.out})
        r.problem(fmt::format("{}.ln_tuning_layers.{} is {}; need [{}]", m.name, name,
                              at->second.shape(), m.out));
      there.insert(&m), sites.insert(m.pieces[0].site);
      r.out.values[label(m.pieces[0].site, name)] = at->second;
      r.tensors.erase(at);
    }
  check_targets(r, modules, there, "norm", "ln_tuning_layers.weight");
  if (there.empty()) r.problem("no norm of the model has ln_tuning_layers");
  r.out.spec = spec_on(r, "layernorm", sites);
}

void write_peft_norms(PeftWriting& w) {
  std::set<std::string> names;
  for (const PeftModule& m : peft_norms(w.source.arch))
    for (const auto& p : w.source.parameters)
      if (p->site == m.pieces[0].site) {
        w.tensors[m.name + ".ln_tuning_layers." + p->name] =
            p->value.value().to(Dtype::f32).as_contiguous();
        names.insert(m.name);
      }
  w.config["target_modules"] = targets_for(w.source.arch, names);
}

}  // namespace graft
