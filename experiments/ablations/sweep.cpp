#include "experiments/ablations/sweep.h"

#include <algorithm>
#include <set>

#include "experiments/ablations/report.h"
#include "experiments/data/metrics.h"
#include "experiments/harness/page.h"
#include "experiments/harness/plot.h"
#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "nn/optim/diverged.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

bool is_run_key(const std::string& key) {
  static const json known = RunSpec{}.json();
  return (known.contains(key) && key != "seed") || key == "base" || key == "task" || key == "rows";
}

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Puts the words of the grid into the braces of the method; each must be used.
json filled(json config) {
  check(config.contains("method") && config.at("method").is_string(),
        "sweep: needs \"method\", a text such as lora:r=8,on=q+v");
  std::string method = config.at("method");
  std::vector<std::string> words;
  for (const auto& [key, value] : config.items())
    if (!is_run_key(key)) words.push_back(key);
  for (const std::string& word : words) {
    const std::string place = "{" + word + "}";
    std::size_t at = method.find(place);
    check(at != method.npos,
          "sweep: axis '{}' is neither a key of a run nor a word in braces in the method '{}'",
          word, method);
    const std::string value = text_of(config.at(word));
    for (; at != method.npos; at = method.find(place, at + value.size()))
      method.replace(at, place.size(), value);
    config.erase(word);
  }
  check(method.find('{') == method.npos,
        "sweep: the method '{}' has a word in braces that the grid lacks", method);
  config["method"] = method;
  return config;
}

// One for each baseline of the list and each different rest of the grid's points.
std::vector<json> baselines_of(const json& list, const std::vector<json>& points) {
  check(list.is_null() || list.is_array(), "sweep: \"baselines\" is a list of methods");
  std::vector<json> all;
  for (const json& point : points) {
    const bool language = is_language_task(point.at("task"));
    const json standard = language ? json{"unigram", "frozen"} : json{"majority", "bag of words"};
    for (const json& given : list.is_null() ? standard : list) {
      const json own = given.is_string() ? json{{"method", given}} : given;
      check(own.is_object() && own.contains("method") && own.at("method").is_string(),
            "sweep: the baseline {} is neither a method nor an object with one", given.dump());
      json config = point;
      config.erase("lr");
      for (const auto& [key, value] : own.items()) {
        check(is_run_key(key), "sweep: unknown key '{}' in the baseline {}", key, given.dump());
        config[key] = value;
      }
      if (!trains(config)) {
        json untrained;
        for (const char* key : {"base", "task", "rows", "method"})
          if (config.contains(key)) untrained[key] = config.at(key);
        config = untrained;
      }
      if (std::find(all.begin(), all.end(), config) == all.end() &&
          std::find(points.begin(), points.end(), config) == points.end())
        all.push_back(config);
    }
  }
  return all;
}

