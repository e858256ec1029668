// What a test asks of the emulation (cuda_runtime.h).
#pragma once

namespace graft::emulation {
void reverse(bool on);  // threads and blocks run in the opposite order
}
