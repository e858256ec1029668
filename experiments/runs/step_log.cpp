#include "experiments/runs/step_log.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "nn/files/atomic.h"

namespace graft {
namespace {

// The step of the first whole line; -1 where there is none. A log that was asked for later than its
// run began does not begin at 0.
int first_step(const std::string& text) {
  const std::size_t end = text.find('\n');
  if (end == std::string::npos) return -1;
  const auto line =
      nlohmann::json::parse(text.begin(), text.begin() + std::ptrdiff_t(end), nullptr, false);
  if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) return 0;
  return std::max(0, line["step"].get<int>());
}

}  // namespace

void StepLog::open(int step) {
  std::string kept;
  if (step > 0) {
    if (std::filesystem::exists(path_)) kept = read_file(path_);
    const int first = first_step(kept);
    if (first < 0)
      fmt::print(stderr, "graft: log '{}' is new: it begins at step {}\n", path_.string(), step);
    std::size_t end = 0;
    for (int line = first < 0 ? step : first; line < step; ++line) {
      end = kept.find('\n', end);
      check(end != std::string::npos,
            "log: '{}' has {} of the {} steps before; it is another run's, or was cut off",
            path_.string(), line - first, step - first);
      ++end;
    }
    check(first <= step, "log: '{}' begins at step {}, this run goes on at {}; give another --log",
          path_.string(), first, step);
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
