// Running one recorded arm of an experiment or a sweep again.
#pragma once

#include "experiments/ablations/runner.h"

namespace graft {

// The run of a results folder whose arm's key begins with `key`, run again; with what its
// experiment measures; compares the base, the weights' hash, every score and every metric of the
// record. A run that diverged must do so again. Returns what it was, in words, for the one line
// that says so. Throws where no run or more than one has such a key, where the record was made by
// kernels for another processor or device, and where a bit differs.
std::string replay_arm(const Methods&, const BaseFolder&, const std::filesystem::path& folder,
                       const std::string& key);

}  // namespace graft
