// How far a run of many arms is, and about how long the rest takes.
#pragma once

#include <cstddef>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace graft {

// Predicts the time left from finished arms of like cost.
class Remaining {
 public:
  // One entry for each arm still to run: a name for what it costs, e.g. "mnli lora 3 epochs".
  explicit Remaining(const std::vector<std::string>& costs);

  void finished(const std::string& cost, double seconds);  // throws for a cost not waited for
  // Mean seconds of finished arms of the same cost, or of all where there are none; empty before
  // the first.
  std::optional<double> seconds() const;
  std::size_t done() const { return done_; }
  std::size_t total() const { return total_; }

 private:
  struct Class {
    std::size_t left = 0, done = 0;
    double seconds = 0;
  };
  std::map<std::string, Class> classes_;
  std::size_t done_ = 0, total_ = 0;
};

// Prints Remaining: one line rewritten in place on a terminal, plain lines elsewhere.
class Progress {
 public:
  Progress(const std::vector<std::string>& costs,
           std::FILE* out);  // asks whether out is a terminal
  Progress(const std::vector<std::string>& costs, std::FILE* out, bool terminal);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void starting(const std::string& arm);
  void finished(const std::string& arm, const std::string& cost, double seconds);

 private:
  void show(const std::string& text);

  Remaining remaining_;
  std::FILE* out_;
  bool terminal_;
  bool open_ = false;  // a line on the terminal waits to be rewritten or ended
};

// "48 s", "7 min", "2 h 05 min", "3 d 04 h".
std::string duration(double seconds);

}  // namespace graft
