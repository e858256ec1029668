// How much of a vocabulary's logits exists at once.
#pragma once

#include <cstdint>

namespace graft {

// The logits that linear_cross_entropy makes at once, in numbers: 2^25 of them are 128 MB. Where a
// matrix learns, up to twice as many wait for backward. The results do not depend on it.
std::int64_t logits_limit();
void set_logits_limit(std::int64_t numbers);

}  // namespace graft
