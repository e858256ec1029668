#include "experiments/harness/record.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "nn/files/atomic.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const char* name(RunKind kind) { return kind == RunKind::quick ? "quick" : "full"; }

RunKind parse_kind(const std::string& text) {
  check(text == "quick" || text == "full", "record: kind is \"{}\"; need quick or full", text);
  return text == "quick" ? RunKind::quick : RunKind::full;
}

std::string identity(const std::string& experiment, RunKind kind, const Arm& arm) {
  return fmt::format("{} {} {}", experiment, name(kind), arm.key());
}

// Whole scores (the usual 0 and 1) without a decimal point: a third of the bytes.
json compact(const std::vector<float>& scores) {
  json list = json::array();
  for (float s : scores) {
    check(std::isfinite(s), "record: a score is {}; need a number", s);
    if (s == std::floor(s) && std::abs(s) < 1e6f)
      list.push_back(static_cast<int>(s));
    else
      list.push_back(s);
  }
  return list;
}

[[noreturn]] void fail_at(const char* operation, const fs::path& path) {
  fail("records: cannot {} {}: {}", operation, path.string(), std::strerror(errno));
}

void flush_folder(const fs::path& folder) {
  int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) fail_at("open", folder);
  int flushed = ::fsync(handle);
  ::close(handle);
  if (flushed != 0) fail_at("flush", folder);
}

std::vector<fs::path> record_files(const fs::path& folder) {
  std::vector<fs::path> paths;
  if (!fs::exists(folder)) return paths;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (file.starts_with("runs.") && file.ends_with(".jsonl")) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

// Older trials have no flag of it, but no score on dev either.
bool diverged(const Run& run) {
  if (run.metrics.contains("diverged")) return true;
  const auto dev = run.metrics.find("dev");
  return run.scores.empty() && dev != run.metrics.end() && std::isnan(dev->second);
}

std::string to_line(const Run& run) {
  json metrics = json::object(), scores = json::object();
  for (const auto& [metric, value] : run.metrics)
    metrics[metric] = std::isfinite(value) ? json(value) : json(nullptr);
  for (const auto& [test_set, values] : run.scores) scores[test_set] = compact(values);
  return json{{"key", run.arm.key()},
              {"experiment", run.experiment},
              {"kind", name(run.kind)},
              {"config", run.arm.config},
              {"seed", run.arm.seed},
              {"versions", run.versions},
              {"core", run.core},
              {"weights_hash", run.weights_hash},
              {"metrics", metrics},
              {"predictions", run.predictions},
              {"scores", scores},
              {"seconds", run.seconds},
              {"peak_bytes", run.peak_bytes}}
      .dump();
}

Run from_line(std::string_view line) {
  static const std::set<std::string> kFields = {
      "key",          "experiment", "kind",        "config", "seed",    "versions",  "core",
      "weights_hash", "metrics",    "predictions", "scores", "seconds", "peak_bytes"};
  Run run;
  try {
    json j = json::parse(line);
    for (const auto& [field, value] : j.items())
      check(kFields.contains(field), "record: unknown field \"{}\"", field);
    j.at("experiment").get_to(run.experiment);
    run.kind = parse_kind(j.at("kind"));
    run.arm = {j.at("config"), j.at("seed")};
    run.versions = j.at("versions");
    j.at("core").get_to(run.core);
    j.at("weights_hash").get_to(run.weights_hash);
    for (const auto& [metric, value] : j.at("metrics").items())
      run.metrics[metric] =
          value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
    run.predictions = j.at("predictions");
    j.at("scores").get_to(run.scores);
    j.at("seconds").get_to(run.seconds);
    j.at("peak_bytes").get_to(run.peak_bytes);
    check(j.at("key") == run.arm.key(), "record: key {} does not fit the arm, whose key is {}",
          j.at("key").dump(), run.arm.key());
  } catch (const json::exception& error) {
    fail("record: {}", error.what());
  }
  return run;
}

Records::Records(const fs::path& folder) : folder_(folder) { read_all(folder); }

Records::Records(const fs::path& folder, const std::string& shard)
    : folder_(folder), path_(folder / ("runs." + shard + ".jsonl")) {
  check(!shard.empty() && shard.find_first_of("/.") == shard.npos,
        "records: \"{}\" cannot name a shard's file", shard);
  fs::create_directories(folder);
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file_ < 0) fail_at("open", path_);
  try {
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
      check(errno != EWOULDBLOCK,
            "records: another process is writing {}; give each job its own --shard i/n",
            path_.string());
      fail_at("lock", path_);
    }
    flush_folder(folder);
    read_all(folder);
  } catch (...) {  // a constructor that throws runs no destructor
    ::close(file_);
    throw;
  }
}

