// A sweep's page, from its records alone.
#include <algorithm>

#include "experiments/ablations/report.h"
#include "experiments/ablations/sweep.h"
#include "experiments/data/metrics.h"
#include "experiments/harness/page.h"
#include "experiments/harness/plot.h"
#include "nn/files/atomic.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::string shown(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// What differs between the configurations, in the order of their keys.
std::vector<std::string> varying(const std::vector<json>& configs) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : configs.front().items())
    if (std::any_of(configs.begin(), configs.end(), [&, k = key, v = value](const json& c) {
          return !c.contains(k) || c.at(k) != v;
        }))
      keys.push_back(key);
  if (keys.empty()) keys.push_back("method");
  return keys;
}

struct Row {
  json config;
  bool baseline = false;
  std::vector<const Run*> runs;
};

// The baselines first.
std::vector<Row> rows_of(const Records& records, const SweepSpec& s) {
  const auto place = [&](json config) {
    // As it was before its c was chosen.
    if (config.at("method") == "bag of words") config["method"] = kTunedWords;
    return std::find_if(s.baselines.begin(), s.baselines.end(), [&](const json& baseline) {
      return (is_tuned(baseline) ? without_rate(config) : config) == baseline;
    });
  };
  std::vector<Row> rows;
  for (const Run& run : records.runs()) {
    if (run.experiment != s.name) continue;
    auto at = std::find_if(rows.begin(), rows.end(),
                           [&](const Row& r) { return r.config == run.arm.config; });
    if (at == rows.end())
      at =
          rows.insert(rows.end(), {run.arm.config, place(run.arm.config) != s.baselines.end(), {}});
    at->runs.push_back(&run);
  }
  std::stable_sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) {
    if (place(a.config) != place(b.config)) return place(a.config) < place(b.config);
    return canonical(a.config) < canonical(b.config);
  });
  return rows;
}

// What differs between the arms, and what tells the baselines from them and each other.
std::vector<std::string> columns_of(const std::vector<json>& configs,
                                    const std::vector<Row>& rows) {
  std::vector<std::string> keys = varying(configs);
  const auto add = [&](const std::string& key) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  };
  for (const Row& row : rows)
    if (row.baseline)
      for (const auto& [key, value] : row.config.items())
        if (!configs.front().contains(key) || configs.front().at(key) != value) add(key);
  return keys;
}

// Over seeds; for one seed, or where nothing is drawn and all seeds score alike, over its test
// examples. No interval where nothing tells the error: a score that is no mean over examples, one
// on dev, or no two values that differ. None where every run diverged.
std::optional<Measure> measured(const Row& row, const std::string& metric) {
  std::vector<const Run*> runs;
  for (const Run* run : row.runs)
    if (!diverged(*run)) runs.push_back(run);
  if (runs.empty()) return std::nullopt;
  const bool loss = is_loss(runs);
  std::vector<double> values;
  for (const Run* run : runs) values.push_back(turned(loss ? "loss" : "", run->metrics.at(metric)));
  Measure m{mean(values), std::nullopt, static_cast<int>(values.size())};
  const bool one = std::all_of(runs.begin(), runs.end(), [&](const Run* run) {
    return run->scores.at("test") == runs[0]->scores.at("test") &&
           run->metrics.at(metric) == runs[0]->metrics.at(metric);
  });
  if (!one) {
    m.interval = t_interval(values);
  } else if (metric == "test") {
    const Effect e = bootstrap({{{{runs[0]->scores.at("test")}}}, 0}, {.draws = 2000});
    if (std::abs(e.value - m.mean) < 1e-6) m.interval = e.interval;  // else it is no mean of scores
  }
  if (m.interval && m.interval->low == m.interval->high) m.interval.reset();
  return m;
}

