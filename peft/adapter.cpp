#include "peft/adapter.h"

#include <algorithm>
#include <ranges>
#include <set>

namespace graft {

void Adapter::merge() {
  check(handles_.empty(),
        "{}: it cannot be merged: it is no low-rank change of a matrix that could be added in",
        name_);
  check(!merged_, "{}: it is merged already", name_);
  merged_ = true;
}
void Adapter::unmerge() {
  check(merged_, "{}: it is not merged", name_);
  merged_ = false;
}

void Adapter::enable(int first, int last, bool on) {
  for (auto& [site, handle] : handles_)
    if (site.layer >= first && site.layer <= last) handle.edit().enabled = on;
}

std::vector<Adapter::Fired> Adapter::fired() const {
  std::vector<Fired> all;
  for (const auto& [site, handle] : handles_)
    all.push_back({site, handle.edit().name, handle.edit().calls});
  return all;
}

Tensor Adapter::param(const Model& model, const Site& site, const std::string& name, Shape shape,
                      const Init& init, Like like) {
  auto p = std::make_shared<Parameter>();
  p->site = site;
  p->name = name;
  p->decay = like.decay;
  p->lr_scale = like.lr_scale;
  for (const auto& other : parameters_)
    check(other->label() != p->label(), "{}: two parameters are called '{}'", name_, p->label());
  p->value = Tensor::leaf(initial(model.build(), init, std::move(shape), site, name_ + "/" + name),
                          p->label());
  parameters_.push_back(p);
  return p->value;
}

void Adapter::own(Weight& place) {
  const Parameter& base = place.parameter();
  check(!base.trains(), "{}: '{}' already trains by a method before it in the spec", name_,
        base.label());
  auto copy = std::make_shared<Parameter>(base);
  copy->value = Tensor::leaf(base.value.value().own_copy(), base.label());
  parameters_.push_back(copy);
  owned_.emplace_back(place, copy);
}

void Adapter::hold(const Site& site, Handle handle) {
  handles_.emplace_back(site, std::move(handle));
}

Adaptation::Adaptation(const Methods& methods, const std::string& spec, Model& model)
    : spec_(spec) {
  for (Options& options : parse_spec(spec)) {
    const auto row = std::find_if(methods.begin(), methods.end(),
                                  [&](const Method& m) { return m.name == options.method(); });
    if (row == methods.end()) {
      std::vector<std::string> names;
      for (const Method& m : methods) names.push_back(m.name);
      fail("method '{}' is unknown; there are {}", options.method(), fmt::join(names, ", "));
    }
    auto adapter = row->make(options, model.arch());
    options.finish();
    adapter->attach(model);
    formula_ += adapter->formula(model.arch());
    adapters_.push_back(std::move(adapter));
  }
  std::set<std::string> labels;  // the address of a parameter in files and in noise
  for (const auto& p : parameters())
    check(labels.insert(p->label()).second, "{}: two methods make a parameter '{}'", spec,
          p->label());
}

Adaptation::~Adaptation() {
  while (!adapters_.empty()) adapters_.pop_back();
}

Parameters Adaptation::parameters() const {
  Parameters all;
  for (const auto& a : adapters_)
    all.insert(all.end(), a->parameters().begin(), a->parameters().end());
  return all;
}

std::int64_t Adaptation::count() const {
  std::int64_t n = 0;
  for (const auto& p : parameters()) n += p->value.numel();
  return n;
}

Tensor Adaptation::penalty() const {
  Tensor sum;
  for (const auto& a : adapters_) {
    const Tensor one = a->penalty();
    if (one.defined()) sum = sum.defined() ? sum + one : one;
  }
  return sum;
}

void Adaptation::after_backward(int step) {
  for (auto& a : adapters_) a->after_backward(step);
}
void Adaptation::enable(int first, int last, bool on) {
  for (auto& a : adapters_) a->enable(first, last, on);
}
void Adaptation::merge() {
  for (auto later = adapters_.begin(); later != adapters_.end(); ++later)
    for (auto a = adapters_.begin(); a != later; ++a)
      for (const Adapter::Fired& f : (*later)->fired())
        check((*later)->edits_weights() || !(*a)->scales_input(f.site),
              "{}: it cannot be merged under {}, which reads what it scales at {}; write {} first",
              (*a)->name(), (*later)->name(), to_string(f.site), (*later)->name());
  const std::vector<Adapter*> order = merge_order();
  std::size_t done = 0;
  try {
    for (; done < order.size(); ++done) order[done]->merge();
  } catch (...) {  // all or none
    while (done > 0) order[--done]->unmerge();
    throw;
  }
}
void Adaptation::unmerge() {
  for (Adapter* a : std::views::reverse(merge_order())) a->unmerge();
}
std::vector<Adapter*> Adaptation::merge_order() const {
  std::vector<Adapter*> order;
  for (const auto& a : adapters_) order.push_back(a.get());
  std::ranges::stable_partition(order, [](const Adapter* a) { return a->edits_weights(); });
  return order;
}

Parameters train_head(Model& model) {
  Parameters all;
  if (!model.has_head()) return all;
  model.head().each([&](Weight& w) {
    Parameter& p = w.parameter();
    if (!p.trains()) p.value = Tensor::leaf(p.value.value(), p.label());
    all.push_back(std::make_shared<Parameter>(p));
  });
  return all;
}

}  // namespace graft
