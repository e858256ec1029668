#include "peft/adapter.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <set>

namespace graft {
namespace {

// Why what an adapter's edits do stands in no matrix.
std::string no_change_of_a_matrix(const Adapter& adapter) {
  for (const auto& [site, edit] : adapter.edits()) {
    if (dynamic_cast<EditOf<Sequence, Ctx>*>(edit))
      return "it puts rows of its own into a text or moves a text's positions, which is no change "
             "of a weight";
    if (dynamic_cast<EditOf<Attn, Ctx>*>(edit))
      return "it changes what attention makes of its queries, keys and values, which is no change "
             "of a weight";
  }
  return "it is no low-rank change of a matrix that could be added in";
}

void check_finite(const Parameter& p) {
  const Array value = p.value.value().to(Device::cpu).as_contiguous();
  dispatch(value, [&]<class T>(T) {
    const T* at = value.data<T>();
    for (std::int64_t i = 0; i < value.numel(); ++i)
      check(std::isfinite(static_cast<double>(at[i])),
            "merge: '{}' would be {} at {}; the model is as it was", p.label(),
            std::isnan(static_cast<double>(at[i])) ? "NaN" : "infinite", i);
  });
}

// Why `mine`, merged, would not do what it does as edits, since those of `theirs` stay: what is
// merged comes before all of them. "": it would. `after`: whether its edits stand behind theirs.
std::string in_the_way(const Adapter& mine, const Adapter& theirs, bool after) {
  using Change = Adapter::Change;
  const bool alike = mine.change() == theirs.change() && mine.change() != Change::other;
  if (alike) return "";
  for (const auto& [site, edit] : theirs.edits()) {
    if (dynamic_cast<EditOf<Sequence, Ctx>*>(edit)) continue;  // inserts rows, changes no token's
    if (mine.scales_input(site)) return fmt::format("reads what it scales at {}", to_string(site));
    for (const auto& [at, own] : mine.edits()) {
      if (mine.change() == Change::scales && theirs.edits_weights() && at == site)
        return fmt::format("changes the matrix that it scales at {}", to_string(site));
      if (own->slot == edit->slot && (after || theirs.change() == Change::other))
        return fmt::format("acts {} at {}", after ? "before it" : "on the same", to_string(site));
    }
  }
  return "";
}

std::uint64_t next_turn() {
  static std::atomic<std::uint64_t> turn = 0;
  return ++turn;
}

}  // namespace

void Adapter::merge() {
  check(handles_.empty(), "{}: it cannot be merged: {}", name_,
        no_merge_.empty() ? no_change_of_a_matrix(*this) : no_merge_);
  check(!merged_, "{}: it is merged already", name_);
  merged_ = true;
}
void Adapter::unmerge() {
  check(merged_, "{}: it is not merged", name_);
  for (const Owned& c : covers_)
    check(c.in_front().empty(),
          "{}: '{}' was merged into again after it; unmerge in the reverse order of merging", name_,
          c.copy().label());
  drop_covers();
}
void Adapter::drop_covers() {
  while (!covers_.empty()) covers_.pop_back();
  edits_back();
  merged_ = false;
}

void Adapter::cover(Weight& place, Tensor value) {
  auto p = std::make_shared<Parameter>(place.parameter());
  p->value = std::move(value);
  covers_.emplace_back(place, std::move(p));
}

void Adapter::edits_off() {
  for (auto& [site, handle] : handles_) {
    enabled_.push_back(handle.edit().enabled);
    handle.edit().enabled = false;
  }
}
void Adapter::edits_back() {
  for (std::size_t i = 0; i < enabled_.size(); ++i) handles_[i].second.edit().enabled = enabled_[i];
  enabled_.clear();
}

void Adapter::enable(int first, int last, bool on) {
  for (std::size_t i = 0; i < handles_.size(); ++i) {
    auto& [site, handle] = handles_[i];
    if (site.layer < first || site.layer > last) continue;
    if (enabled_.empty())
      handle.edit().enabled = on;
    else
      enabled_[i] = on;
  }
}

void Adapter::suspend() {
  check(!merged_, "{}: it is merged; unmerge it first", name_);
  check(!suspended_, "{}: it is switched off already", name_);
  for (auto copy = owned_.rbegin(); copy != owned_.rend(); ++copy) copy->off();
  edits_off();
  suspended_ = true;
}

void Adapter::resume() {
  check(suspended_, "{}: it is not switched off", name_);
  std::size_t copies = 0;
  try {
    for (; copies < owned_.size(); ++copies) owned_[copies].on();
  } catch (const Error& e) {
    while (copies > 0) owned_[--copies].off();
    fail("{}: {}", name_, e.what());
  }
  edits_back();
  suspended_ = false;
}

std::vector<Adapter::Fired> Adapter::fired() const {
  std::vector<Fired> all;
  for (const auto& [site, handle] : handles_)
    all.push_back({site, handle.edit().name, handle.edit().calls});
  return all;
}

std::vector<std::pair<Site, EditBase*>> Adapter::edits() const {
  std::vector<std::pair<Site, EditBase*>> all;
  for (const auto& [site, handle] : handles_) all.emplace_back(site, &handle.edit());
  return all;
}

static std::string in_words(const Init& init) {
  switch (init.kind) {
    case Init::Kind::zeros:
      return "0";
    case Init::Kind::ones:
      return "1";
    case Init::Kind::normal:
      return fmt::format("N(0, {:.3g})", init.scale);
    case Init::Kind::truncated:
      return fmt::format("N(0, {:.3g}), cut at two", init.scale);
    case Init::Kind::uniform:
      return fmt::format("U(-{0:.3g}, {0:.3g})", init.scale);
  }
  return "";
}

Tensor Adapter::param(const Model& model, const Site& site, const std::string& name, Shape shape,
                      const Init& init, Like like) {
  auto p = std::make_shared<Parameter>();
  p->site = site;
  p->name = name;
  p->decay = like.decay;
  p->lr_scale = like.lr_scale;
  for (const Parameters* all : {&parameters_, &constants_})
    for (const auto& other : *all)
      check(other->label() != p->label(), "{}: two parameters are called '{}'", name_, p->label());
  Array value = initial(model.build(), init, std::move(shape), site, name_ + "/" + name);
  p->value = like.trains ? Tensor::leaf(std::move(value), p->label()) : Tensor(std::move(value));
  (like.trains ? parameters_ : constants_).push_back(p);
  start_[p.get()] = like.start.empty() ? in_words(init) : like.start;
  return p->value;
}

void Adapter::own(Weight& place, bool trains) {
  const Parameter& base = place.parameter();
  check(!base.trains(), "{}: '{}' already trains by a method before it in the spec", name_,
        base.label());
  auto copy = std::make_shared<Parameter>(base);
  Array value = base.value.value().own_copy();
  copy->value = trains ? Tensor::leaf(std::move(value), base.label()) : Tensor(std::move(value));
  (trains ? parameters_ : constants_).push_back(copy);
  start_[copy.get()] = "the base's";
  owned_.emplace_back(place, copy);
}

EditBase* Adapter::hold(const Site& site, Handle handle) {
  handles_.emplace_back(site, std::move(handle));
  return &handles_.back().second.edit();
}

Adaptation::Adaptation(const Methods& methods, const std::string& spec, Model& model)
    : spec_(spec), model_(model) {
  const pool::Purpose purpose("adapters");
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
    if (adapter->reads_base() && model.build().storage) show_base(*adapter);
    adapter->attach(model);
    formula_ += adapter->formula(model.arch());
    mergeable_.push_back(row->mergeable);
    adapters_.push_back(std::move(adapter));
  }
  std::set<std::string> labels;  // the address of a parameter in files and in noise
  for (const auto& p : stored())
    check(labels.insert(p->label()).second, "{}: two methods make a parameter '{}'", spec,
          p->label());
}

