// Training that ran away: a loss, a gradient or a score that is no number.
#pragma once

#include "tensor/error.h"

namespace graft {

// Told apart from bad input, since a search over learning rates has to survive it.
struct Diverged : Error {
  using Error::Error;
};

// Throws Diverged unless `ok`.
template <class... Args>
void check_converges(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]]
    throw Diverged(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace graft
