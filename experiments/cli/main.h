// The way into `graft` for a program of one's own.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "peft/adapter.h"

namespace graft {

// Runs the command line with this table of methods; returns the exit code. Errors are one line on
// stderr.
int cli_main(int argc, const char* const* argv, const Methods&);

namespace cli {
// The base models that come with graft: $GRAFT_BASES/NAME, experiments/bases/NAME beside graft's
// source, or share/graft/bases/NAME where the program is installed; a path is taken as it is.
std::filesystem::path base_folder(const std::string& name_or_path);  // throws where there is none
std::optional<std::filesystem::path> find_base(const std::string& name_or_path);
}  // namespace cli

}  // namespace graft
