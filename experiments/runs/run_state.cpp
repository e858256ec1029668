#include "experiments/runs/run_state.h"

#include "nn/files/atomic.h"
#include "nn/files/safetensors.h"

namespace graft {
namespace {

Array read(const SafetensorsReader& reader, const std::string& name) {
  Array a = Array::empty(reader.at(name).shape);
  reader.read_f32(name, a);
  return a;
}

}  // namespace

RunState::RunState(const RunPlaces& places, const RunSpec& spec, std::string on,
                   const Parameters& parameters, Optimizer& optimizer)
    : places_(places),
      identity_(spec.json().dump()),
      on_(std::move(on)),
      parameters_(parameters),
      optimizer_(optimizer) {}

int RunState::load() {
  if (places_.state.empty() || !std::filesystem::exists(places_.state)) return 0;
  const SafetensorsReader reader(places_.state);
  const auto& meta = reader.metadata();
  check(meta.contains("run") && meta.contains("history"), "resume: '{}' is not a run's state",
        places_.state.string());
  check(meta.at("run") == identity_, "resume: '{}' belongs to another run: {}",
        places_.state.string(), meta.at("run"));
  check(meta.contains("on") && meta.at("on") == on_,
        "resume: '{}' belongs to a run on {}; this one is on {}", places_.state.string(),
        meta.contains("on") ? meta.at("on") : "something else", on_);
  const auto history = nlohmann::json::parse(meta.at("history"));
  dev = history.at("dev").get<std::vector<double>>();
  train_loss = history.at("train_loss").get<std::vector<double>>();
  loss_sum = history.at("loss_sum");
  best_epoch = history.at("best_epoch");
  const int step = history.at("step");
  std::map<std::string, Array> state;
  for (const auto& [name, info] : reader.tensors())
    if (name.starts_with("state ")) state[name.substr(6)] = read(reader, name);
  optimizer_.load(state, step);
  best_.clear();
  for (const auto& p : parameters_) {
    p->value.value().copy_from(read(reader, "parameter " + p->label()));
    if (!dev.empty()) best_.push_back(read(reader, "best " + p->label()));
  }
  return step;
}

void RunState::save_if_due(int step) {
  if (places_.state.empty()) return;
  const auto now = std::chrono::steady_clock::now();
  if (std::chrono::duration<double>(now - saved_).count() < places_.state_seconds) return;
  save(step);
  saved_ = now;
}

void RunState::save(int step) const {
  SafetensorsWriter writer;
  writer.metadata["run"] = identity_;
  writer.metadata["on"] = on_;
  writer.metadata["history"] = nlohmann::json{
      {"dev", dev},
      {"train_loss", train_loss},
      {"loss_sum", loss_sum},
      {"best_epoch", best_epoch},
      {"step", step}}.dump();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& p = parameters_[i];
    writer.add("parameter " + p->label(), p->value.value());
    if (!best_.empty()) writer.add("best " + p->label(), best_[i]);
  }
  for (const auto& [name, array] : optimizer_.state()) writer.add("state " + name, array);
  writer.write(places_.state);
}

void RunState::end_epoch(double dev_metric, std::size_t examples) {
  dev.push_back(dev_metric);
  train_loss.push_back(loss_sum / static_cast<double>(examples));
  loss_sum = 0;
  const int epoch = static_cast<int>(dev.size()) - 1;
  if (epoch > 0 && dev_metric <= dev[best_epoch]) return;  // of equals the earliest
  best_epoch = epoch;
  best_.clear();
  for (const auto& p : parameters_) best_.push_back(p->value.value().clone());
}

void RunState::restore_best() {
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    parameters_[i]->value.value().copy_from(best_[i]);
}

void RunState::remove() {
  if (!places_.state.empty()) std::filesystem::remove(places_.state);
}

}  // namespace graft
