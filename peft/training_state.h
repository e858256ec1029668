// What going on with training needs beyond an adapter's own two files: the exact values of all that
// trains (encoders that PEFT's folders leave out among them), and the optimizer's state and step.
// It lies beside the adapter in a file of our own, which PEFT does not read.
#pragma once

#include "peft/values.h"

namespace graft {

inline constexpr const char* kTrainingState = "training_state.safetensors";

struct TrainingState {
  std::map<std::string, std::string> about;  // of what training, in its owner's words
  int step = 0;
  AdapterValues parameters;  // by Parameter::label()
  AdapterValues optimizer;   // as Optimizer::state()
  AdapterValues more;        // its owner's
};

// As they stand, in storage of its own. `held`: what the adapter holds that does not train.
TrainingState training_state(const Optimizer&, const Parameters& held = {});
// Puts parameters and optimizer back. Throws, listing what is missing, unexpected or mis-shaped,
// before anything has changed. `from`: the folder or file, for the message.
void resume(const TrainingState&, Optimizer&, const std::string& from, const Parameters& held = {});

void write_training_state(const std::filesystem::path& file, const TrainingState&);
TrainingState read_training_state(const std::filesystem::path& file);

// Beside an adapter that is saved there already, and bound to it: once the adapter's values are
// replaced, by PEFT's training say, reading throws.
void keep_training_state(const std::filesystem::path& folder, const TrainingState&);
bool has_training_state(const std::filesystem::path& folder);
bool is_state_of_adapter(const std::filesystem::path& folder);  // its values are the same yet
TrainingState kept_training_state(const std::filesystem::path& folder);

}  // namespace graft
