#include "experiments/ablations/runner.h"

#include <algorithm>
#include <chrono>

#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/text/hub_files.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Examples passed, a training example counting three times.
double work_of(const json& config) {
  const json rows = config.value("rows", json::object());
  const auto of = [&](const char* split) { return std::max(100.0, rows.value(split, 0.0)); };
  return 3 * of("train") * (trains(config) ? config.value("epochs", 3) : 1) + of("dev") +
         of("test");
}

std::string exact_name(json config) {
  config.erase("lr");
  if (config.contains("rows")) config["rows"].erase("test");
  return canonical(config);
}

std::string alike_name(const json& config) {
  const std::string method = config.at("method");
  return fmt::format("{} {}", method.substr(0, method.find(':')),
                     config.at("task").get<std::string>());
}

// The causal base of the experiment's language tasks: the one asked for, or else "decoder" where
// there is one.
std::string decoder_for(const BaseFolder& base_folder, const std::string& asked) {
  const std::string name = asked.empty() ? "decoder" : asked;
  fs::path folder;
  try {
    folder = base_folder(name);
  } catch (const Error&) {
    if (!asked.empty()) throw;
  }
  if (asked.empty() && !fs::exists(folder / "config.json")) return "";
  const Arch arch = load_arch(folder);
  check(arch.causal, "decoder '{}': a masked model ({}); language tasks need a causal one", name,
        arch.family);
  return name;
}

// The arm that a group is tuned on.
const PlannedArm& leader(const std::vector<PlannedArm>& arms, const std::string& group) {
  const PlannedArm* found = nullptr;
  for (const PlannedArm& arm : arms)
    if (arm.group == group && (!found || arm.leads)) found = &arm;
  return *found;
}

// An arm's rate: the committed run's for this arm, or else its group's: found by a search that the
// groups of a task share, each on its leading arm, or the middle of the grid.
class Rates {
 public:
  Rates(Campaign& campaign, const RunOptions& options, const View* committed)
      : campaign_(campaign),
        committed_(options.kind == RunKind::quick ? committed : nullptr),
        tune_(options.tune) {}

  // All that the arms which run need; `all` are the task's arms, the leaders among them.
  void find(const std::string& task, const std::vector<const PlannedArm*>& run,
            const std::vector<PlannedArm>& all) {
    std::vector<std::string> groups;
    std::vector<Search> searches;
    for (const PlannedArm* arm : run) {
      if (arm->group.empty() || committed(task, *arm)) continue;
      if (std::find(groups.begin(), groups.end(), arm->group) != groups.end()) continue;
      groups.push_back(arm->group);
      const PlannedArm& first = leader(all, arm->group);  // it may be one that does not run here
      searches.push_back({tuning_config(first.config), first.middle});
    }
    if (tune_) {
      const std::vector<json> tuned = campaign_.tuned(searches);
      for (std::size_t i = 0; i < groups.size(); ++i) known_[{task, groups[i]}] = tuned[i].at("lr");
    } else {
      from_middle += static_cast<int>(groups.size());
      for (std::size_t i = 0; i < groups.size(); ++i)
        known_[{task, groups[i]}] = searches[i].middle;
    }
  }

  double of(const std::string& task, const PlannedArm& arm) {
    if (const auto rate = committed(task, arm)) return ++from_committed, *rate;
    return known_.at({task, arm.group});
  }

  int from_committed = 0, from_middle = 0;

 private:
  Campaign& campaign_;
  const View* committed_;
  bool tune_;
  std::optional<double> committed(const std::string& task, const PlannedArm& arm) const {
    return committed_ ? committed_->rate(task, arm.label) : std::nullopt;
  }

  std::map<std::pair<std::string, std::string>, double> known_;  // by task and group
};

struct Todo {
  std::string task;
  const PlannedArm* arm;
};

