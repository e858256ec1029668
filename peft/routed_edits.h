// How Routed hands each adapter's edits the rows of its own sequences.
#pragma once

#include <any>
#include <map>
#include <string>
#include <vector>

#include "peft/routed.h"

namespace graft {

// Takes the edits of several adapters over, slot by slot. All of a slot's run together, where the
// first of them stands: what they read is cut up once and their results are joined once.
class RoutedEdits {
 public:
  explicit RoutedEdits(int adapters) : adapters_(adapters) {}
  // The next adapter's, which must outlive the edits. Throws for one that cannot be routed.
  void route(const Adaptation&, const std::string& name);

 private:
  template <class T, class... In>
  bool take(EditBase&);

  int adapters_, taken_ = 0;
  std::map<const void*, std::any> slots_;  // by EditBase::slot: a Together<...>, shared
};

// Where each one's part begins, and where the last one's ends.
inline std::vector<std::int32_t> starts_of(const std::vector<int>& length) {
  std::vector<std::int32_t> start(length.size() + 1, 0);
  for (std::size_t i = 0; i < length.size(); ++i) start[i + 1] = start[i] + length[i];
  return start;
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from, std::int32_t begin, std::int32_t end) {
  if (!from.empty()) to.insert(to.end(), from.begin() + begin, from.begin() + end);
}

}  // namespace graft
