// What a test asks of the emulation (cuda_runtime.h).
#pragma once

namespace graft::emulation {
void reverse(bool on);  // threads and blocks run in the opposite order
extern bool no_room_for_graphs, no_memory;
}  // namespace graft::emulation