std::vector<Todo> chosen_arms(const Experiment& e, const Setup& s,
                              std::map<std::string, std::vector<PlannedArm>>& arms) {
  std::vector<Todo> all;
  for (const std::string& task : s.tasks) {
    arms[task] = e.arms(s, task);
    for (const PlannedArm& arm : arms[task])
      if (arm.few || !s.few) all.push_back({task, &arm});
  }
  return all;
}

struct Prediction {
  double seconds = 0;
  int runs = 0, unknown = 0;
};

// Of what is not recorded yet, tuning included.
Prediction predict(const std::vector<Todo>& todo, const View& now, const RunOptions& options,
                   const Costs& costs, const View* committed) {
  Prediction p;
  const auto add = [&](const json& config, int runs) {
    const auto s = costs.seconds(config);
    p.seconds += runs * s.value_or(Costs::rough(config));
    p.runs += runs;
    p.unknown += s ? 0 : runs;
  };
  std::set<std::string> groups;
  const auto have = now.tunings();
  for (const Todo& t : todo) {
    const auto done = now.runs(t.task, t.arm->label);
    int left = 0;
    for (const std::uint64_t seed : now.setup().scale.seeds) left += !done.contains(seed);
    add(t.arm->config, left);
    if (t.arm->group.empty() || !options.tune || !groups.insert(t.task + t.arm->group).second)
      continue;
    if (committed && options.kind == RunKind::quick && committed->rate(t.task, t.arm->label))
      continue;
    const PlannedArm& first = leader(now.arms(t.task), t.arm->group);
    int trials = 5 * int(now.setup().scale.tuning_seeds.size());
    for (const Tuning& x : have)
      if (x.arm == fmt::format("{}, {}", first.shown, t.task))
        trials -= x.seeds * int(x.trials.size());
    if (trials > 0) add(tuning_config(first.config), trials);
  }
  return p;
}

void print_prediction(const std::string& name, const Prediction& p, int jobs) {
  if (p.runs == 0) {
    fmt::print("{}: every run is recorded already\n", name);
  } else {
    const std::string all = jobs > 1 ? fmt::format(" and all {} jobs run", jobs) : "";
    fmt::print("{}: {} runs to do, about {} on this machine when it is free{} ({})\n", name, p.runs,
               duration(p.seconds / jobs), all,
               p.unknown == 0 ? "from recorded runs"
               : p.unknown == p.runs
                   ? "a rough guess: no such run is recorded yet"
                   : fmt::format("from recorded runs, {} of them by guess", p.unknown));
  }
  std::fflush(stdout);
}

double left_seconds(const Todo& t, const View& now, const Costs& costs, std::size_t seeds) {
  const auto done = now.runs(t.task, t.arm->label);
  double sum = 0;
  for (std::size_t i = 0; i < seeds; ++i)
    if (!done.contains(now.setup().scale.seeds[i]))
      sum += costs.seconds(t.arm->config).value_or(Costs::rough(t.arm->config));
  return sum;
}

// Gives up seeds, then arms, until the rest fits into the minutes; the subject is the last to go.
void fit(std::vector<Todo>& todo, Setup& s, const View& now, const Costs& costs, double minutes) {
  const auto all = [&](std::size_t seeds) {
    double sum = 0;
    for (const Todo& t : todo) sum += left_seconds(t, now, costs, seeds);
    return sum;
  };
  while (s.scale.seeds.size() > 1 && all(s.scale.seeds.size()) > 60 * minutes)
    s.scale.seeds.pop_back();
  std::stable_partition(todo.begin(), todo.end(),
                        [&](const Todo& t) { return t.arm->label == now.experiment().subject; });
  double seconds = 0;
  std::vector<Todo> kept;  // the first at least: a page without any arm says nothing
  for (const Todo& t : todo) {
    const double more = left_seconds(t, now, costs, s.scale.seeds.size());
    if (!kept.empty() && seconds + more > 60 * minutes) continue;
    seconds += more;
    kept.push_back(t);
  }
  todo = std::move(kept);
}

