// How much of a model trains: the line that PEFT's print_trainable_parameters prints.
#pragma once

#include <set>
#include <string>

#include "peft/adapter.h"

namespace graft {

struct TrainableCount {
  std::int64_t trainable = 0;  // the adapters' numbers; a task's head is not among them
  std::int64_t all = 0;        // the base's and what adapters add to it
};

// Of an adapted model, with storage or without.
inline TrainableCount count_trainable(Model& model, const Adaptation& adaptation) {
  TrainableCount n{adaptation.count(), model.parameters()};
  // Parameters that stand in a base parameter's place are part of the base already.
  std::set<const Node*> in_base;
  model.each([&](Weight& w) { in_base.insert(w.value().node().get()); });
  for (const auto& p : adaptation.parameters())
    if (!in_base.contains(p->value.node().get())) n.all += p->value.numel();
  return n;
}

inline std::string trainable_line(Model& model, const Adaptation& adaptation) {
  const TrainableCount n = count_trainable(model, adaptation);
  return fmt::format("trainable params: {} || all params: {} || trainable%: {}", n.trainable, n.all,
                     100.0 * double(n.trainable) / double(n.all));
}

}  // namespace graft
