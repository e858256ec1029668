#include "experiments/harness/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "tensor/error.h"

namespace graft {
namespace {

// Seconds between two lines of a count that goes on.
double pause_of(const StatusLine& line) { return line.terminal() ? 1 : 30; }

std::size_t columns(std::FILE* out) {
  winsize size{};
  bool known = ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 20;
  return known ? size.ws_col : 80;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Remaining::Remaining(const std::vector<std::string>& costs) : total_(costs.size()) {
  for (const auto& cost : costs) ++classes_[cost].left;
}

void Remaining::finished(const std::string& cost, double seconds) {
  auto found = classes_.find(cost);
  check(found != classes_.end() && found->second.left > 0,
        "progress: no arm of cost \"{}\" is left", cost);
  --found->second.left;
  ++found->second.done;
  found->second.seconds += seconds;
  ++done_;
}

std::optional<double> Remaining::seconds() const {
  if (done_ == 0) return std::nullopt;
  double all = 0, left = 0;
  for (const auto& [name, c] : classes_) all += c.seconds;
  for (const auto& [name, c] : classes_) {
    double each =
        c.done ? c.seconds / static_cast<double>(c.done) : all / static_cast<double>(done_);
    left += static_cast<double>(c.left) * each;
  }
  return left;
}

std::string place_of_next(const Remaining& remaining, int jobs) {
  const auto left = remaining.seconds();
  std::string text = fmt::format("[{}/{}", remaining.done() + 1, remaining.total());
  if (left) text += ", about " + duration(*left / jobs) + " left";
  return text + "]";
}

StatusLine::StatusLine(std::FILE* out) : StatusLine(out, ::isatty(::fileno(out)) == 1) {}

void StatusLine::show(const std::string& text) {
  if (!terminal_) {
    fmt::print(out_, "{}\n", text);
  } else {
    // A line that wraps could not be rewritten; the cut never splits a UTF-8 character.
    std::size_t keep = std::min(text.size(), columns(out_) - 1);
    while (keep < text.size() && keep > 0 && (text[keep] & 0xc0) == 0x80) --keep;
    fmt::print(out_, "\r\x1b[K{}", text.substr(0, keep));
    open_ = true;
  }
  std::fflush(out_);
}

void StatusLine::end() {
  if (open_) std::fputc('\n', out_);
  open_ = false;
}

void StatusLine::clear() {
  if (open_) fmt::print(out_, "\r\x1b[K"), std::fflush(out_);
  open_ = false;
}

Progress::Progress(const std::vector<std::string>& costs, std::FILE* out)
    : remaining_(costs), line_(out) {}

Progress::Progress(const std::vector<std::string>& costs, std::FILE* out, bool terminal)
    : remaining_(costs), line_(out, terminal) {}

void Progress::starting(const std::string& arm) {
  line_.show(place_of_next(remaining_) + " " + arm);
}

void Progress::finished(const std::string& arm, const std::string& cost, double seconds) {
  remaining_.finished(cost, seconds);
  auto left = remaining_.seconds();
  line_.show(fmt::format("[{}/{} done, about {} left] {}: {}", remaining_.done(),
                         remaining_.total(), duration(*left), arm, duration(seconds)));
}

StepProgress::StepProgress(std::FILE* out) : line_(out) {}

void StepProgress::at(std::int64_t step, std::int64_t steps, double loss) {
  const double now = now_seconds();
  if (first_ < 0) first_ = step, begun_ = shown_ = now;
  if (step < steps && now - shown_ < pause_of(line_)) return;
  shown_ = now;
  std::string text = fmt::format("step {}/{}  loss {:.4f}", step, steps, loss);
  if (step > first_)
    text += fmt::format("  about {} left",
                        duration((now - begun_) * double(steps - step) / double(step - first_)));
  line_.show(text);
}

RowProgress::RowProgress(std::FILE* out, std::size_t rows)
    : RowProgress(out, rows, ::isatty(::fileno(out)) == 1) {}

RowProgress::RowProgress(std::FILE* out, std::size_t rows, bool terminal)
    : line_(out, terminal), rows_(rows), begun_(now_seconds()), shown_(begun_) {}

void RowProgress::at(std::size_t done) {
  const double now = now_seconds();
  if (done == 0 || now - shown_ < pause_of(line_)) return;
  shown_ = now;
  const double left = (now - begun_) * double(rows_ - done) / double(done);
  line_.show(fmt::format("{}/{} rows, about {} left", done, rows_, duration(left)));
}

std::string duration(double seconds) {
  auto s = std::llround(std::max(0.0, seconds));
  if (s < 100) return fmt::format("{} s", s);
  auto minutes = (s + 30) / 60;
  if (minutes < 60) return fmt::format("{} min", minutes);
  if (minutes < 48 * 60) return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
  auto hours = (minutes + 30) / 60;
  return fmt::format("{} d {:02} h", hours / 24, hours % 24);
}

}  // namespace graft
