// How much of everything each kind of run uses: the one place to change it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace graft {

struct Scale {
  int train, dev, test;  // rows of each task, at most
  int epochs, batch;
  std::vector<std::uint64_t> seeds, tuning_seeds;
  struct Span {
    int train, epochs;
    bool operator==(const Span&) const = default;
  };
  std::map<std::string, Span> of_task = {};  // tasks with training rows and epochs of their own

  Span span(const std::string& task) const {
    const auto own = of_task.find(task);
    return own == of_task.end() ? Span{train, epochs} : own->second;
  }
};

// Minutes: does everything run, and which way do the effects point?
inline Scale quick_scale() { return {800, 200, 400, 1, 16, {1, 2}, {101}}; }
// `graft main`: a part of the arms in half an hour, with the rates that the full run chose.
inline Scale main_scale() { return {1500, 400, 1000, 2, 8, {1, 2}, {101}}; }
// What verdicts rest on: a day, resumed as often as need be. Small batches, since methods with few
// parameters need many steps: on supersense (2000 rows, 4 epochs) LoRA scored .571 with batches of
// 8 and .550 with 16, full fine-tuning .599.
// hyper3 is the nearer stand-in for MNLI, whose training rows are many. From 1500 of them in 5
// epochs full fine-tuning overfits (test .504; LoRA .608, bag of words .469); from 6000 in 2 epochs
// it does not (.659; .650, .518): single runs.
inline Scale full_scale() {
  return {1500, 400, 2000, 5, 8, {1, 2, 3, 4, 5}, {101}, {{"hyper3", {6000, 2}}}};
}

}  // namespace graft
