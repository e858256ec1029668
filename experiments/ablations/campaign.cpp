#include "experiments/ablations/campaign.h"

#include <algorithm>
#include <chrono>
#include <cmath>

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
    : lab_(lab), experiment_(std::move(experiment)), options_(options), begun_(clock_seconds()) {
  for (std::uint64_t s : options_.tuning_seeds)
    check(std::find(options_.seeds.begin(), options_.seeds.end(), s) == options_.seeds.end(),
          "{}: seed {} is for tuning and for reporting; they must differ", experiment_, s);
  now_ = std::make_unique<Records>(options_.out, options_.shard.label());
  committed_ = std::make_unique<Records>(options_.committed);
}

bool Campaign::out_of_time() const {
  return options_.minutes > 0 && clock_seconds() - begun_ > 60 * options_.minutes;
}

const Run& Campaign::trial(const Arm& arm) {
  const std::string name = tuning_name(experiment_);
  for (const Records* records : {committed_.get(), now_.get()})
    for (RunKind kind : {RunKind::full, this->kind()})
      if (const Run* run = records->find(name, kind, arm)) return *run;
  check(!out_of_time(), "{}: out of time while tuning {}", experiment_, label_of(arm.config));
  fmt::print("tuning {} at rate {:g}\n", label_of(arm.config), arm.config.at("lr").get<double>());
  std::fflush(stdout);
  now_->append(lab_.run(name, kind(), arm));
  ++trained_now_;
  return *now_->find(name, kind(), arm);
}

json Campaign::tuned(json config, double middle) {
  const int centre = static_cast<int>(std::lround(2 * std::log10(middle)));
  Tuning tuning{label_of(config), {}, static_cast<int>(options_.tuning_seeds.size())};
  const auto add = [&](int i) {
    json with_rate = config;
    with_rate["lr"] = half_decade(i);
    std::vector<double> dev;
    int epoch = 0;
    for (std::uint64_t seed : options_.tuning_seeds) {
      const Run& run = trial({with_rate, seed});
      dev.push_back(run.metrics.at("dev"));
      epoch = static_cast<int>(run.metrics.at("best epoch"));
    }
    tuning.trials.push_back({half_decade(i), mean(dev), dev.size() > 1 ? sd(dev) : 0, epoch});
    std::sort(tuning.trials.begin(), tuning.trials.end(),
              [](const Trial& a, const Trial& b) { return a.rate < b.rate; });
  };
  int low = centre - 2, high = centre + 2;
  for (int i = low; i <= high; ++i) add(i);
  for (int extra = 0; extra < 4; ++extra) {
    const double best = chosen(tuning).rate;
    if (best == tuning.trials.front().rate)
      add(--low);
    else if (best == tuning.trials.back().rate)
      add(++high);
    else
      break;
  }
  config["lr"] = chosen(tuning).rate;
  tunings_.push_back(std::move(tuning));
  return config;
}

void Campaign::run(const std::vector<json>& configs, const Measurement& measure) {
  Grid grid;
  for (const json& config : configs)
    if (std::find(grid.points.begin(), grid.points.end(), config) == grid.points.end())
      grid.points.push_back(config);
  std::vector<Arm> todo;
  std::vector<std::string> costs;
  for (const Arm& arm : select(expand(grid, options_.seeds), options_.shard))
    if (!now_->has(experiment_, kind(), arm)) {
      todo.push_back(arm);
      costs.push_back(cost_of(arm.config));
    }
  Progress progress(costs, stdout);
  for (const Arm& arm : todo) {
    if (out_of_time()) {
      fmt::print("{}: stopped after {:g} minutes; start it again to go on\n", experiment_,
                 options_.minutes);
      return;
    }
    const std::string label = label_of(arm.config) + fmt::format(", seed {}", arm.seed);
    progress.starting(label);
    const Run run = lab_.run(experiment_, kind(), arm, measure);
    now_->append(run);
    ++trained_now_;
    progress.finished(label, cost_of(arm.config), run.seconds);
  }
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
