#include "experiments/runs/step_log.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "nn/files/atomic.h"

namespace graft {

void StepLog::open(int step) {
  std::string kept;
  if (step > 0) {
    kept = read_file(path_);
    std::size_t end = 0;
    for (int line = 0; line < step; ++line) {
      end = kept.find('\n', end);
      check(end != std::string::npos,
            "log: '{}' has {} of the {} steps before; it is another run's, or was cut off",
            path_.string(), line, step);
      ++end;
    }
    kept.resize(end);
  }
  write_file_atomically(path_, kept);
  file_.reset(std::fopen(path_.c_str(), "a"), [](std::FILE* f) {
    if (f) std::fclose(f);
  });
  check(file_ != nullptr, "log: cannot open '{}': {}", path_.string(), std::strerror(errno));
}

void StepLog::operator()(const StepNote& note) {
  if (!file_) open(note.step);
  const std::string line =
      nlohmann::json{{"step", note.step}, {"epoch", note.epoch}, {"loss", note.loss},
                     {"rate", note.rate}, {"norm", note.norm},   {"examples", note.examples}}
          .dump() +
      "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size() &&
                       std::fflush(file_.get()) == 0;
  check(written, "log: cannot write '{}': {}", path_.string(), std::strerror(errno));
}

}  // namespace graft
