// A file with one JSON line for each training step, complete also where a run was cut off and
// resumed.
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>

#include "experiments/runs/finetune.h"

namespace graft {

class StepLog {
 public:
  explicit StepLog(std::filesystem::path file) : path_(std::move(file)) {}
  // The first note decides where the log goes on: lines from that step on are written anew. A file
  // that is not there, of a run that goes on, begins at that step, and says so. Throws where lines
  // between a file's first step and it are missing.
  void operator()(const StepNote&);

 private:
  void open(int step);
  std::filesystem::path path_;
  std::shared_ptr<std::FILE> file_;
};

}  // namespace graft