Records::~Records() {
  if (file_ >= 0) ::close(file_);
}

void Records::read_all(const fs::path& folder) {
  for (const fs::path& path : record_files(folder)) {
    std::size_t whole = read(path);
    // Only the writer of a file cuts it: in another's, the "torn" line may be still on its way.
    if (path != path_) continue;
    if (::ftruncate(file_, static_cast<off_t>(whole)) != 0 || ::fsync(file_) != 0)
      fail_at("cut the torn last line of", path);
  }
}

void Records::refresh() {
  const std::size_t notes = notes_.size();
  for (const fs::path& path : record_files(folder_))
    if (path != path_) read(path);
  notes_.resize(notes);  // another's last line may be on its way
}

std::size_t Records::read(const fs::path& path) {
  std::string text = read_file(path);
  std::size_t& at = read_to_[path];
  for (int number = 1; at < text.size(); ++number) {
    std::size_t end = text.find('\n', at);
    bool last = end == text.npos || end + 1 == text.size();
    std::string_view line = std::string_view(text).substr(at, end - at);
    if (end == text.npos || (last && !json::accept(line))) {
      notes_.push_back(fmt::format("{}, line {}: dropped {} bytes of an unfinished record",
                                   path.filename().string(), number, text.size() - at));
      break;
    }
    try {
      keep(from_line(line), path);
    } catch (const Error& error) {
      fail("records: {}, line {}: {}", path.string(), number, error.what());
    }
    at = end + 1;
  }
  return at;
}

void Records::keep(Run run, const fs::path& path) {
  std::string id = identity(run.experiment, run.kind, run.arm);
  auto [place, is_new] = place_.emplace(id, runs_.size());
  if (is_new) {
    runs_.push_back(std::move(run));
    return;
  }
  const Run& first = runs_[place->second];
  check(first.weights_hash == run.weights_hash,
        "{} is recorded twice with different final weights, {} and {}; remove one", id,
        first.weights_hash, run.weights_hash);
  notes_.push_back(fmt::format("{}: {} is recorded twice, alike", path.filename().string(), id));
}

void Records::append(const Run& run) {
  check(file_ >= 0, "records: opened for reading only");
  check(!has(run.experiment, run.kind, run.arm), "records: {} is recorded already",
        identity(run.experiment, run.kind, run.arm));
  std::string line = to_line(run) + "\n";
  off_t before = ::lseek(file_, 0, SEEK_END);
  if (before < 0) fail_at("read the length of", path_);
  std::size_t written = 0;
  while (written < line.size()) {
    ssize_t n = ::write(file_, line.data() + written, line.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    written += static_cast<std::size_t>(n);
  }
  if (written < line.size() || ::fsync(file_) != 0) {
    int reason = errno;
    // Best effort: if even this fails, the torn line is dropped when the file is next opened.
    [[maybe_unused]] int cut = ::ftruncate(file_, before);
    errno = reason;
    fail_at("write", path_);
  }
  keep(run, path_);
}

const Run* Records::find(const std::string& experiment, RunKind kind, const Arm& arm) const {
  auto place = place_.find(identity(experiment, kind, arm));
  return place == place_.end() ? nullptr : &runs_[place->second];
}

bool Records::has(const std::string& experiment, RunKind kind, const Arm& arm) const {
  return find(experiment, kind, arm) != nullptr;
}

Scores scores_of(const Records& records, const std::string& experiment, RunKind kind,
                 const json& config, std::span<const std::uint64_t> seeds,
                 const std::string& test_set) {
  Scores scores;
  for (std::uint64_t seed : seeds) {
    const Run* run = records.find(experiment, kind, {config, seed});
    check(run, "{}: no {} run of {} with seed {}", experiment, name(kind), config.dump(), seed);
    auto found = run->scores.find(test_set);
    check(found != run->scores.end(), "{}: the run of {} with seed {} has no scores on {}",
          experiment, config.dump(), seed, test_set);
    scores.push_back(found->second);
  }
  return scores;
}

}  // namespace graft
