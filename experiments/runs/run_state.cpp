#include "experiments/runs/run_state.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "experiments/runs/computing.h"
#include "nn/files/strict_json.h"

namespace graft {
namespace {

// Earlier versions wrote the task's name between "task " and the hash of its rows in brackets. The
// rows count; the folder may be called otherwise by now.
std::string without_name(std::string on) {
  constexpr std::string_view kBefore = ", task ", kAfter = ", started from ";
  constexpr std::size_t kHash = 18;  // with its brackets
  const std::size_t at = on.find(kBefore), end = std::min(on.rfind(kAfter), on.size());
  if (at == std::string::npos || end < at + kBefore.size() + kHash) return on;
  const std::size_t from = at + kBefore.size();
  return on.erase(from, end - kHash - from);
}

// Which of the parts of `on` are others: "base, task".
std::string others(const std::string& was, const std::string& is) {
  const auto parts = [](const std::string& on) {
    std::set<std::string> all;
    std::size_t at = 0;
    for (std::size_t end = 0; end != std::string::npos; at = end + 2) {
      end = on.find(", ", at);
      all.insert(on.substr(at, end - at));
    }
    return all;
  };
  std::set<std::string> names;
  const std::set<std::string> before = parts(was), now = parts(is);
  for (const auto* one : {&before, &now})
    for (const std::string& part : *one)
      if (!before.contains(part) || !now.contains(part))
        names.insert(part.substr(0, part.find(' ')));
  return fmt::format("{}", fmt::join(names, ", "));
}

// The settings of `of` that `other` has otherwise: "lr: 0.001, seed: 1".
std::string different(const nlohmann::json& of, const nlohmann::json& other) {
  std::vector<std::string> all;
  for (const auto& [key, value] : of.items())
    if (!other.contains(key) || other.at(key) != value)
      all.push_back(fmt::format("{}: {}", key, value.dump()));
  return fmt::format("{}", fmt::join(all, ", "));
}

}  // namespace

Schedule schedule_of(const RunSpec& spec, int steps) {
  return {schedule_named(spec.schedule), spec.lr, steps, static_cast<int>(spec.warmup * steps)};
}

RunState::RunState(const RunPlaces& places, const RunSpec& spec, std::string on,
                   const Parameters& parameters, Parameters held, Optimizer& optimizer)
    : places_(places),
      spec_(spec),
      on_(std::move(on)),
      parameters_(parameters),
      held_(std::move(held)),
      optimizer_(optimizer) {
  loss_scale = LossScale::of(compute_named(spec.compute));
}

// A run that goes on from a finished or a stopped one may be longer, if the steps that were done
// would have had the same rates.
void RunState::check_resumed(const TrainingState& saved, const Schedule& schedule,
                             int per_epoch) const {
  const std::string from = places_.resume.string();
  nlohmann::json was = parse_strict(from, saved.about.at("run")), is = spec_.json();
  const RunSpec spec = RunSpec::from(was);
  const int epochs = spec.epochs, longer = spec_.epochs;
  was.erase("epochs"), is.erase("epochs");
  check(was == is, "resume: '{}' was trained with {{{}}}; this run has {{{}}}", from,
        different(was, is), different(is, was));
  check(saved.step < schedule.steps,
        "resume: the run in '{}' is finished: it did {} of {} epochs; give more --epochs", from,
        saved.step / per_epoch, longer);
  const Schedule before = schedule_of(spec, per_epoch * epochs);
  for (int i = 0; i < saved.step; ++i)
    check(before.at(i) == schedule.at(i),
          "resume: '{}' was trained for {} epochs; a {} schedule over {} has other rates from its "
          "step {} on. Train with --schedule constant --warmup 0, which can go on for any time, or "
          "with all the epochs and --stop-after; --init starts a new run from the values",
          from, epochs, spec.schedule, longer, i + 1);
}

int RunState::load(const Schedule& schedule, int per_epoch) {
  const bool cut_off = !places_.state.empty() && std::filesystem::exists(places_.state);
  if (!cut_off && places_.resume.empty()) return 0;
  const std::string from = (cut_off ? places_.state : places_.resume).string();
  const TrainingState saved =
      cut_off ? read_training_state(places_.state) : kept_training_state(places_.resume);
  check(saved.about.contains("run") && saved.about.contains("history"),
        "resume: '{}' is not a run's state", from);
  const std::string on =
      saved.about.contains("on") ? without_name(saved.about.at("on")) : "something else";
  const char* const way_out =
      cut_off ? "give another --out, or remove that file to begin anew" : "give what it was";
  if (cut_off) {  // first what the user said: a seed, say, makes another head
    const nlohmann::json was = parse_strict(from, saved.about.at("run")), is = spec_.json();
    check(was == is, "resume: '{}' belongs to another run: {} there, {} here; {}", from,
          different(was, is), different(is, was), way_out);
  }
  check(on == on_, "resume: '{}' belongs to a run on {}; this one is on {} (other: {}); {}", from,
        on, on_, others(on, on_), way_out);
  if (!cut_off) check_resumed(saved, schedule, per_epoch);
  try {
    const auto history = nlohmann::json::parse(saved.about.at("history"));
    dev = history.at("dev").get<std::vector<double>>();
    train_loss = history.at("train_loss").get<std::vector<double>>();
    loss_sum = history.at("loss_sum");
    best_epoch = history.at("best_epoch");
    loss_scale.value = history.value("loss_scale", loss_scale.value);
    loss_scale.steps = history.value("loss_scale_steps", 0);
  } catch (const nlohmann::json::exception& e) {
    fail("resume: the history in '{}' is damaged: {}", from, e.what());
  }
  check(train_loss.size() == dev.size() && best_epoch >= 0 &&
            best_epoch < std::max(1, static_cast<int>(dev.size())),
        "resume: the history in '{}' does not hold together", from);
  resume(saved, optimizer_, from, held_);
  best_.clear();
  if (dev.empty()) return saved.step;
  for (const auto& p : parameters_) {
    const auto best = saved.more.find("best " + p->label());
    check(best != saved.more.end() && best->second.shape() == p->value.shape(),
          "resume: '{}' lacks the best values of '{}'", from, p->label());
    best_.push_back(best->second.to(p->value.value().device()));
  }
  return saved.step;
}

void RunState::save_if_due(int step) {
  if (places_.state.empty()) return;
  const auto now = std::chrono::steady_clock::now();
  if (std::chrono::duration<double>(now - saved_).count() < places_.state_seconds) return;
  check(step == optimizer_.steps(), "train: {} steps are done, the optimizer took {}", step,
        optimizer_.steps());
  write_training_state(places_.state, state());
  saved_ = now;
}

TrainingState RunState::state() const {
  TrainingState s = training_state(optimizer_, held_);
  s.about = {{"run", spec_.json().dump()}, {"on", on_}};
  s.about["history"] = nlohmann::json{
      {"dev", dev},
      {"train_loss", train_loss},
      {"loss_sum", loss_sum},
      {"best_epoch", best_epoch},
      {"loss_scale", loss_scale.value},
      {"loss_scale_steps",
       loss_scale.steps}}.dump();
  for (std::size_t i = 0; i < best_.size(); ++i)
    s.more["best " + parameters_[i]->label()] = best_[i];
  return s;
}

void RunState::end_epoch(double dev_metric, std::size_t examples) {
  dev.push_back(dev_metric);
  train_loss.push_back(loss_sum / static_cast<double>(examples));
  loss_sum = 0;
  const int epoch = static_cast<int>(dev.size()) - 1;
  if (epoch > 0 && dev_metric <= dev[best_epoch]) return;  // of equals the earliest
  best_epoch = epoch;
  // Into the same memory every time: a step then finds the same blocks free (pool::settle).
  if (best_.empty())
    for (const auto& p : parameters_) best_.push_back(p->value.value().clone());
  for (std::size_t i = 0; i < best_.size(); ++i) best_[i].copy_from(parameters_[i]->value.value());
}

void RunState::restore_best() {
  if (!places_.keep.empty()) last_ = state();
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    parameters_[i]->value.value().copy_from(best_[i]);
}

void RunState::keep() const {
  if (places_.keep.empty()) return;
  TrainingState s = last_;
  s.about["settings"] = places_.settings;
  keep_training_state(places_.keep, s);
}

void RunState::remove() {
  if (!places_.state.empty()) std::filesystem::remove(places_.state);
}

}  // namespace graft