// The first line of a base's about.txt: what whoever reads its results has to know.
std::string about(const fs::path& folder) {
  const fs::path file = folder / "about.txt";
  if (!fs::exists(file)) return "";
  const std::string text = read_file(file);
  return text.substr(0, text.find('\n'));
}

}  // namespace

Setup setup_for(const Experiment& e, const BaseFolder& base_folder, const std::string& base,
                const std::vector<std::string>& tasks, const Scale& scale, bool few,
                const std::string& decoder) {
  const Arch arch = load_arch(base_folder(base));
  check(!arch.crosses() || e.not_on_text.empty(),
        "base '{}' ({}) is an encoder-decoder, which {} does not take: {}", base, arch.family,
        e.name, e.not_on_text);
  const auto model = load_model(base_folder(base));
  Setup s{.base = base,
          .weights = fmt::format("{:016x}", model->hash()),
          .tasks = tasks.empty() ? e.tasks : tasks,
          .scale = scale,
          .few = few,
          .layers = arch.crosses() ? arch.encoder_layers : arch.layers,
          .width = arch.width,
          .text = arch.crosses(),
          .about = about(base_folder(base))};
  check(decoder.empty() || !e.language_tasks.empty(),
        "{} has no language tasks; leave out --decoder", e.name);
  if (!e.language_tasks.empty()) s.decoder = decoder_for(base_folder, decoder);
  if (s.decoder.empty()) return s;
  const auto causal = load_model(base_folder(s.decoder));
  s.decoder_weights = fmt::format("{:016x}", causal->hash());
  s.decoder_width = causal->arch().width;
  if (tasks.empty())
    s.tasks.insert(s.tasks.end(), e.language_tasks.begin(), e.language_tasks.end());
  return s;
}

void check_config(const Methods& methods, const BaseFolder& base_folder, const json& config) {
  const std::string base = config.at("base"), task = config.at("task"),
                    method = config.at("method");
  const fs::path folder = base_folder(base.substr(0, base.find("@random")));
  check(fs::exists(folder / "model.safetensors") ||
            fs::exists(folder / "model.safetensors.index.json"),
        "model {}: {} is missing", base, (folder / "model.safetensors").string());
  (void)read_hub_tokenizer(folder);  // throws where there is none
  const auto& known = task_names();
  check(is_task_folder(task) || std::find(known.begin(), known.end(), task) != known.end(),
        "task '{}': no folder with a train.tsv or task.json, and not one of {}", task,
        fmt::join(known, ", "));
  const Arch arch = load_arch(folder);
  check_fits(kind_of_named_task(task), task, arch);
  if (method.starts_with("features")) {
    Options options = parse_spec(method).at(0);
    const int layers = arch.crosses() ? arch.encoder_layers : arch.layers;
    const int layer = options.integer("layer", layers, 0);
    check(layer <= layers, "features: layer={}; the model has {} layers", layer, layers);
  }
  if (!trains(config)) return;
  json run = config;
  for (const char* key : {"base", "task", "rows", "measure"}) run.erase(key);
  (void)RunSpec::from(run).on(arch);
  Model shape(arch, {.storage = false});
  const Adaptation attached(methods, method, shape);
  check(
      !arch.crosses() || attached.count() > 0,
      "method {}: it trains nothing of base '{}', an encoder-decoder, which has no head of its own",
      method, base);
}

void check_setup(const Methods& methods, const BaseFolder& base_folder, const Experiment& e,
                 const Setup& s) {
  std::set<std::string> seen;
  for (const std::string& task : s.tasks) {
    check(kind_of_named_task(task) != TaskData::Kind::regression,
          "task {} has scores, not classes; the ablations compare accuracies", task);
    if (is_language_task(task)) {
      check(!e.language_tasks.empty(), "task {} is a language task; {} compares accuracies", task,
            e.name);
      check(!s.decoder.empty(),
            "task {} is a language task and needs a causal base: there is none called 'decoder'; "
            "give one by --decoder",
            task);
    }
    for (const PlannedArm& arm : e.arms(s, task)) {
      if (s.few && !arm.few) continue;
      if (seen.insert(task + arm.config.at("method").get<std::string>()).second)
        check_config(methods, base_folder, arm.config);
    }
  }
}