Adaptation::~Adaptation() {
  while (!adapters_.empty()) adapters_.pop_back();
}

void Adaptation::show_base(Adapter& to) {
  for (auto a = adapters_.rbegin(); a != adapters_.rend(); ++a) (*a)->suspend();
  to.read_base(model_);  // if it throws, all of them go
  for (const auto& a : adapters_) a->resume();
}

Parameters Adaptation::parameters() const {
  Parameters all;
  for (const auto& a : adapters_)
    all.insert(all.end(), a->parameters().begin(), a->parameters().end());
  return all;
}

Parameters Adaptation::stored() const {
  Parameters all = parameters();
  for (const auto& a : adapters_)
    all.insert(all.end(), a->constants().begin(), a->constants().end());
  return all;
}

int Adaptation::examples() const {
  int most = 0;
  for (const auto& a : adapters_) most = std::max(most, a->examples());
  return most;
}

void Adaptation::calibrate(const Model& model, const std::vector<Batch>& of_tasks) {
  const NoRecord off;
  suspend();
  try {
    for (const auto& a : adapters_) a->calibrate(model, of_tasks);
  } catch (...) {
    resume();
    throw;
  }
  resume();
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
  for (const auto& a : adapters_)  // merged, an edit that is switched on would act twice
    check(!a->merged(), "{}: it is merged, which cannot be switched; unmerge it first", a->name());
  for (auto& a : adapters_) a->enable(first, last, on);
}
std::vector<std::string> Adaptation::why_not_merged() const {
  std::vector<std::string> why(adapters_.size());
  for (std::size_t i = 0; i < why.size(); ++i) {
    const Adapter& a = *adapters_[i];
    if (!a.no_merge().empty() || !mergeable_[i])
      why[i] = a.no_merge().empty() ? no_change_of_a_matrix(a) : a.no_merge();
    for (std::size_t later = i + 1; why[i].empty() && later < why.size(); ++later) {
      if (adapters_[later]->edits_weights()) continue;
      const std::string& over = adapters_[later]->name();
      for (const auto& [site, edit] : adapters_[later]->edits())
        if (why[i].empty() && a.scales_input(site))
          why[i] = fmt::format("under {}, which reads what it scales at {}; write {} first", over,
                               to_string(site), over);
    }
  }
  return why;
}

