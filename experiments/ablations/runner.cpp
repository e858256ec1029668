#include "experiments/ablations/runner.h"

#include <algorithm>

#include "experiments/runs/named_task.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/optim/diverged.h"
#include "nn/text/hub_files.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

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

// Of what is not recorded yet, tuning included.
Prediction predict(const std::vector<Todo>& todo, const View& now, const RunOptions& options,
                   const Costs& costs, const View* committed) {
  Prediction p;
  std::set<std::string> groups;
  const auto have = now.tunings();
  for (const Todo& t : todo) {
    const auto done = now.runs(t.task, t.arm->label);
    int left = 0;
    for (const std::uint64_t seed : now.setup().scale.seeds) left += !done.contains(seed);
    p.add(costs, t.arm->config, left);
    if (t.arm->group.empty() || !options.tune || !groups.insert(t.task + t.arm->group).second)
      continue;
    if (committed && options.kind == RunKind::quick && committed->rate(t.task, t.arm->label))
      continue;
    const PlannedArm& first = leader(now.arms(t.task), t.arm->group);
    int trials = 5 * int(now.setup().scale.tuning_seeds.size());
    for (const Tuning& x : have)
      if (x.arm == fmt::format("{}, {}", first.shown, t.task))
        trials -= x.seeds * int(x.trials.size());
    if (trials > 0) p.add(costs, tuning_config(first.config), trials);
  }
  return p;
}

// Of the first seed's run, where it is not recorded.
double first_seconds(const Todo& t, const View& now, const Costs& costs) {
  if (now.runs(t.task, t.arm->label).contains(now.setup().scale.seeds.front())) return 0;
  return costs.seconds(t.arm->config).value_or(Costs::rough(t.arm->config));
}

// Gives up arms until the first seed's runs of the rest fit into the minutes; the subject is the
// last to go. The other seeds run as far as the minutes go.
void fit(std::vector<Todo>& todo, const View& now, const Costs& costs, double minutes) {
  std::stable_partition(todo.begin(), todo.end(),
                        [&](const Todo& t) { return t.arm->label == now.experiment().subject; });
  double seconds = 0;
  std::vector<Todo> kept;  // the first at least: a page without any arm says nothing
  for (const Todo& t : todo) {
    const double more = first_seconds(t, now, costs);
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
  check_rows(config);
  check_fits(kind_of_named_task(task), task, arch);
  if (method.starts_with("features")) {
    Options options = parse_spec(method).at(0);
    const int layers = arch.crosses() ? arch.encoder_layers : arch.layers;
    const int layer = options.integer("layer", layers, 0);
    check(layer <= layers, "features: layer={}; the model has {} layers", layer, layers);
  }
  check(!method.starts_with("bag of words") || method == "bag of words" || method == kTunedWords,
        "method '{}': there are \"bag of words\", with c = 2, and \"{}\"", method, kTunedWords);
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
    check(std::count(s.tasks.begin(), s.tasks.end(), task) == 1, "task {} is given twice", task);
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

Outcome run_arms(Lab& lab, const Experiment& e, const Setup& asked, RunOptions options,
                 const View* committed) {
  Setup s = asked;
  Outcome out;
  std::map<std::string, std::vector<PlannedArm>> arms;
  std::vector<Todo> todo = chosen_arms(e, s, arms);
  options.campaign.quick = options.kind == RunKind::quick;
  {
    const Records before(options.campaign.out), shipped(options.campaign.committed);
    const View now(e, before, options.kind, s);
    const Costs costs(before, shipped);
    const std::size_t all = todo.size();
    out.planned = static_cast<int>(all * s.scale.seeds.size());
    if (options.fit) fit(todo, now, costs, 0.9 * options.campaign.minutes);
    out.left_out = todo.size() < all;
    if (out.left_out) {
      out.notes.push_back(
          fmt::format("{}: {} of {} arms fit into the minutes.", e.name, todo.size(), all));
      // Should there be time left, it is for the first seed of the other arms.
      if (std::any_of(todo.begin(), todo.end(),
                      [&](const Todo& t) { return first_seconds(t, now, costs) > 0; }))
        s.scale.seeds.resize(1);
    }
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
  } catch (const Diverged& error) {
    out.diverged = error.what();
  } catch (const Error&) {
    if (!campaign.out_of_time()) throw;
    fmt::print("{}: the minutes are over; start it again to go on\n", e.name);
  }
  out.left_out = out.left_out || campaign.out_of_time();
  out.trained = campaign.trained_now();
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
