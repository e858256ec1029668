#include "peft/adapter_set.h"

#include <algorithm>

namespace graft {

AdapterSet::~AdapterSet() {
  while (!entries_.empty()) entries_.pop_back();
}

const AdapterSet::Entry& AdapterSet::entry(const std::string& name) const {
  const auto at = std::ranges::find(entries_, name, &Entry::name);
  check(at != entries_.end(), "adapters: none is called '{}'; there {} {}", name,
        entries_.size() == 1 ? "is" : "are",
        entries_.empty() ? "none" : fmt::format("{}", fmt::join(names(), ", ")));
  return *at;
}

Adaptation& AdapterSet::at(const std::string& name) { return *entry(name).adaptation; }
const Adaptation& AdapterSet::at(const std::string& name) const { return *entry(name).adaptation; }

std::vector<std::string> AdapterSet::names() const {
  std::vector<std::string> all;
  for (const Entry& e : entries_) all.push_back(e.name);
  return all;
}

std::vector<std::string> AdapterSet::active() const {
  std::vector<std::string> all;
  for (const Entry& e : entries_)
    if (!e.adaptation->suspended()) all.push_back(e.name);
  return all;
}

Adaptation& AdapterSet::add(const std::string& name, const std::string& spec) {
  check(!name.empty(), "adapters: an adapter needs a name");
  check(std::ranges::find(entries_, name, &Entry::name) == entries_.end(),
        "adapters: there is one called '{}' already", name);
  // Alone, so that it may train what an active one trains; and it starts from the base's numbers.
  const std::vector<std::string> before = active();
  activate({});
  try {
    auto made = std::make_unique<Adaptation>(methods_, spec, model_);
    made->suspend();
    made->stands_beside([this] {
      std::vector<const Adaptation*> all;
      for (const Entry& e : entries_) all.push_back(e.adaptation.get());
      return all;
    });
    entries_.push_back({name, std::move(made)});
  } catch (...) {
    activate(before);
    throw;
  }
  activate(before);
  return *entries_.back().adaptation;
}

CombinedLora AdapterSet::add_combined(const std::string& name, const std::vector<std::string>& of,
                                      const CombineSpec& spec) {
  std::vector<LoraValues> parts;
  for (const std::string& one : of) {
    LoraValues v{one, at(one).spec(), {}};
    for (const auto& p : at(one).stored()) v.values[p->label()] = p->value.value();
    parts.push_back(std::move(v));
  }
  CombinedLora made = combine(parts, spec, model_.arch());
  AdapterValues values;
  for (const auto& p : made.parameters) values[p->label()] = p->value.value();
  const Adaptation& added = add(name, made.spec);
  set_adapter_values(values, added.stored(), name);
  return made;
}

void AdapterSet::activate(const std::vector<std::string>& names) {
  for (const std::string& name : names) entry(name);
  for (const Entry& e : entries_)
    check(!e.adaptation->merged(), "adapters: '{}' is merged; unmerge it first", e.name);
  const std::vector<std::string> before = active();
  const auto only = [&](const std::vector<std::string>& wanted) {
    for (auto e = entries_.rbegin(); e != entries_.rend(); ++e)
      if (!e->adaptation->suspended()) e->adaptation->suspend();
    for (Entry& e : entries_)
      if (std::ranges::count(wanted, e.name) > 0) e.adaptation->resume();
  };
  try {
    only(names);
  } catch (...) {
    only(before);
    throw;
  }
}

void AdapterSet::remove(const std::string& name) {
  const Entry& gone = entry(name);
  check(!gone.adaptation->merged(), "adapters: '{}' is merged; unmerge it first", name);
  std::vector<std::string> left = active();
  std::erase(left, name);
  activate(left);
  entries_.erase(entries_.begin() + (&gone - entries_.data()));
}

AdapterSet::Off::Off(AdapterSet& set) : set_(set), before_(set.active()) {
  std::vector<const Entry*> merged;
  for (const Entry& e : set.entries_)
    if (e.adaptation->merged()) merged.push_back(&e);
  std::ranges::sort(merged, {}, [](const Entry* e) { return e->adaptation->merge_turn(); });
  for (const Entry* e : merged) merged_.push_back(e->name);
  for (auto e = merged.rbegin(); e != merged.rend(); ++e) (*e)->adaptation->unmerge();
  set.activate({});
}

// Of adapters that were removed meanwhile nothing is left to put back.
AdapterSet::Off::~Off() {
  const std::vector<std::string> there = set_.names();
  const auto gone = [&](const std::string& name) { return std::ranges::count(there, name) == 0; };
  std::erase_if(before_, gone);
  std::erase_if(merged_, gone);
  set_.activate(before_);
  for (const std::string& name : merged_) set_.at(name).merge();
}

}  // namespace graft
