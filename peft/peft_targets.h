// What the rows of PEFT's methods share: which modules a configuration means, and the spec that
// edits exactly these sites.
#pragma once

#include "peft/peft_folder.h"
#include "peft/peft_modules.h"

namespace graft {

// What the configuration says is adapted must be what the file has: `there`, of `modules`, which
// are all of the kind that can be. tensor: what the file has under a module's name.
void check_targets(PeftReading&, const std::vector<PeftModule>& modules,
                   const std::set<const PeftModule*>& there, const std::string& kind,
                   const std::string& tensor);

// `METHOD:on=k+v|METHOD:on=down,layers=1`, for a method whose options are parts and layers. Layers
// count in both stacks of an encoder-decoder, so what is adapted in one must be in the other; a
// problem where it is not.
std::string spec_on(PeftReading&, const std::string& method, const std::set<Site>& sites);

}  // namespace graft
