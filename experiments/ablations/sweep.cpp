#include "experiments/ablations/sweep.h"

#include <algorithm>
#include <set>

#include "experiments/ablations/report.h"
#include "experiments/data/metrics.h"
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

// One for each baseline of the list and each different rest of the grid's points. A task that is
// neither in `metrics` nor here is refused later, before anything runs.
std::vector<json> baselines_of(const json& list, const std::vector<json>& points,
                               const TaskMetrics& metrics) {
  check(list.is_null() || list.is_array(), "sweep: \"baselines\" is a list of methods");
  std::vector<json> all;
  for (const json& point : points) {
    const std::string task = text_of(point.at("task"));
    const auto recorded = metrics.find(task);
    const bool language = recorded == metrics.end()
                              ? kind_if_known(task) == TaskData::Kind::language
                              : !higher_is_better(recorded->second);
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
      if (config.at("method") == "bag of words") config["method"] = kTunedWords;
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

}  // namespace

bool is_tuned(const json& config) { return trains(config) && !config.contains("lr"); }

SweepSpec SweepSpec::from(const json& spec, const TaskMetrics& metrics) {
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
  s.baselines = baselines_of(spec.value("baselines", json()), s.configs, metrics);
  for (const json& config : s.all()) check_rows(config);
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

}  // namespace graft
