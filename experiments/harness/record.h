// What an experiment keeps: one JSON line per finished run, safe against a kill at any moment.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "experiments/harness/grid.h"
#include "experiments/harness/stats.h"

namespace graft {

enum class RunKind { quick, full };  // a quick run never feeds a verdict

// One finished run. Its arm's key, the experiment and the kind identify it.
struct Run {
  std::string experiment;
  RunKind kind = RunKind::full;
  Arm arm;
  nlohmann::json versions = nlohmann::json::object();  // of this program and what it computes with
  std::string core;                                    // the processor core the numbers depend on
  std::string weights_hash;                            // of the final trainable weights
  std::map<std::string, double> metrics;               // "test accuracy", "trainable share", ...
  nlohmann::json predictions = nlohmann::json::object();  // by test set
  std::map<std::string, std::vector<float>> scores;       // by test set: one for each example
  double seconds = 0;
  std::uint64_t peak_bytes = 0;
};
// Training ran away: it has no scores, and would run away again.
bool diverged(const Run& run);
std::string to_line(const Run& run);  // without the newline; a metric that is no number is null
// Throws where a field is missing, unknown or of the wrong type, or the key does not fit the arm.
Run from_line(std::string_view line);

// The runs.*.jsonl files of a results folder: all are read, at most one is written.
class Records {
 public:
  // To read. A folder that does not exist holds no runs.
  explicit Records(const std::filesystem::path& folder);
  // To read all and append to runs.SHARD.jsonl, made with its folder if missing. Throws when
  // another process appends to that file.
  Records(const std::filesystem::path& folder, const std::string& shard);
  ~Records();
  Records(const Records&) = delete;
  Records& operator=(const Records&) = delete;

  // Takes in what other jobs have recorded in the meantime.
  void refresh();
  // Returns once the line is on the disk. Throws for a run that is recorded already, and when the
  // disk refuses the line, which then leaves no trace.
  void append(const Run& run);

  bool has(const std::string& experiment, RunKind kind, const Arm& arm) const;
  const Run* find(const std::string& experiment, RunKind kind, const Arm& arm) const;
  // What find() and runs() point at ends at append() and refresh().
  const std::vector<Run>& runs() const { return runs_; }

  // One line for each thing dropped on opening: a torn last line (cut off, or no JSON), which a
  // kill leaves behind. Damage elsewhere throws instead, as does one run with two different
  // results.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  void read_all(const std::filesystem::path& folder);
  // From where it was read to, up to a torn last line; returns where that begins.
  std::size_t read(const std::filesystem::path& path);
  void keep(Run run, const std::filesystem::path& path);

  std::vector<Run> runs_;
  std::unordered_map<std::string, std::size_t> place_;
  std::vector<std::string> notes_;
  std::map<std::filesystem::path, std::size_t> read_to_;
  std::filesystem::path folder_, path_;
  int file_ = -1;
};

// What one arm's configuration scored on a test set, one row for each seed in the order given.
// Throws, naming the seed, when a run is missing or has no scores on that test set.
Scores scores_of(const Records& records, const std::string& experiment, RunKind kind,
                 const nlohmann::json& config, std::span<const std::uint64_t> seeds,
                 const std::string& test_set);

}  // namespace graft
