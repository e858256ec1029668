#include "peft/training_state.h"

#include <charconv>
#include <set>

#include "nn/files/safetensors.h"
#include "tensor/hash.h"

namespace graft {
namespace {
namespace fs = std::filesystem;

constexpr const char* kFormat = "graft-training-state-1";
constexpr std::pair<const char*, AdapterValues TrainingState::*> kGroups[] = {
    {"parameter ", &TrainingState::parameters},
    {"state ", &TrainingState::optimizer},
    {"more ", &TrainingState::more}};

int step_of(const std::string& file, const std::string& text) {
  int step = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  check(error == std::errc() && end == text.data() + text.size() && step >= 0,
        "resume: '{}': step '{}'; need a whole number of at least 0", file, text);
  return step;
}

// Of every value that stands beside the state: of PEFT's folders and AdapterHub's as of ours.
std::string hash_of_adapter(const fs::path& folder) {
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors" && entry.path().filename() != kTrainingState)
      files.insert(entry.path());
  check(!files.empty(), "resume: there is no adapter in '{}'", folder.string());
  Hash h;
  for (const fs::path& file : files) {
    const MappedFile map(file);
    h.bytes(map.bytes().data(), map.bytes().size());
  }
  return fmt::format("{:016x}", h.value());
}

}  // namespace

TrainingState training_state(const Optimizer& optimizer, const Parameters& held) {
  TrainingState s;
  s.step = optimizer.steps();
  for (const Parameters* all : {&optimizer.parameters(), &held})
    for (const auto& p : *all) s.parameters[p->label()] = p->value.value().own_copy();
  for (const auto& [name, value] : optimizer.state()) s.optimizer[name] = value.own_copy();
  return s;
}

void resume(const TrainingState& s, Optimizer& optimizer, const std::string& from,
            const Parameters& held) {
  std::string differences;
  const auto same = [&](const AdapterValues& want, const AdapterValues& saved, const char* what) {
    for (const auto& [name, value] : want) {
      const auto at = saved.find(name);
      if (at == saved.end())
        differences += fmt::format("\n  missing: {} {} {}", what, name, value.shape());
      else if (at->second.shape() != value.shape())
        differences += fmt::format("\n  {} {}: the file has {}, this training needs {}", what, name,
                                   at->second.shape(), value.shape());
    }
    for (const auto& [name, value] : saved)
      if (!want.contains(name)) differences += fmt::format("\n  unexpected: {} {}", what, name);
  };
  AdapterValues values;
  for (const Parameters* all : {&optimizer.parameters(), &held})
    for (const auto& p : *all) values[p->label()] = p->value.value();
  same(values, s.parameters, "parameter");
  same(optimizer.state(), s.optimizer, "optimizer's");
  check(differences.empty(),
        "resume: the training state in '{}' is not of this method, model and optimizer:{}", from,
        differences);
  for (auto& [name, value] : values) value.copy_from(s.parameters.at(name));
  optimizer.load(s.optimizer, s.step);
}

void write_training_state(const fs::path& file, const TrainingState& s) {
  SafetensorsWriter writer;
  for (const auto& [key, text] : s.about) writer.metadata[key] = text;
  writer.metadata["kind"] = kFormat;
  writer.metadata["step"] = std::to_string(s.step);
  for (const auto& [prefix, group] : kGroups)
    for (const auto& [name, value] : s.*group) writer.add(prefix + name, value.as_contiguous());
  writer.write(file);
}

TrainingState read_training_state(const fs::path& file) {
  const SafetensorsReader reader(file);
  TrainingState s;
  s.about = reader.metadata();
  check(s.about["kind"] == kFormat && s.about.contains("step"),
        "resume: '{}' is no training state of this program, or one of an earlier version",
        file.string());
  s.step = step_of(file.string(), s.about["step"]);
  for (const auto& [name, info] : reader.tensors()) {
    bool known = false;
    for (const auto& [prefix, group] : kGroups) {
      if (!name.starts_with(prefix)) continue;
      check(info.dtype == FileDtype::f32, "resume: '{}': {} is {}; need F32", file.string(), name,
            name_of(info.dtype));
      Array value = Array::empty(info.shape);
      reader.read_f32(name, value);
      (s.*group)[name.substr(std::string_view(prefix).size())] = std::move(value);
      known = true;
    }
    check(known, "resume: '{}' has a tensor '{}', which is no part of a training state",
          file.string(), name);
  }
  return s;
}

void keep_training_state(const fs::path& folder, const TrainingState& s) {
  TrainingState bound = s;
  bound.about["adapter"] = hash_of_adapter(folder);
  write_training_state(folder / kTrainingState, bound);
}

bool has_training_state(const fs::path& folder) { return fs::exists(folder / kTrainingState); }

bool is_state_of_adapter(const fs::path& folder) {
  return read_training_state(folder / kTrainingState).about["adapter"] == hash_of_adapter(folder);
}

TrainingState kept_training_state(const fs::path& folder) {
  check(fs::is_directory(folder), "resume: there is no folder '{}'", folder.string());
  check(has_training_state(folder),
        "resume: '{}' has no {}: only an adapter's values were saved there, which `--init` starts "
        "from",
        folder.string(), kTrainingState);
  TrainingState s = read_training_state(folder / kTrainingState);
  check(s.about["adapter"] == hash_of_adapter(folder),
        "resume: the adapter in '{}' is not the one that its {} belongs to: its values were "
        "replaced. `--init` starts from them",
        folder.string(), kTrainingState);
  return s;
}

}  // namespace graft
