// How much of everything each kind of run uses: the one place to change it.
#pragma once

#include <cstdint>
#include <vector>

namespace graft {

struct Scale {
  int train, dev, test;  // rows of each task, at most
  int epochs, batch;
  std::vector<std::uint64_t> seeds, tuning_seeds;
};

// Minutes: does everything run, and which way do the effects point?
inline Scale quick_scale() { return {800, 200, 400, 1, 16, {1, 2}, {101}}; }
// `graft main`: a part of the arms in half an hour, with the rates that the full run chose.
inline Scale main_scale() { return {1500, 400, 1000, 2, 8, {1, 2}, {101}}; }
// What verdicts rest on: a day, resumed as often as need be. Small batches, since methods with few
// parameters need many steps: on supersense (2000 rows, 4 epochs) LoRA scored .571 with batches of
// 8 and .550 with 16, full fine-tuning .599.
inline Scale full_scale() { return {1500, 400, 2000, 5, 8, {1, 2, 3, 4, 5}, {101}}; }

}  // namespace graft
