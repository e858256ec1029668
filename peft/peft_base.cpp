#include "peft/peft_base.h"

#include <numeric>

#include "nn/models/family.h"
#include "nn/models/heads.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

// As the folder has it, the pieces below each other.
Shape shape_of(const PeftTensor& t) {
  Shape shape = t.pieces[0].shape;
  for (std::size_t i = 1; i < t.pieces.size(); ++i) shape[0] += t.pieces[i].shape[0];
  if (t.transposed && shape.size() == 2) std::swap(shape[0], shape[1]);
  return shape;
}

Array turned(const PeftTensor& t, const Array& value) {
  return t.transposed && value.ndim() == 2 ? value.transpose().as_contiguous() : value;
}

}  // namespace

std::vector<PeftTensor> peft_tensors(const Arch& arch) {
  Model shapes(arch, {.storage = false});
  std::vector<PeftTensor> all;
  std::map<std::string, std::size_t> index;
  shapes.each([&](Weight& w) {
    const Parameter& p = w.parameter();
    const Place place = place_of(arch, p.site, p.name);
    const auto [at, fresh] = index.emplace(place.name(), all.size());
    if (fresh) all.push_back({place.module, place.tensor, p.name, place.transposed, {}});
    all[at->second].pieces.push_back({p.site, p.value.shape()});
  });
  return all;
}

bool is_inner_bias(const PeftTensor& t) {
  return t.parameter == "bias" && (is_linear(t.part()) || is_norm(t.part()));
}

void take_base(PeftReading& r, const PeftTensor& t, const std::string& name) {
  const auto at = r.tensors.find(name);
  if (at == r.tensors.end() || at->second.shape() != shape_of(t)) {
    r.problem(fmt::format("need {} {}; the file has {}", name, shape_of(t),
                          at == r.tensors.end() ? "none" : fmt::format("{}", at->second.shape())));
  } else {
    const Array value = turned(t, at->second);
    std::int64_t row = 0;
    for (const auto& [site, shape] : t.pieces) {
      r.out.values[to_string(site) + " " + t.parameter] =
          value.slice(0, row, row + shape[0]).clone();
      row += shape[0];
    }
  }
  if (at != r.tensors.end()) r.tensors.erase(at);
}

bool put_base(PeftWriting& w, const PeftTensor& t, const std::string& name) {
  const Shape shape = shape_of(t);
  Array whole = Array::empty(t.transposed && shape.size() == 2 ? Shape{shape[1], shape[0]} : shape);
  std::size_t found = 0;
  std::int64_t row = 0;
  for (const auto& [site, piece] : t.pieces) {
    for (const auto& p : w.source.parameters) {
      if (p->site != site || p->name != t.parameter) continue;
      whole.slice(0, row, row + piece[0]).copy_from(p->value.value());
      ++found;
    }
    row += piece[0];
  }
  if (found == 0) return false;
  check(
      found == t.pieces.size(),
      "export: {} is one tensor in PEFT, of which only a part trains here; train q, k and v alike",
      name);
  w.tensors[name] = turned(t, whole);
  return true;
}

std::string no_save(const Arch& arch, Part part, bool headed) {
  if (part == Part::embed && arch.crosses())
    return "the embeddings that PEFT saves of an encoder-decoder neither stack reads";
  if (part == Part::embed && arch.tied && arch.lm && !headed)
    return "the vocabulary's matrix goes along with the embeddings here, in PEFT it stays";
  if (part == Part::lm_head && arch.lm_bias)
    return "the bias of the vocabulary is no module of its own in PEFT";
  return "";
}

std::set<Part> take_saved(PeftReading& r, const std::vector<PeftTensor>& tensors) {
  std::set<Part> parts;
  std::set<const PeftTensor*> saved;
  std::erase_if(r.saved, [&](const std::string& name) {
    bool any = false;
    for (const PeftTensor& t : tensors)
      if (t.module.ends_with(name)) any = true, saved.insert(&t), parts.insert(t.part());
    return any;
  });
  for (const PeftTensor& t : tensors) {
    if (!parts.contains(t.part())) continue;
    if (saved.contains(&t))
      take_base(r, t, t.module + "." + t.tensor);
    else
      r.problem(fmt::format("modules_to_save has some of the modules that are {} here, but not {}",
                            name(t.part()), t.module));
  }
  for (Part part : parts)
    if (const std::string why = no_save(r.arch, part, !r.out.head.head.empty()); !why.empty())
      r.problem(fmt::format("modules_to_save, {}: {}", name(part), why));
  return parts;
}

}  // namespace graft