Costs::Costs(const std::vector<const Records*>& all) {
  for (const Records* records : all)
    for (const Run& run : records->runs())
      for (Sum* sum : {&exact_[exact_name(run.arm.config)], &alike_[alike_name(run.arm.config)]}) {
        sum->seconds += run.seconds;
        sum->work += work_of(run.arm.config);
        ++sum->runs;
      }
}

std::optional<double> Costs::seconds(const json& config) const {
  if (const auto at = exact_.find(exact_name(config)); at != exact_.end())
    return at->second.seconds / at->second.runs;
  if (const auto at = alike_.find(alike_name(config)); at != alike_.end())
    return at->second.seconds / at->second.work * work_of(config);
  return std::nullopt;
}

// Forty tokens of 12 x 192 forward, 10 MFLOP each, at some 80 GFLOP/s.
double Costs::rough(const json& config) {
  return 0.005 * work_of(config) * (trains(config) ? 1 : 0.3);
}

Outcome run_arms(Lab& lab, const Experiment& e, const Setup& asked, RunOptions options,
                 const View* committed) {
  Setup s = asked;
  Outcome out;
  std::map<std::string, std::vector<PlannedArm>> arms;
  std::vector<Todo> todo = chosen_arms(e, s, arms);
  options.campaign.quick = options.kind == RunKind::quick;
  {
    const Records before(options.campaign.out), shipped(options.campaign.committed);
    const View now(e, before, options.kind, asked);
    const Costs costs({&before, &shipped});
    const std::size_t all = todo.size();
    if (options.fit) fit(todo, s, now, costs, 0.9 * options.campaign.minutes);
    if (todo.size() < all || s.scale.seeds.size() < asked.scale.seeds.size())
      out.notes.push_back(fmt::format("{}: {} of {} arms, {} seed(s), fit into {:.0f} minutes.",
                                      e.name, todo.size(), all, s.scale.seeds.size(),
                                      options.campaign.minutes));
    const View planned(e, before, options.kind, s);
    print_prediction(e.name, predict(todo, planned, options, costs, committed),
                     options.campaign.shard.count);
  }
  options.campaign.seeds = s.scale.seeds;
  options.campaign.tuning_seeds = s.scale.tuning_seeds;
  Campaign campaign(lab, e.name, options.campaign);
  Rates rates(campaign, options, committed);
  std::vector<json> configs;
  try {
    for (const std::string& task : s.tasks) {
      std::vector<const PlannedArm*> run;
      for (const Todo& t : todo)
        if (t.task == task) run.push_back(t.arm);
      rates.find(task, run, arms[task]);
    }
    for (const Todo& t : todo) {
      configs.push_back(t.arm->config);
      if (!t.arm->group.empty()) configs.back()["lr"] = rates.of(t.task, *t.arm);
    }
    if (!configs.empty()) campaign.run(configs, e.measurement(lab.methods()));
  } catch (const Error&) {
    if (!campaign.out_of_time()) throw;
    fmt::print("{}: the minutes are over; start it again to go on\n", e.name);
  }
  out.trained = campaign.trained_now();
  out.planned = static_cast<int>(configs.size() * s.scale.seeds.size());
  if (rates.from_committed > 0)
    out.notes.push_back(fmt::format("{}: {} arms use the committed full run's learning rates.",
                                    e.name, rates.from_committed));
  if (rates.from_middle > 0)
    out.notes.push_back(
        fmt::format("{}: {} learning rates are untuned, the middle of their grids, for want of a "
                    "committed run.",
                    e.name, rates.from_middle));
  return out;
}

}  // namespace graft
