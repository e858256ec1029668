#include "experiments/pretrain/pretrain_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "nn/files/atomic.h"
#include "nn/files/safetensors.h"
#include "tensor/hash.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

constexpr const char* kState = "state.safetensors";
constexpr const char* kBeforeCooldown = "state-before-cooldown.safetensors";

std::string hash_of_file(const fs::path& file) {
  const std::string content = read_file(file);
  Hash h;
  h.bytes(content.data(), content.size());
  return fmt::format("{:016x}", h.value());
}

// What the run is: a state of another run is refused. Its steps and its cooldown are kept apart:
// where a run ends may change.
nlohmann::json identity_of(const PretrainSpec& spec, const std::string& started_from) {
  nlohmann::json identity{{"train", spec.train.filename().string()},
                          {"train_hash", hash_of_file(spec.train)},
                          {"heldout_hash", hash_of_file(spec.heldout)},
                          {"tokenizer_hash", hash_of_file(spec.tokenizer)},
                          {"schedule", static_cast<int>(spec.schedule)},
                          {"start_from", started_from},  // a hash: the folder's name is nothing
                          {"lr", spec.lr},
                          {"warmup", spec.warmup},
                          {"family", spec.arch.family},
                          {"layers", spec.arch.layers},
                          {"width", spec.arch.width},
                          {"seed", spec.seed},
                          {"length", spec.length},
                          {"batch", spec.batch},
                          {"decay", spec.decay},
                          {"masking", spec.masking}};
  if (!spec.method.empty()) identity["method"] = spec.method;
  if (spec.arch.crosses()) {
    identity["encoder_layers"] = spec.arch.encoder_layers;
    identity["span"] = spec.span;
  }
  return identity;
}

Schedule rates(const PretrainSpec& spec, std::int64_t steps, int cooldown) {
  return {spec.schedule, spec.lr, static_cast<int>(steps), spec.warmup, 0.0, cooldown};
}

}  // namespace

// An opened file of this run.
class SavedPretraining {
 public:
  // One of an earlier version does not say where its run was to end: where `spec` says.
  SavedPretraining(const fs::path& path, const nlohmann::json& identity, const PretrainSpec& spec)
      : file(path.string()), reader(path), steps(spec.steps), cooldown(spec.cooldown) {
    const auto& said = reader.metadata();
    check(said.contains("graft") &&
              nlohmann::json::parse(said.at("graft"), nullptr, false) == identity,
          "pretrain: '{}' belongs to a run with other settings ({}); give another --out", file,
          said.contains("graft") ? said.at("graft") : "none");
    check(said.contains("step"), "pretrain: '{}' does not say its step", file);
    try {
      step = std::stoll(said.at("step"));
      if (!said.contains("ends")) return;
      const auto ends = nlohmann::json::parse(said.at("ends"));
      steps = ends.at("steps"), cooldown = ends.at("cooldown");
      const auto running = nlohmann::json::parse(said.at("running"));
      loss_sum = running.at("sum"), losses = running.at("count");
    } catch (const std::exception& e) {
      fail("pretrain: '{}' is damaged: {}", file, e.what());
    }
  }

  std::string file;
  SafetensorsReader reader;
  std::int64_t step = 0, steps = 0;
  int cooldown = 0;
  double loss_sum = 0;
  int losses = 0;
};

PretrainState::PretrainState(const PretrainSpec& spec, const std::string& started_from,
                             Optimizer& optimizer)
    : spec_(spec),
      identity_(identity_of(spec, started_from)),
      optimizer_(optimizer),
      schedule_(rates(spec, spec.steps, spec.cooldown)) {}

std::int64_t PretrainState::load() {
  if (!fs::exists(spec_.out / kState)) return 0;
  const SavedPretraining last(spec_.out / kState, identity_, spec_);
  const std::int64_t other = other_rate(last);
  if (other < 0) return read(last);
  if (spec_.steps > last.step && fs::exists(spec_.out / kBeforeCooldown)) {
    const SavedPretraining before(spec_.out / kBeforeCooldown, identity_, spec_);
    if (other_rate(before) < 0) {
      fmt::print(
          "{} steps are done, but from step {} on the rate was falling to its end; going on from "
          "the state before that\n",
          last.step, before.step + 1);
      return read(before);
    }
  }
  fail(
      "pretrain: '{}' did {} steps of a run with --steps {} --cooldown {}; with --steps {} "
      "--cooldown {} its step {} would have had another rate. Give what it had (--stop-after ends "
      "it earlier), or another --out. Longer with --steps can be made what learns at a constant "
      "rate, or in a trapezoid from where its cooldown began",
      last.file, last.step, last.steps, last.cooldown, spec_.steps, spec_.cooldown, other + 1);
}

std::int64_t PretrainState::other_rate(const SavedPretraining& saved) const {
  const Schedule before = rates(spec_, saved.steps, saved.cooldown);
  for (std::int64_t i = 0; i < saved.step; ++i)
    if (before.at(static_cast<int>(i)) != rate(i)) return i;
  return -1;
}

std::int64_t PretrainState::read(const SavedPretraining& saved) {
  for (const auto& p : optimizer_.parameters())
    saved.reader.read_f32("parameter " + p->label(), p->value.value());
  std::map<std::string, Array> state;
  for (const auto& [name, info] : saved.reader.tensors())
    if (name.starts_with("state ")) {
      Array a = Array::empty(info.shape);
      saved.reader.read_f32(name, a);
      state[name.substr(6)] = a;
    }
  optimizer_.load(state, static_cast<int>(saved.step));
  loss_sum = saved.loss_sum, losses = saved.losses;
  return saved.step;
}

void PretrainState::write(const char* file, std::int64_t step) const {
  SafetensorsWriter writer;
  writer.metadata["graft"] = identity_.dump();
  writer.metadata["step"] = std::to_string(step);
  writer.metadata["ends"] =
      nlohmann::json{{"steps", spec_.steps}, {"cooldown", spec_.cooldown}}.dump();
  writer.metadata["running"] = nlohmann::json{{"sum", loss_sum}, {"count", losses}}.dump();
  for (const auto& p : optimizer_.parameters())
    writer.add("parameter " + p->label(), p->value.value());
  for (const auto& [name, array] : optimizer_.state()) writer.add("state " + name, array);
  writer.write(spec_.out / file);
}

void PretrainState::save(std::int64_t step) const { write(kState, step); }

void PretrainState::before_step(std::int64_t step) const {
  if (spec_.schedule != Schedule::Kind::trapezoid || step < spec_.warmup) return;
  const std::int64_t first = std::max<std::int64_t>(spec_.warmup, spec_.steps - spec_.cooldown + 1);
  if (step == std::max<std::int64_t>(first, 0)) write(kBeforeCooldown, step);
}

}  // namespace graft
