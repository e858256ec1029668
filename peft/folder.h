// An adapter's folder in one call each way, for adapters that bring no task's head: those of models
// that write text. files.h has the parts.
#pragma once

#include <filesystem>
#include <memory>

#include "peft/adapter.h"

namespace graft {

// Saves what trained, the spec, and which base it belongs to: the folder or name `base`, and the
// hash of its weights, Model::hash() before anything was adapted. load_adapter() opens the folder;
// so do `graft generate --adapter`, `graft export` and `graft train --init`.
void save_adapter(const std::filesystem::path& folder, const Adaptation&, const std::string& base,
                  std::uint64_t base_hash);

// The adapter of such a folder on its base, values and all. Throws where the base has other weights
// than the adapter was trained on.
std::unique_ptr<Adaptation> load_adapter(const std::filesystem::path& folder, const Methods&,
                                         Model& base);

}  // namespace graft
