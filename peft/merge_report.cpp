#include "peft/merge_report.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace graft {

namespace {

using Values = std::map<const Weight*, Tensor>;

Values values_of(Model& model) {
  Values all;
  model.each([&](Weight& w) { all[&w] = w.value(); });
  return all;
}

// The base's tensors that `adaptation` covers, which is merged then, as copies in memory.
void keep_copies(Adaptation& adaptation, Model& model, const Values& base) {
  adaptation.merge();
  std::vector<Weight*> covered;
  model.each([&](Weight& w) {
    const Tensor& was = base.at(&w);  // a copy that trains is no file's
    if (!was.needs_grad() && w.value().value().storage() != was.value().storage())
      covered.push_back(&w);
  });
  adaptation.unmerge();
  for (Weight* w : covered) w->parameter().value = Tensor(w->value().value().clone());
}

}  // namespace

MergeReport merge_reported(Adaptation& adaptation, Model& model,
                           const std::function<Array()>& outputs, Unmerge back) {
  MergeReport r;
  const std::vector<double> before = outputs().to_vector();
  if (back == Unmerge::from_copy) keep_copies(adaptation, model, values_of(model));
  const Values base = values_of(model);
  adaptation.merge();
  model.each([&](Weight& w) {
    const Array &was = base.at(&w).value(), &now = w.value().value();
    const bool replaced = now.storage() != was.storage();
    if (!replaced && !w.parameter().trains()) return;  // a copy that trained stood there before
    ++r.tensors;
    r.added_bytes += static_cast<std::int64_t>(now.bytes());
    if (replaced && !was.storage()->keepalive)
      r.kept_bytes += static_cast<std::int64_t>(was.bytes());
  });
  const std::vector<double> after = outputs().to_vector();
  check(before.size() == after.size(), "merge: {} outputs before, {} after", before.size(),
        after.size());
  r.outputs = static_cast<std::int64_t>(before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    r.largest = std::max(r.largest, std::abs(after[i] - before[i]));
    r.size = std::max(r.size, std::abs(before[i]));
  }
  const auto size = static_cast<float>(r.size);
  const double place = static_cast<double>(std::nextafter(size, INFINITY)) - double{size};
  r.ulps = r.largest / place;
  return r;
}

std::string to_string(const MergeReport& r) {
  const std::string back =
      r.kept_bytes == 0 ? "no memory: the base's are read from its file again"
                        : fmt::format("{} bytes, the base's, which stay in memory", r.kept_bytes);
  return fmt::format(
      "{} outputs, largest difference {:.2e} of {:.2e} ({:.1f} units of its last place); {} "
      "tensors "
      "of {} bytes in the base's place; unmerging needs {}",
      r.outputs, r.largest, r.size, r.ulps, r.tensors, r.added_bytes, back);
}

std::string merges_in_words(const Adaptation& adaptation) {
  const std::vector<std::string> why = adaptation.why_not_merged();
  std::vector<std::string> merge, rest;
  for (std::size_t i = 0; i < why.size(); ++i) {
    const std::string& name = adaptation.adapters()[i]->name();
    bool alike = true;  // all of this name: then the name is enough
    for (std::size_t j = 0; j < why.size(); ++j)
      if (adaptation.adapters()[j]->name() == name) alike &= why[j].empty() == why[i].empty();
    const std::string called = alike ? name : fmt::format("{} (part {})", name, i + 1);
    const std::string said =
        why[i].empty() ? called
                       : fmt::format("{}{} {}", called,
                                     why[i].starts_with("under ") ? " does not" : ":", why[i]);
    std::vector<std::string>& into = why[i].empty() ? merge : rest;
    if (std::ranges::find(into, said) == into.end()) into.push_back(said);
  }
  const std::string merged = fmt::format("{}", fmt::join(merge, ", "));
  if (rest.empty()) return "yes: " + merged;
  return fmt::format("no; {}{}",
                     merge.empty() ? "" : merged + (merge.size() > 1 ? " merge; " : " merges; "),
                     fmt::join(rest, "; "));
}

}  // namespace graft
