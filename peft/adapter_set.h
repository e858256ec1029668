// AdapterSet: several adapters on one model, by name, of which some are active.
//
//     AdapterSet set(all_methods(), model);
//     set.add("en", "lora:r=8"), set.add("de", "houlsby:m=16");
//     set.activate({"de"});
//     { const auto off = set.disable(); ... }    // the base, bit for bit; then as before
//
// An adapter that is not active has neither edits nor copies in the model, but keeps its numbers,
// so that an optimizer over them stays valid. Active ones work one after another in the order of
// adding: LoRA's add up. One adapter for each row of a batch is Routed (routed.h).
//
// Several may be merged, and each says so where it would then come before what another does first.
// They are unmerged in the reverse order; another order is refused where it would matter.
#pragma once

#include "peft/adapter.h"
#include "peft/combine.h"

namespace graft {

class AdapterSet {
 public:
  AdapterSet(const Methods& methods, Model& model) : methods_(methods), model_(model) {}
  ~AdapterSet();
  AdapterSet(const AdapterSet&) = delete;
  AdapterSet& operator=(const AdapterSet&) = delete;

  // Makes an adapter, which is not active yet. Throws, changing nothing, for a name that there is,
  // an empty one, and for what Adaptation refuses.
  Adaptation& add(const std::string& name, const std::string& spec);
  // Makes LoRA adapters into a new one (combine.h).
  CombinedLora add_combined(const std::string& name, const std::vector<std::string>& of,
                            const CombineSpec&);
  // These and no others, in the order of adding; none: the base. Throws, changing nothing, for an
  // unknown name, two that train one parameter of the base, and while one is merged.
  void activate(const std::vector<std::string>& names);
  void remove(const std::string& name);  // throws for one that is merged

  // The base while it lives, and then as before: the same active, the same merged. May be nested.
  class Off {
   public:
    explicit Off(AdapterSet& set);
    ~Off();
    Off(const Off&) = delete;
    Off& operator=(const Off&) = delete;

   private:
    AdapterSet& set_;
    std::vector<std::string> before_, merged_;
  };
  Off disable() { return Off(*this); }

  Adaptation& at(const std::string& name);  // throws, listing the names
  const Adaptation& at(const std::string& name) const;
  std::vector<std::string> names() const;  // in the order of adding
  std::vector<std::string> active() const;

 private:
  struct Entry {
    std::string name;
    std::unique_ptr<Adaptation> adaptation;
  };
  const Entry& entry(const std::string& name) const;

  const Methods methods_;
  Model& model_;
  std::vector<Entry> entries_;
};

}  // namespace graft