Table table_of(const std::vector<Row>& rows, const std::vector<std::string>& keys,
               const std::string& metric) {
  Table table{
      "Every arm; intervals over seeds, or over test examples where there is one seed or all score "
      "alike",
      {},
      {}};
  for (const std::string& key : keys) table.columns.push_back({key, "arm", false});
  for (const char* name : {"trained", "dev", "seeds", "s a run"})
    table.columns.push_back({name, "", true});
  table.columns.insert(table.columns.begin() + static_cast<std::ptrdiff_t>(keys.size()),
                       {metric + ", mean [95 %]", "", true});
  for (const Row& row : rows) {
    std::vector<std::string> cells;
    for (const std::string& key : keys)
      cells.push_back(row.config.contains(key) ? shown(row.config.at(key)) : "–");
    const auto m = measured(row, metric), dev = measured(row, "dev");
    const Run& run = **std::find_if(row.runs.begin(), row.runs.end(),
                                    [&](const Run* r) { return !m || !diverged(*r); });
    double seconds = 0;
    for (const Run* r : row.runs) seconds += r->seconds / static_cast<double>(row.runs.size());
    cells.push_back(m ? with_interval(*m, 4) : "diverged");
    cells.push_back(run.metrics.contains("trainable") && run.metrics.contains("base")
                        ? share_in_words(run.metrics.at("trainable"), run.metrics.at("base"))
                        : "–");
    cells.push_back(dev ? fmt::format("{:.4f}", dev->mean) : "–");
    cells.push_back(seeds_in_words(m, static_cast<int>(std::ranges::count_if(
                                          row.runs, [](const Run* r) { return diverged(*r); }))));
    cells.push_back(fmt::format("{:.0f}", seconds));
    table.rows.push_back(cells);
  }
  return table;
}

// What the table cannot say of itself.
std::vector<std::string> reading_notes(const std::vector<Row>& rows, const std::string& metric) {
  bool bare = false, random = false, lost = false;
  for (const Row& row : rows) {
    const auto m = measured(row, metric);
    bare |= m && !m->interval;
    random |= shown(row.config.at("base")).ends_with("@random");
    lost |= std::ranges::any_of(row.runs, [](const Run* run) { return diverged(*run); });
  }
  std::vector<std::string> notes;
  if (bare)
    notes.push_back(
        "[–]: there is no interval. The runs score alike, or there is one, and the score is no "
        "mean over test examples, or none of them differs: nothing tells its error.");
  if (random)
    notes.push_back(
        "A base called @random was never trained. It is one draw for all seeds: intervals of arms "
        "on it leave out how much draws differ.");
  if (lost)
    notes.push_back(
        "Runs in which training diverged have no scores: a mean is over the other seeds, which "
        "flatters its arm.");
  return notes;
}

void figure(Page& page, const std::vector<Row>& rows, const std::vector<std::string>& keys,
            const std::string& metric, const fs::path& stem) {
  if (rows.size() < 2 || rows.size() > 16) return;
  GroupPlot plot{"arm", {}, false, {"", metric, {{metric, {}}}, {}}, std::nullopt};
  for (const Row& row : rows) {
    std::string name;
    for (const std::string& key : keys)
      name +=
          (name.empty() ? "" : ", ") + (row.config.contains(key) ? shown(row.config.at(key)) : "–");
    const auto m = measured(row, metric);
    if (!m) continue;
    plot.ours.series[0].points.push_back({double(plot.groups.size()), m->mean, m->interval});
    plot.groups.push_back(name);
  }
  if (plot.groups.size() > 1)
    page.figure(draw(plot, stem), "Every arm with its 95 % interval, where it has one.");
}

std::vector<Tuning> tunings_of(const SweepSpec& s, const Records& records) {
  std::vector<Tuning> all;
  for (const json& config : s.all())
    if (is_tuned(config))
      if (auto t = tuning_of(records, s.name, RunKind::full, config, label_of(config)))
        all.push_back(std::move(*t));
  return all;
}

}  // namespace

fs::path sweep_report(const fs::path& folder) {
  const json spec = json::parse(read_file(folder / "sweep.json"), nullptr, false);
  const Records records(folder);
  const SweepSpec s = SweepSpec::from(spec, task_metrics(records));
  const std::vector<Row> rows = rows_of(records, s);
  check(!rows.empty(), "report: {} has no finished run of '{}' yet", folder.string(), s.name);
  std::vector<json> configs;
  for (const Row& row : rows)
    if (!row.baseline) configs.push_back(row.config);
  if (configs.empty()) configs = s.configs;
  const std::vector<std::string> keys = columns_of(configs, rows);
  Page page("graft sweep: " + s.name);
  page.section(s.name);
  Facts facts;
  for (const auto& [key, value] : configs.front().items())
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      facts.push_back({key, shown(value)});
  page.facts("The same for all arms", facts);
  const Table table = table_of(rows, keys, s.metric);
  page.table(table);
  for (const std::string& note : reading_notes(rows, s.metric)) page.paragraph(note);
  fs::create_directories(folder / "figures");
  figure(page, rows, keys, s.metric, folder / "figures" / "sweep");
  write_tuning(page, tunings_of(s, records), s.tuning_seeds, "Tuning");
  page.notes(records.notes());
  write_file_atomically(folder / "report.html", page.html());
  fmt::print("{}", table.text());
  return folder / "report.html";
}

}  // namespace graft
