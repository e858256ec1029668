#include "peft/peft_head.h"

#include "nn/models/family.h"
#include "nn/models/heads.h"

namespace graft {
namespace {

using nlohmann::json;

constexpr const char *kPooler = "pooler", *kFirst = "pre_classifier";

// A head of ours and the modules that its parts are in a folder.
struct HeadModules {
  std::string head;
  std::map<Part, std::string> modules;
  bool bias = true;
};

// Of a module of one's own, as far as LinearHead is the same function.
const HeadModules kLinear{"linear", {{Part::head, "classifier"}}};
const HeadModules kScore{"linear", {{Part::head, "score"}}, false};
const HeadModules kDense{
    "dense", {{Part::head_dense, "classifier.dense"}, {Part::head, "classifier.out_proj"}}};

HeadModules of_family(const Arch& arch) {
  const HeadForm form = head_form(arch);
  HeadModules all{"family", {}, form.bias};
  for (const Part part : {Part::head_dense, Part::head})
    if (part == Part::head || form.dense)
      all.modules[part] = place_of(arch, {arch.stack, -1, part}, "weight").module;
  return all;
}

std::string head_label(const Arch& arch, Part part, const char* name) {
  return to_string(Site{arch.stack, -1, part}) + " " + name;
}

// Whether the folder says that it holds the matrix for pooling that the family's head begins with.
// Notes the modules to save that are no part of a head.
bool saves_pooler(PeftReading& r) {
  const bool may = r.out.task_type == "SEQ_CLS" && head_begins_with_pooler(r.arch);
  bool saves = false;
  for (const std::string& name : r.texts("modules_to_save")) {
    if (may && name == kPooler)
      saves = true;
    else if (name != "classifier" && name != "score" && name != kFirst)
      r.saved.push_back(name);
  }
  return saves;
}

// Takes one part of a head; false and a problem where it does not fit.
bool take_part(PeftReading& r, const HeadModules& form, Part part, const std::string& module) {
  const auto weight = r.tensors.find(module + ".weight"), bias = r.tensors.find(module + ".bias");
  const std::int64_t rows = weight == r.tensors.end() ? -1 : weight->second.dim(0);
  const bool biased = form.bias || part == Part::head_dense;
  const bool fits = rows > 0 && weight->second.ndim() == 2 &&
                    weight->second.dim(1) == r.arch.width &&
                    (part == Part::head || rows == r.arch.width) &&
                    (biased ? bias != r.tensors.end() && bias->second.shape() == Shape{rows}
                            : bias == r.tensors.end());
  if (!fits) {
    r.problem(fmt::format("the head needs {}.weight [{}, {}]{}", module,
                          part == Part::head ? "classes" : std::to_string(r.arch.width),
                          r.arch.width,
                          biased ? fmt::format(" and {}.bias", module) : " and no bias"));
    return false;
  }
  r.out.values[head_label(r.arch, part, "weight")] = weight->second;
  if (biased) r.out.values[head_label(r.arch, part, "bias")] = bias->second;
  if (part == Part::head) r.out.head.rows = static_cast<int>(rows);
  r.tensors.erase(weight);
  if (biased) r.tensors.erase(bias);
  return true;
}

// The part of `source.parameters` that is the head's, by part and name.
using HeadValues = std::map<std::pair<Part, std::string>, Array>;

HeadValues head_values(const PeftSource& source) {
  HeadValues all;
  for (const auto& p : source.parameters)
    if (is_heads(p->site))
      all[{p->site.part, p->name}] = p->value.value().to(Dtype::f32).as_contiguous();
  return all;
}

// Whether the head still begins with the base's own matrix for pooling.
bool has_base_pooler(const PeftSource& s, const HeadValues& values) {
  const auto same = [&](const Weight& w, const char* name) {
    return values.at({Part::head_dense, name}).to_vector() == w.value().value().to_vector();
  };
  return s.pooler && same(s.pooler->w, "weight") && same(s.pooler->b, "bias");
}

}  // namespace

bool names_head(const std::string& name) {
  return name.starts_with("classifier.") || name.starts_with("score.") ||
         name.starts_with(std::string(kFirst) + ".");
}

void read_head(PeftReading& r) {
  const bool pooler = saves_pooler(r);
  bool any = false, dense = false, score = false;
  for (const auto& [name, value] : r.tensors) {
    any |= names_head(name);
    dense |= name == "classifier.out_proj.weight";
    score |= name == "score.weight";
  }
  if (!any) return;
  const bool own = r.out.task_type.empty();
  if (!own && r.out.task_type != "SEQ_CLS") return;  // then its tensors are unexpected
  if (!own && family_named(r.arch.family).head.architecture.empty())
    return r.problem(fmt::format(
        "task_type SEQ_CLS: the class of family {} has a head that is not followed here",
        r.arch.family));
  const HeadModules form = !own ? of_family(r.arch) : score ? kScore : dense ? kDense : kLinear;
  r.out.head.head = form.head;
  r.out.head.base_pooler = !own && head_begins_with_pooler(r.arch) && !pooler;
  for (const auto& [part, module] : form.modules)
    if (!(part == Part::head_dense && r.out.head.base_pooler) && !take_part(r, form, part, module))
      return;
  if (r.out.head.base_pooler)
    r.out.notes.push_back(
        "PEFT leaves the base's matrix for pooling as it is; here it trains, as the head's first");
  if (!own || form.bias) return;
  r.out.values[head_label(r.arch, Part::head, "bias")] = Array::zeros({r.out.head.rows});
  r.out.notes.push_back("PEFT's head has no bias; here it has one, which starts at 0");
}

bool has_head_values(const PeftSource& s) { return !head_values(s).empty(); }

void write_head(PeftWriting& w) {
  const PeftSource& s = w.source;
  const HeadValues values = head_values(s);
  if (values.empty()) return;
  const bool family = s.head == "family";
  const HeadModules used = family ? of_family(s.arch) : s.head == "dense" ? kDense : kLinear;
  const bool pooler = family && head_begins_with_pooler(s.arch);
  const bool of_base = pooler && has_base_pooler(s, values);
  const auto save = [&](const char* name) {
    json& saved = w.config["modules_to_save"];
    if (saved.is_null()) saved = json::array();
    saved.push_back(name);
  };
  for (const auto& [place, value] : values)
    if (!(of_base && place.first == Part::head_dense))
      w.tensors[used.modules.at(place.first) + "." + place.second] = value;
  if (!family) {
    save("classifier");
    w.notes.push_back(fmt::format(
        "transformers has no class with this head (head={}, pool={}): it is `classifier`, for a "
        "module of your own around the base; head=family is the one that it has",
        s.head, s.pool));
    return;
  }
  w.config["task_type"] = "SEQ_CLS";
  save("classifier"), save("score");  // PEFT's own names for such a task
  for (const auto& [part, module] : used.modules)
    if (module == kFirst) save(kFirst);
  if (!pooler || of_base) return;
  save(kPooler);
  w.notes.push_back("the base's matrix for pooling trained with the head: it is saved as `pooler`");
}

}  // namespace graft
