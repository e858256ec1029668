// The values of an adapter: adapter_model.safetensors in its folder, by site and name.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "nn/optim/optimizer.h"

namespace graft {

inline constexpr const char* kValuesFile = "adapter_model.safetensors";
using AdapterValues = std::map<std::string, Array>;  // by Parameter::label()
AdapterValues read_adapter_values(const std::filesystem::path& folder);
// "" or what a tensor has that is no number, and where: `NaN at [0, 3]`. No adapter that trained
// well has such values, and its scores would mean nothing.
std::string not_finite(const Array&);
// Fills the parameters. Strict: missing, unexpected and mis-shaped tensors, and those with NaN or
// infinite values, are one Error that lists all of them, and then no parameter has changed. `from`:
// the folder, for the message.
void set_adapter_values(const AdapterValues&, const Parameters&, const std::string& from);
void load_adapter_values(const std::filesystem::path& folder, const Parameters&);

}  // namespace graft
