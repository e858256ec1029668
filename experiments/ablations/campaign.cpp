#include "experiments/ablations/campaign.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "experiments/ablations/view.h"
#include "nn/optim/diverged.h"

namespace graft {
namespace {

using nlohmann::json;

double clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Half-decades: 1e-4, 3.16e-4, 1e-3, ... written with three digits so that keys stay readable.
double half_decade(int i) {
  const double exact = std::pow(10.0, i / 2.0);
  const double unit = std::pow(10.0, std::floor(i / 2.0) - 2);
  return std::round(exact / unit) * unit;
}

constexpr int kExtensions = 4;  // beyond the five rates, in whole steps of the grid

std::string tuning_name(const std::string& experiment) { return experiment + "/tuning"; }

// What a run costs, for the estimate of the time left: everything but the rate and the seed.
std::string cost_of(json config) {
  config.erase("lr");
  return config.dump();
}

}  // namespace

std::string label_of(const json& config) {
  std::string text = config.at("method").get<std::string>();
  if (const std::string base = config.value("base", ""); base.ends_with("@random"))
    text += " on a random base";
  return text + ", " + config.at("task").get<std::string>();
}

Campaign::Campaign(Lab& lab, std::string experiment, const CampaignOptions& options)
    : lab_(lab),
      experiment_(std::move(experiment)),
      options_(options),
      locks_(options.out),
      begun_(clock_seconds()) {
  for (std::uint64_t s : options_.tuning_seeds)
    check(std::find(options_.seeds.begin(), options_.seeds.end(), s) == options_.seeds.end(),
          "{}: seed {} is for tuning and for reporting; they must differ", experiment_, s);
  if (options_.last_minutes > 0)
    lab_.give_up = [begun = begun_, most = 60 * options_.last_minutes] {
      return clock_seconds() - begun > most;
    };
  now_ = std::make_unique<Records>(options_.out, options_.shard.label());
  committed_ = std::make_unique<Records>(options_.committed);
  for (const auto& folder : options_.siblings)
    siblings_.push_back(std::make_unique<Records>(folder));
}

Campaign::~Campaign() { lab_.give_up = nullptr; }

bool Campaign::out_of_time() const {
  return options_.minutes > 0 && clock_seconds() - begun_ > 60 * options_.minutes;
}

// A run is a function of its arm, the base and the processor core; whose table it stands in makes
// no difference.
const Run* Campaign::sibling(const Arm& arm, bool tuning) const {
  for (const auto& records : siblings_)
    for (const Run& run : records->runs())
      if (run.kind == kind() && run.experiment.ends_with("/tuning") == tuning &&
          run.core == lab_.core() && run.arm.key() == arm.key())
        return &run;
  return nullptr;
}

void Campaign::copy(Run run, const std::string& experiment) {
  lab_.check_same(run);
  fmt::print("{}, seed {}: taken from {}, which ran it\n", label_of(run.arm.config), run.arm.seed,
             run.experiment);
  run.experiment = experiment;
  now_->append(run);
}

const Run* Campaign::recorded_trial(const Arm& arm) const {
  const std::string name = tuning_name(experiment_);
  if (const Run* run = now_->find(name, kind(), arm)) return run;
  return options_.quick ? committed_->find(name, RunKind::full, arm) : nullptr;
}

const Run& Campaign::trial(const Arm& arm) {
  const std::string name = tuning_name(experiment_);
  if (const Run* run = recorded_trial(arm)) return *run;
  const double begun = clock_seconds();
  const Run* before = sibling(arm, true);
  if (!before) before = committed_->find(name, kind(), arm);
  if (before) {
    copy(*before, name);
    return *now_->find(name, kind(), arm);
  }
  check(!out_of_time(), "{}: out of time while tuning {}", experiment_, label_of(arm.config));
  try {
    now_->append(lab_.run(name, kind(), arm));
  } catch (const Diverged& error) {
    // Such a rate is no reason to give up the search: it is one that lost.
    fmt::print("{} at rate {:g} diverged: {}\n", label_of(arm.config),
               arm.config.at("lr").get<double>(), error.what());
    now_->append(without_scores(name, arm, begun));
  }
  ++trained_now_;
  return *now_->find(name, kind(), arm);
}

Run Campaign::without_scores(const std::string& experiment, const Arm& arm, double begun) {
  Run run = lab_.unscored(experiment, kind(), arm);
  run.seconds = clock_seconds() - begun;
  run.metrics = {
      {"dev", std::numeric_limits<double>::quiet_NaN()}, {"best epoch", 0}, {"diverged", 1}};
  return run;
}

// The trials that other jobs are at are left to them and asked for again: a job that was killed
// in the middle of one has left it to the others.
void Campaign::run_trials(std::vector<Arm> missing) {
  now_->refresh();
  std::erase_if(missing, [&](const Arm& arm) {
    const Run* run = recorded_trial(arm);
    if (run) lab_.check_same(*run);
    return run != nullptr;
  });
  std::vector<std::string> costs;
  for (const Arm& arm : missing) costs.push_back(cost_of(arm.config));
  Remaining left(costs);
  const auto tell = [&](const Arm& arm) {
    fmt::print("{} tuning {} at rate {:g}\n", place_of_next(left, options_.shard.count),
               label_of(arm.config), arm.config.at("lr").get<double>());
    std::fflush(stdout);
  };
  const auto done = [&](const Arm& arm) {
    if (!recorded_trial(arm)) {
      const auto held = locks_.take(arm.key());
      if (!held) return false;
      now_->refresh();  // it may have ended just before
      if (!recorded_trial(arm) && !sibling(arm, true) && !out_of_time() &&
          !committed_->find(tuning_name(experiment_), kind(), arm))
        tell(arm);
      trial(arm);
    }
    left.finished(cost_of(arm.config), recorded_trial(arm)->seconds);
    return true;
  };
  for (bool told = false; !missing.empty(); now_->refresh()) {
    if (std::erase_if(missing, done) > 0) continue;
    check(!out_of_time(), "{}: out of time while other jobs were tuning", experiment_);
    if (!told) fmt::print("waiting for the trials that other jobs are at\n");
    told = true;
    std::fflush(stdout);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

Trial Campaign::trial_of(json config, double rate) {
  config["lr"] = rate;
  std::vector<const Run*> runs;
  for (std::uint64_t seed : options_.tuning_seeds) runs.push_back(recorded_trial({config, seed}));
  return graft::trial_of(rate, runs);
}

std::vector<json> Campaign::tuned(const std::vector<Search>& searches) {
  const int seeds = static_cast<int>(options_.tuning_seeds.size());
  std::vector<Tuning> found;
  for (const Search& s : searches)
    found.push_back({label_of(s.config), s.config.at("task"), {}, seeds});
  const auto rate_at = [](const Search& s, int step) {
    return half_decade(static_cast<int>(std::lround(2 * std::log10(s.middle))) + step);
  };
  const auto add = [&](const std::vector<int>& steps) {
    std::vector<Arm> wanted;
    for (int step : steps)
      for (const Search& s : searches)
        for (std::uint64_t seed : options_.tuning_seeds) {
          wanted.push_back({s.config, seed});
          wanted.back().config["lr"] = rate_at(s, step);
        }
    run_trials(std::move(wanted));
    for (int step : steps)
      for (std::size_t i = 0; i < searches.size(); ++i) {
        const Trial t = trial_of(searches[i].config, rate_at(searches[i], step));
        auto& trials = found[i].trials;
        trials.insert(step < 0 ? trials.begin() : trials.end(), t);
      }
  };
  const auto any_best_at = [&](auto end) {
    return std::any_of(found.begin(), found.end(),
                       [&](const Tuning& t) { return &chosen(t) == &end(t.trials); });
  };
  int low = -2, high = 2;
  add({0, -1, 1, -2, 2});
  for (int extra = 0; extra < kExtensions && !found.empty(); ++extra) {
    const bool below =
        any_best_at([](const auto& trials) -> const Trial& { return trials.front(); });
    const bool above =
        any_best_at([](const auto& trials) -> const Trial& { return trials.back(); });
    if (!below && !above) break;
    if (below) add({--low});
    if (above) add({++high});
  }
  std::vector<json> configs;
  for (std::size_t i = 0; i < searches.size(); ++i) {
    configs.push_back(searches[i].config);
    configs.back()["lr"] = chosen(found[i]).rate;
    tunings_.push_back(std::move(found[i]));
  }
  return configs;
}

void Campaign::run(const std::vector<json>& configs, const Measurement& measure) {
  Grid grid;
  for (const json& config : configs)
    if (std::find(grid.points.begin(), grid.points.end(), config) == grid.points.end())
      grid.points.push_back(config);
  std::vector<Arm> todo;
  std::vector<std::string> costs;
  const auto label_with_seed = [](const Arm& arm) {
    return label_of(arm.config) + fmt::format(", seed {}", arm.seed);
  };
  for (const Arm& arm : select(expand(grid, options_.seeds), options_.shard)) {
    const Run* run = now_->find(experiment_, kind(), arm);
    if (run) {
      lab_.check_same(*run);
    } else if (const Run* elsewhere = sibling(arm, false)) {
      copy(*elsewhere, experiment_);
      run = now_->find(experiment_, kind(), arm);
    }
    if (run) {
      if (diverged(*run))
        fmt::print("{} diverged when it ran; it is not run again\n", label_with_seed(arm));
      continue;
    }
    todo.push_back(arm);
    costs.push_back(cost_of(arm.config));
  }
  Progress progress(costs, stdout);
  std::vector<std::string> lost;
  for (const Arm& arm : todo) {
    if (out_of_time()) {
      fmt::print("{}: stopped after {:g} minutes; start it again to go on\n", experiment_,
                 options_.minutes);
      break;
    }
    const std::string label = label_with_seed(arm);
    progress.starting(label);
    const double begun = clock_seconds();
    std::optional<Run> run;
    try {
      run = lab_.run(experiment_, kind(), arm, measure);
    } catch (const Diverged& error) {
      run = without_scores(experiment_, arm, begun);
      lost.push_back(label + ": " + error.what());
    }
    now_->append(*run);
    ++trained_now_;
    progress.finished(label, cost_of(arm.config), run->seconds);
  }
  if (!lost.empty())
    throw Diverged(fmt::format("{}: {} run(s) diverged and are recorded without scores: {}",
                               experiment_, lost.size(), fmt::join(lost, "; ")));
}

std::optional<Scores> Campaign::scores(const Records& records, const json& config,
                                       const std::string& set) const {
  Scores out;
  for (std::uint64_t seed : options_.seeds) {
    const Run* run = records.find(experiment_, kind(), {config, seed});
    if (!run || !run->scores.contains(set)) return std::nullopt;
    out.push_back(run->scores.at(set));
  }
  return out;
}

}  // namespace graft
