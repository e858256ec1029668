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
inline Scale main_scale() { return {1500, 400, 1000, 2, 16, {1, 2}, {101}}; }
// What verdicts rest on: a day, resumed as often as need be.
inline Scale full_scale() { return {3000, 500, 2000, 3, 32, {1, 2, 3, 4, 5}, {101}}; }

}  // namespace graft
