#include "nn/batch.h"

namespace graft {

Checkpoint checkpoint_named(const std::string& text) {
  for (const Checkpoint c : {Checkpoint::none, Checkpoint::inner, Checkpoint::blocks})
    if (text == name(c)) return c;
  fail("checkpoint={}: there are none, inner and blocks", text);
}

const char* name(Checkpoint c) {
  return c == Checkpoint::none ? "none" : c == Checkpoint::inner ? "inner" : "blocks";
}

std::vector<std::int32_t> Sequence::places() const {
  if (!place.empty()) return place;
  std::vector<std::int32_t> all;
  for (const int l : length)
    for (int i = 0; i < l; ++i) all.push_back(i);
  return all;
}

Sequence Sequence::picked(const std::vector<std::int32_t>& of) const {
  Sequence some;
  some.memory = memory;
  const std::vector<std::int32_t> all = places();
  std::size_t next = 0;
  std::int32_t end = 0;
  for (const int l : length) {
    end += l;
    const std::size_t first = next;
    const auto least = [&] { return next == 0 ? 0 : of[next - 1] + 1; };
    for (; next < of.size() && least() <= of[next] && of[next] < end; ++next) {
      const auto row = static_cast<std::size_t>(of[next]);
      some.source.push_back(source[row]);
      some.position.push_back(position[row]);
      some.example.push_back(example[row]);
      some.place.push_back(all[row]);
    }
    some.length.push_back(static_cast<int>(next - first));
  }
  check(next == of.size(), "sequence: row {} is not above the one before and below {}",
        next < of.size() ? of[next] : 0, end);
  return some;
}

}  // namespace graft
