// Adapters on disk: a folder with adapter_config.json (the spec and what it was trained on) and
// adapter_model.safetensors (values.h).
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "peft/adapter.h"
#include "peft/values.h"

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

}  // namespace graft
