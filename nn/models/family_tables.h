// What the files with the families' tables share; others read family.h.
#pragma once

#include <vector>

#include "nn/models/family.h"

namespace graft {

// The layer of sites outside the blocks.
inline constexpr int kOutside = -1;

std::vector<Family> decoder_families();

}  // namespace graft
