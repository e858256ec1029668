// How far a run of many arms, or of many steps, is, and about how long the rest takes.
#pragma once

#include <cstddef>
#include <cstdint>
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

// "[3/45, about 2 h left]": which arm is next, and the time where all of so many jobs take part.
std::string place_of_next(const Remaining&, int jobs = 1);

// One line rewritten in place on a terminal, plain lines elsewhere.
class StatusLine {
 public:
  explicit StatusLine(std::FILE* out);  // asks whether out is a terminal
  StatusLine(std::FILE* out, bool terminal) : out_(out), terminal_(terminal) {}
  ~StatusLine() { end(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  void show(const std::string& text);
  void end();    // what is printed next begins a line of its own
  void clear();  // the line on the terminal is gone, and what is printed next takes its place
  bool terminal() const { return terminal_; }

 private:
  std::FILE* out_;
  bool terminal_;
  bool open_ = false;  // a line on the terminal waits to be rewritten or ended
};

// Prints Remaining.
class Progress {
 public:
  Progress(const std::vector<std::string>& costs,
           std::FILE* out);  // asks whether out is a terminal
  Progress(const std::vector<std::string>& costs, std::FILE* out, bool terminal);

  void starting(const std::string& arm);
  void finished(const std::string& arm, const std::string& cost, double seconds);

 private:
  Remaining remaining_;
  StatusLine line_;
};

// "step 150/600  loss 1.2345  about 40 s left": every second on a terminal, every half minute
// elsewhere, and at the last step.
class StepProgress {
 public:
  explicit StepProgress(std::FILE* out);
  StepProgress(std::FILE* out, bool terminal) : line_(out, terminal) {}

  void at(std::int64_t step, std::int64_t steps, double loss);
  void end() { line_.end(); }
  bool on_terminal() const { return line_.terminal(); }

 private:
  StatusLine line_;
  std::int64_t first_ = -1;  // the first step that was told; a resumed run does not begin at 0
  double begun_ = 0, shown_ = 0;
};

// "1200/40000 rows, about 40 s left", for work whose result is printed when it ends: nothing before
// a second has gone (half a minute where it is no terminal), and gone from the terminal at the end.
class RowProgress {
 public:
  RowProgress(std::FILE* out, std::size_t rows);  // asks whether out is a terminal
  RowProgress(std::FILE* out, std::size_t rows, bool terminal);
  ~RowProgress() { end(); }

  void at(std::size_t done);
  void end() { line_.clear(); }

 private:
  StatusLine line_;
  std::size_t rows_;
  double begun_, shown_;
};

// "48 s", "7 min", "2 h 05 min", "3 d 04 h".
std::string duration(double seconds);

}  // namespace graft
