#include "experiments/harness/tables.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "tensor/error.h"

namespace graft {
namespace {

constexpr const char* kDash = "–";

// Characters, not bytes: continuation bytes of UTF-8 take no place of their own.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string pad(const std::string& text, std::size_t to, bool right) {
  std::string space(to - std::min(to, width(text)), ' ');
  return right ? space + text : text + space;
}

std::string trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string or_dash(const std::string& text) { return text.empty() ? kDash : text; }

std::string show(const std::optional<Measure>& m, int diverged, int digits) {
  return m ? with_interval(*m, digits) : diverged > 0 ? "diverged" : kDash;
}

// "3e-4", not fmt's "0.0003" or "3e-04".
std::string rate_label(double rate) {
  std::string text = fmt::format("{:.2e}", rate);
  auto e = text.find('e');
  std::string digits = text.substr(0, e);
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.ends_with('.')) digits.pop_back();
  return fmt::format("{}e{}", digits, std::stoi(text.substr(e + 1)));
}

}  // namespace

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const Column& c : columns) widths.push_back(width(c.name));
  for (const auto& row : rows) {
    check(row.size() == columns.size(), "table \"{}\": a row of {} cells; need {}", caption,
          row.size(), columns.size());
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string groups, names, out = caption.empty() ? "" : caption + "\n";
  bool grouped = false;
  for (std::size_t i = 0; i < columns.size();) {
    std::size_t end = i, span = 0;
    do span += widths[end] + 2;
    while (++end < columns.size() && columns[end].group == columns[i].group);
    // A heading wider than its columns widens the last of them.
    std::size_t need = width(columns[i].group) + 2;
    if (need > span) widths[end - 1] += need - span, span = need;
    groups += pad(columns[i].group, span, false);
    grouped |= !columns[i].group.empty();
    i = end;
  }
  for (std::size_t i = 0; i < columns.size(); ++i)
    names += pad(columns[i].name, widths[i], columns[i].number) + "  ";
  if (grouped) out += trimmed(groups);
  out += trimmed(names);
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i)
      line += pad(row[i], widths[i], columns[i].number) + "  ";
    out += trimmed(line);
  }
  return out;
}

Measure measure(const Effect& effect) { return {effect.value, effect.interval, effect.seeds}; }

std::string with_interval(const Measure& m, int digits) {
  return m.interval ? with_interval(m.mean, *m.interval, digits)
                    : fmt::format("{:.{}f} [{}]", m.mean, digits, kDash);
}

std::string seeds_in_words(const std::optional<Measure>& m, int diverged) {
  const std::string scored = m ? std::to_string(m->seeds) : "";
  if (diverged == 0) return or_dash(scored);
  return fmt::format("{}{} diverged", scored.empty() ? "" : scored + ", ", diverged);
}

std::string share_in_words(double part, double whole) {
  const double percent = 100 * part / whole;
  return percent >= 10 ? fmt::format("{:.0f} %", percent) : fmt::format("{:.2g} %", percent);
}

Table result_table(const std::string& caption, const std::string& metric,
                   std::span<const Result> results, int digits) {
  Table table{caption, {{"arm", "", false}}, {}};
  for (const char* group : {"this run", "committed full run"}) {
    table.columns.push_back({metric + ", mean [95 %]", group, true});
    table.columns.push_back({"seeds", group, true});
  }
  table.columns.insert(table.columns.begin() + 1, {"trained", "this run", true});
  bool models = std::any_of(results.begin(), results.end(),
                            [](const Result& r) { return !r.paper_model.empty(); });
  table.columns.push_back({"reported", "paper", true});
  table.columns.push_back({"trained", "paper", true});
  if (models) table.columns.push_back({"model, task", "paper", false});
  for (const Result& r : results) {
    table.rows.push_back({r.arm, or_dash(r.trained), show(r.now, r.diverged_now, digits),
                          seeds_in_words(r.now, r.diverged_now),
                          show(r.committed, r.diverged_committed, digits),
                          seeds_in_words(r.committed, r.diverged_committed), or_dash(r.paper),
                          or_dash(r.paper_trained)});
    if (models) table.rows.back().push_back(or_dash(r.paper_model));
  }
  return table;
}

const Trial& chosen(const Tuning& tuning) {
  check(!tuning.trials.empty(), "tuning of {}: no trials", tuning.arm);
  return *std::max_element(tuning.trials.begin(), tuning.trials.end(),
                           [](const Trial& a, const Trial& b) { return a.score < b.score; });
}

void check_fair(std::span<const Tuning> tunings) {
  for (const Tuning& t : tunings) {
    const Tuning& first = *std::find_if(tunings.begin(), tunings.end(),
                                        [&](const Tuning& x) { return x.task == t.task; });
    check(t.trials.size() == first.trials.size() && t.seeds == first.seeds,
          "tuning: {} had {} rates x {} seeds, {} had {} x {}; every arm of a task gets the same "
          "search",
          first.arm, first.trials.size(), first.seeds, t.arm, t.trials.size(), t.seeds);
    check(t.trials.size() >= 5, "tuning of {}: {} rates; need at least 5", t.arm, t.trials.size());
    for (std::size_t i = 1; i < t.trials.size(); ++i) {
      double step = t.trials[i].rate / t.trials[i - 1].rate;
      check(step > 2.9 && step < 3.5, "tuning of {}: rates {} and {} are not half a decade apart",
            t.arm, t.trials[i - 1].rate, t.trials[i].rate);
    }
    const Trial& best = chosen(t);
    check(&best != &t.trials.front() && &best != &t.trials.back(),
          "tuning of {}: the best rate, {}, is at an edge of {}..{}; extend the grid", t.arm,
          best.rate, t.trials.front().rate, t.trials.back().rate);
  }
}

Table tuning_table(std::span<const Tuning> tunings, int digits) {
  std::set<double> rates;
  for (const Tuning& t : tunings)
    for (const Trial& trial : t.trials) rates.insert(trial.rate);
  Table table{
      "Tuning: best epoch's mean score on dev at each learning rate (sd over the tuning "
      "seeds); * marks the choice.",
      {{"arm", "", false}},
      {}};
  for (double rate : rates) table.columns.push_back({rate_label(rate), "learning rate", true});
  table.columns.push_back({"epoch", "choice", true});
  table.columns.push_back({"seeds", "choice", true});
  for (const Tuning& t : tunings) {
    std::vector<std::string> row = {t.arm};
    for (double rate : rates) {
      auto trial = std::find_if(t.trials.begin(), t.trials.end(),
                                [&](const Trial& x) { return x.rate == rate; });
      row.push_back(trial == t.trials.end() ? kDash
                    : trial->score == -std::numeric_limits<double>::infinity()
                        ? "diverged"
                        : fmt::format("{:.{}f} ({:.{}f}){}", trial->score, digits, trial->sd,
                                      digits, &*trial == &chosen(t) ? "*" : ""));
    }
    row.push_back(std::to_string(chosen(t).epoch));
    row.push_back(std::to_string(t.seeds));
    table.rows.push_back(row);
  }
  return table;
}

std::string text(std::span<const Finding> findings) {
  std::string out;
  for (const Finding& f : findings) {
    out += fmt::format("{}  {}: {}\n", f.claim.id, f.verdict ? name(*f.verdict) : "no verdict",
                       f.claim.text);
    if (!f.claim.paper.empty()) out += "    paper: " + f.claim.paper + "\n";
    for (const Reading& r : f.readings)
      out += fmt::format("    {}: {}; claimed: {}\n", r.label, r.numbers, r.test);
    out += "    " + f.reason + "\n";
  }
  return out;
}

}  // namespace graft
