// Adapters on disk: a folder with adapter_config.json (the spec and what it was trained on) and
// adapter_model.safetensors (the trainable values, by site and name).
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "peft/adapter.h"

namespace graft {

// `more` is kept in the configuration beside the spec (task, labels, head, base folder).
void save_adapter(const std::filesystem::path& folder, const std::string& spec,
                  const Parameters& trained, const nlohmann::json& more);

struct AdapterFile {
  std::string spec;
  nlohmann::json more;
};
// Reads the configuration alone. Throws naming the file and key for anything malformed.
AdapterFile read_adapter_config(const std::filesystem::path& folder);
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