void Adaptation::check_beside() const {
  bool after = true;
  for (const Adaptation* other : beside_ ? beside_() : std::vector<const Adaptation*>()) {
    if (other == this) after = false;
    if (other == this || other->suspended() || other->merged()) continue;
    for (const auto& mine : adapters_)
      for (const auto& theirs : other->adapters_) {
        const std::string why = in_the_way(*mine, *theirs, after);
        check(why.empty(),
              "{}: it cannot be merged beside '{}', which {}; merge that one first, or have one of "
              "them active alone",
              mine->name(), other->spec_, why);
      }
  }
}

void Adaptation::merge() {
  check(!suspended_, "{}: it is switched off; activate it before merging", spec_);
  const std::vector<std::string> why = why_not_merged();
  for (std::size_t i = 0; i < why.size(); ++i)
    check(why[i].empty(), "{}: it cannot be merged{} {}", adapters_[i]->name(),
          why[i].starts_with("under ") ? "" : ":", why[i]);
  check_beside();
  std::map<const Weight*, const Parameter*> before;
  model_.each([&](Weight& w) { before[&w] = &w.parameter(); });
  const std::vector<Adapter*> order = merge_order();
  std::vector<bool> fresh;  // one that was merged before is not taken out for being so
  for (const Adapter* a : order) fresh.push_back(a->covers().empty());
  std::size_t done = 0;
  try {
    for (; done < order.size(); ++done) order[done]->merge();
    model_.each([&](Weight& w) {
      const Parameter& p = w.parameter();
      if (p.trains() || before.at(&w) != &p) check_finite(p);
    });
  } catch (...) {  // all or none
    if (done < order.size() && fresh[done] && !order[done]->covers().empty())
      order[done]->drop_covers();
    while (done > 0) order[--done]->unmerge();
    throw;
  }
  merge_turn_ = next_turn();
}
void Adaptation::unmerge() {
  const std::vector<Adapter*> order = merge_order();
  std::set<const Parameter*> ours;
  for (const Adapter* a : order)
    for (const Owned& c : a->covers()) ours.insert(&c.copy());
  for (const Adapter* a : order)
    for (const Owned& c : a->covers())
      for (const auto& front : c.in_front())
        check(ours.contains(front.get()),
              "{}: another adapter was merged into '{}' after it; unmerge that one first", spec_,
              front->label());
  for (auto a = order.rbegin(); a != order.rend(); ++a) (*a)->unmerge();
}
std::vector<Adapter*> Adaptation::merge_order() const {
  std::vector<Adapter*> order;
  for (const auto& a : adapters_) order.push_back(a.get());
  std::stable_partition(order.begin(), order.end(),
                        [](const Adapter* a) { return a->edits_weights(); });
  return order;
}

void Adaptation::suspend() {
  check(!suspended_, "{}: it is switched off already", spec_);
  for (const auto& a : adapters_)
    check(!a->merged(), "{}: it is merged; unmerge it first", a->name());
  suspended_ = true;
  for (auto a = adapters_.rbegin(); a != adapters_.rend(); ++a) (*a)->suspend();
}
void Adaptation::resume() {
  check(suspended_, "{}: it is not switched off", spec_);
  std::size_t done = 0;
  try {
    for (; done < adapters_.size(); ++done) adapters_[done]->resume();
  } catch (...) {
    while (done > 0) adapters_[--done]->suspend();
    throw;
  }
  suspended_ = false;
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