template <class T>
void get(const json& spec, const char* key, T& into) {
  if (!spec.contains(key)) return;
  try {
    spec.at(key).get_to(into);
  } catch (const json::exception&) {
    fail("sweep: key '{}' has the wrong type: {}", key, spec.at(key).dump());
  }
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

// Whether its rate is searched.
bool is_tuned(const json& config) { return trains(config) && !config.contains("lr"); }

struct Row {
  json config;
  bool baseline = false;
  std::vector<const Run*> runs;
};

// The baselines first.
std::vector<Row> rows_of(const Records& records, const SweepSpec& s) {
  const auto place = [&](const json& config) {
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

// Over seeds; for one seed of a classification, over its test examples.
Measure measured(const Row& row, const std::string& metric) {
  const bool loss = is_language_task(row.config.at("task"));
  std::vector<double> values;
  for (const Run* run : row.runs)
    values.push_back(turned(loss ? "loss" : "", run->metrics.at(metric)));
  Measure m{mean(values), {mean(values), mean(values)}, static_cast<int>(values.size())};
  // What draws nothing has the same scores for all seeds.
  const bool one = std::all_of(row.runs.begin(), row.runs.end(), [&](const Run* run) {
    return run->scores.at("test") == row.runs[0]->scores.at("test");
  });
  if (!one) {
    m.interval = t_interval(values);
  } else if (metric == "test") {
    const Effect e = bootstrap({{{{row.runs[0]->scores.at("test")}}}, 0}, {.draws = 2000});
    if (std::abs(e.value - m.mean) < 1e-6) m.interval = e.interval;  // else it is no mean of scores
  }
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
      cells.push_back(row.config.contains(key) ? text_of(row.config.at(key)) : "–");
    const Measure m = measured(row, metric), dev = measured(row, "dev");
    const Run& run = *row.runs.front();
    double seconds = 0;
    for (const Run* r : row.runs) seconds += r->seconds / static_cast<double>(row.runs.size());
    cells.push_back(with_interval(m.mean, m.interval, 4));
    cells.push_back(
        run.metrics.contains("trainable") && run.metrics.contains("base")
            ? fmt::format("{:.2g} %", 100 * run.metrics.at("trainable") / run.metrics.at("base"))
            : "–");
    cells.push_back(fmt::format("{:.4f}", dev.mean));
    cells.push_back(std::to_string(m.seeds));
    cells.push_back(fmt::format("{:.0f}", seconds));
    table.rows.push_back(cells);
  }
  return table;
}

void figure(Page& page, const std::vector<Row>& rows, const std::vector<std::string>& keys,
            const std::string& metric, const fs::path& stem) {
  if (rows.size() < 2 || rows.size() > 16) return;
  GroupPlot plot{"arm", {}, false, {"", metric, {{metric, {}}}, {}}, std::nullopt};
  for (const Row& row : rows) {
    std::string name;
    for (const std::string& key : keys)
      name += (name.empty() ? "" : ", ") +
              (row.config.contains(key) ? text_of(row.config.at(key)) : "–");
    const Measure m = measured(row, metric);
    plot.ours.series[0].points.push_back({double(plot.groups.size()), m.mean, m.interval});
    plot.groups.push_back(name);
  }
  page.figure(draw(plot, stem), "Every arm with its 95 % interval.");
}

// Of what is not recorded yet, tuning included.
Prediction predict(const SweepSpec& s, const Records& records) {
  const Costs costs(records);
  Prediction p;
  for (const json& config : s.all()) {
    std::set<std::uint64_t> done;
    for (const Run& run : records.runs()) {
      const bool same =
          (is_tuned(config) ? without_rate(run.arm.config) : run.arm.config) == config;
      if (run.experiment == s.name && same) done.insert(run.arm.seed);
    }
    p.add(costs, config,
          static_cast<int>(std::count_if(s.seeds.begin(), s.seeds.end(),
                                         [&](auto seed) { return !done.contains(seed); })));
    if (!is_tuned(config)) continue;
    const auto tried = tuning_of(records, s.name, RunKind::full, config, "");
    const int trials =
        5 * int(s.tuning_seeds.size()) - (tried ? tried->seeds * int(tried->trials.size()) : 0);
    if (trials > 0) p.add(costs, tuning_config(config), trials);
  }
  return p;
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

SweepSpec SweepSpec::from(const json& spec) {
  static const std::vector<std::string> own{"name",   "metric",  "grid",
                                            "device", "seeds",   "tuning_seeds",
                                            "middle", "compute", "baselines"};
  check(spec.is_object(), "sweep: the specification is not a JSON object");
  Grid grid = one("", json::object());
  for (const auto& [key, value] : spec.items()) {
    const bool mine = std::find(own.begin(), own.end(), key) != own.end();
    check(mine || is_run_key(key),
          "sweep: unknown key '{}'; there are {}, base, task, rows and the keys of a run: {}", key,
          fmt::join(own, ", "), RunSpec{}.json().dump());
    if (!mine) grid = grid * one(key, value);
  }
  SweepSpec s;
  for (const char* key : {"name", "task"})
    check(spec.contains(key) || (spec.contains("grid") && spec.at("grid").contains(key)),
          "sweep: needs \"{}\"", key);
  get(spec, "name", s.name), get(spec, "metric", s.metric), get(spec, "seeds", s.seeds);
  get(spec, "tuning_seeds", s.tuning_seeds), get(spec, "middle", s.middle);
  get(spec, "device", s.where.device), get(spec, "compute", s.where.compute);
  check(s.metric == "test" || s.metric == "dev", "sweep: metric '{}'; there are test and dev",
        s.metric);
  check(s.middle > 0 && !s.seeds.empty(), "sweep: needs seeds, and a middle above 0");
  const json axes = spec.value("grid", json::object());
  check(axes.is_object(), "sweep: \"grid\" maps each axis to a list of values");
  for (const auto& [key, values] : axes.items()) {
    check(values.is_array() && !values.empty(), "sweep: axis '{}' needs a list of values", key);
    grid = grid * axis(key, values.get<std::vector<json>>());
  }
  for (json point : grid.points) {
    if (!point.contains("base")) point["base"] = "encoder";
    s.configs.push_back(filled(point));
  }
  s.baselines = baselines_of(spec.value("baselines", json()), s.configs);
  return s;
}

std::vector<json> SweepSpec::all() const {
  std::vector<json> all = baselines;
  all.insert(all.end(), configs.begin(), configs.end());
  return all;
}

bool is_sweep_folder(const fs::path& folder) { return fs::exists(folder / "sweep.json"); }

fs::path run_sweep(Lab& lab, const BaseFolder& base_folder, const json& spec, const fs::path& out,
                   const Shard& shard, double minutes) {
  const SweepSpec s = SweepSpec::from(spec);
  check(lab.where() == s.where, "sweep: it is for device {} in {}, the lab has {} in {}",
        s.where.device, s.where.compute, lab.where().device, lab.where().compute);
  if (is_sweep_folder(out)) {
    const json before = json::parse(read_file(out / "sweep.json"), nullptr, false);
    check(before.is_object() && before.value("name", "") == s.name &&
              before.value("device", "cpu") == s.where.device &&
              before.value("compute", "f32") == s.where.compute,
          "sweep: {} holds another sweep, or one of another device or type; choose another --out",
          out.string());
  }
  for (const json& config : s.all()) check_config(lab.methods(), base_folder, config);
  fs::create_directories(out);
  write_file_atomically(out / "sweep.json", spec.dump(2) + "\n");
  CampaignOptions options;
  options.out = out, options.shard = shard, options.minutes = minutes;
  options.seeds = s.seeds, options.tuning_seeds = s.tuning_seeds;
  std::exception_ptr diverged;  // it is told when the page of the others is there
  {
    Campaign campaign(lab, s.name, options);
    print_prediction(s.name, predict(s, campaign.now()), shard.count);
    std::vector<json> configs;
    std::vector<Search> searches;
    std::vector<std::size_t> searched;  // places in configs
    for (const json& config : s.all()) {
      if (is_tuned(config)) {
        searched.push_back(configs.size());
        searches.push_back({tuning_config(config), s.middle});
      }
      configs.push_back(config);
    }
    const std::vector<json> tuned = campaign.tuned(searches);
    for (std::size_t i = 0; i < tuned.size(); ++i) configs[searched[i]]["lr"] = tuned[i].at("lr");
    try {
      campaign.run(configs);
    } catch (const Diverged&) {
      diverged = std::current_exception();
    }
  }
  const Records all(out);
  const bool any = std::any_of(all.runs().begin(), all.runs().end(),
                               [&](const Run& run) { return run.experiment == s.name; });
  const fs::path page = any || !diverged ? sweep_report(out) : fs::path();
  if (diverged) std::rethrow_exception(diverged);
  return page;
}

fs::path sweep_report(const fs::path& folder) {
  const json spec = json::parse(read_file(folder / "sweep.json"), nullptr, false);
  const SweepSpec s = SweepSpec::from(spec);
  const Records records(folder);
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
      facts.push_back({key, text_of(value)});
  page.facts("The same for all arms", facts);
  page.table(table_of(rows, keys, s.metric));
  fs::create_directories(folder / "figures");
  figure(page, rows, keys, s.metric, folder / "figures" / "sweep");
  write_tuning(page, tunings_of(s, records), s.tuning_seeds, "Tuning");
  page.notes(records.notes());
  write_file_atomically(folder / "report.html", page.html());
  fmt::print("{}", table_of(rows, keys, s.metric).text());
  return folder / "report.html";
}

}  // namespace graft
