#include "experiments/runs/multitask_parts.h"

#include <nlohmann/json.hpp>
#include <numeric>

#include "experiments/runs/run_parts.h"
#include "nn/files/atomic.h"
#include "nn/files/safetensors.h"
#include "tensor/hash.h"

namespace graft {

std::vector<std::int32_t> RowStream::next(int count) {
  std::vector<std::int32_t> out;
  const auto n = static_cast<std::int64_t>(rows_.size());
  for (; count > 0; --count, ++position_) {
    if (position_ / n != epoch_) {
      epoch_ = position_ / n;
      order_ = shuffled(rows_.size(), seed_, static_cast<int>(epoch_));
    }
    out.push_back(rows_[static_cast<std::size_t>(order_[static_cast<std::size_t>(position_ % n)])]);
  }
  return out;
}

TaskHeads::TaskHeads(Model& model, const std::vector<EncodedTask>& tasks, const RunSpec& spec)
    : model_(model) {
  for (const EncodedTask& task : tasks) heads_.push_back(make_head(task, spec, model));
  own_ = model.set_head(nullptr);
  Hash h;
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    Parameters& mine = parameters_.emplace_back();
    if (!heads_[t]) continue;
    h.word(hash_of(*heads_[t]));
    use(static_cast<int>(t));
    mine = train_head(model);
    for (const auto& p : mine) p->name = tasks[t].name + "/" + p->name;
  }
  start_hash_ = h.value();
}

TaskHeads::~TaskHeads() { model_.set_head(std::move(own_)); }

void TaskHeads::use(int task) {
  if (task == current_) return;
  if (current_ >= 0) heads_[static_cast<std::size_t>(current_)] = model_.set_head(nullptr);
  model_.set_head(std::move(heads_[static_cast<std::size_t>(task)]));
  current_ = task;
}

namespace {

Array read(const SafetensorsReader& reader, const std::string& name) {
  Array a = Array::empty(reader.at(name).shape);
  reader.read_f32(name, a);
  return a;
}

}  // namespace

int MultitaskState::load() {
  if (places.state.empty() || !std::filesystem::exists(places.state)) return 0;
  const std::string file = places.state.string();
  const SafetensorsReader reader(places.state);
  const auto& meta = reader.metadata();
  check(meta.contains("run") && meta.contains("on") && meta.contains("history"),
        "resume: '{}' is not a run's state", file);
  check(meta.at("run") == identity, "resume: '{}' belongs to another run: {}", file,
        meta.at("run"));
  check(meta.at("on") == on, "resume: '{}' belongs to a run on {}; this one is on {}", file,
        meta.at("on"), on);
  const auto history = nlohmann::json::parse(meta.at("history"));
  history.at("dev").get_to(dev), history.at("task_weight").get_to(task_weight);
  history.at("train_loss").get_to(train_loss), history.at("task_steps").get_to(task_steps);
  history.at("loss_sum").get_to(loss_sum), history.at("best_epoch").get_to(best_epoch);
  weights.load(history.at("weights").get<std::vector<double>>());
  const auto positions = history.at("positions").get<std::vector<std::int64_t>>();
  const auto steps = history.at("optimizer_steps").get<std::vector<int>>();
  check(positions.size() == streams.size() && steps.size() == optimizers.size(),
        "resume: '{}' has {} streams of rows and {} optimizers; need {} and {}", file,
        positions.size(), steps.size(), streams.size(), optimizers.size());
  for (std::size_t i = 0; i < streams.size(); ++i) streams[i]->go_to(positions[i]);
  for (std::size_t i = 0; i < optimizers.size(); ++i) {
    const std::string prefix = fmt::format("state {} ", i);
    std::map<std::string, Array> state;
    for (const auto& [name, info] : reader.tensors())
      if (name.starts_with(prefix)) state[name.substr(prefix.size())] = read(reader, name);
    if (optimizers[i]) optimizers[i]->load(state, steps[i]);
  }
  best.clear();
  for (const auto& p : parameters) {
    p->value.value().copy_from(read(reader, "parameter " + p->label()));
    if (!dev.empty()) best.push_back(read(reader, "best " + p->label()));
  }
  return history.at("step");
}

void MultitaskState::save(int step) const {
  SafetensorsWriter writer;
  std::vector<std::int64_t> positions;
  std::vector<int> steps;
  for (const RowStream* s : streams) positions.push_back(s->position());
  for (const auto& o : optimizers) steps.push_back(o ? o->steps() : 0);
  writer.metadata["run"] = identity;
  writer.metadata["on"] = on;
  writer.metadata["history"] = nlohmann::json{
      {"dev", dev},
      {"task_weight", task_weight},
      {"train_loss", train_loss},
      {"task_steps", task_steps},
      {"loss_sum", loss_sum},
      {"best_epoch", best_epoch},
      {"weights", weights.state()},
      {"positions", positions},
      {"optimizer_steps", steps},
      {"step", step}}.dump();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    writer.add("parameter " + parameters[i]->label(), parameters[i]->value.value());
    if (!best.empty()) writer.add("best " + parameters[i]->label(), best[i]);
  }
  for (std::size_t i = 0; i < optimizers.size(); ++i)
    if (optimizers[i])
      for (const auto& [name, array] : optimizers[i]->state())
        writer.add(fmt::format("state {} {}", i, name), array);
  writer.write(places.state);
}

void MultitaskState::save_if_due(int step) {
  if (places.state.empty()) return;
  const auto now = std::chrono::steady_clock::now();
  if (std::chrono::duration<double>(now - saved).count() < places.state_seconds) return;
  save(step);
  saved = now;
}

void MultitaskState::end_epoch(std::vector<double> dev_metrics, int steps) {
  const auto mean = [](const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
  };
  dev.push_back(std::move(dev_metrics));
  task_weight.push_back(weights.weights());
  train_loss.push_back(loss_sum / steps);
  loss_sum = 0;
  const int epoch = static_cast<int>(dev.size()) - 1;
  if (epoch > 0 && mean(dev.back()) <= mean(dev[static_cast<std::size_t>(best_epoch)])) return;
  best_epoch = epoch;
  best.clear();
  for (const auto& p : parameters) best.push_back(p->value.value().clone());
}

void MultitaskState::restore_best() {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    parameters[i]->value.value().copy_from(best[i]);
}

}  // namespace graft
