#include "nn/batch.h"

#include <algorithm>

#include "nn/modules.h"

namespace graft {

Checkpoint checkpoint_named(const std::string& text) {
  for (const Checkpoint c : {Checkpoint::none, Checkpoint::inner, Checkpoint::blocks})
    if (text == name(c)) return c;
  fail("checkpoint={}: there are none, inner and blocks", text);
}

const char* name(Checkpoint c) {
  return c == Checkpoint::none ? "none" : c == Checkpoint::inner ? "inner" : "blocks";
}

std::int64_t filled_step(std::int64_t rows) {
  std::int64_t step = 1;
  while (step < 64 && 2 * step * 20 <= rows) step *= 2;
  return step;
}

Batch filled_up(Batch batch, const Arch& arch) {
  const std::int64_t tokens = batch.tokens();
  if (batch.filler > 0 || batch.source || !batch.target.empty() || tokens == 0) return batch;
  // A longer one might have no place where edits put rows before it.
  const std::int64_t longest = *std::ranges::max_element(batch.length);
  std::int64_t step = filled_step(tokens);
  while (step > longest) step /= 2;
  const auto more = static_cast<std::size_t>(step - tokens % step);  // one sequence more always
  const auto longer = [](auto& numbers, std::size_t n, std::int32_t value) {
    if (!numbers.empty()) numbers.insert(numbers.end(), n, value);
  };
  longer(batch.token, more, std::max(arch.mask, 0));  // a label may be looked for at the mask
  longer(batch.token_type, more, 0);
  longer(batch.token_label, more, -1);
  longer(batch.label, 1, -1);
  longer(batch.adapter, 1, -1);
  longer(batch.task, 1, batch.task.empty() ? 0 : batch.task.back());
  batch.example.push_back(0xFFFFFFFFu);
  batch.length.push_back(static_cast<int>(more));
  batch.filler = 1;
  return batch;
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
