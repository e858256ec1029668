// Where an array's numbers lie: in memory, or in that of a CUDA device.
#pragma once

#include <cstdint>
#include <string>

namespace graft {

enum class Device : std::uint8_t { cpu, cuda };
const char* name(Device);  // cpu, cuda
// Throws for another name, and for cuda where this program was built without it or no device can
// be used; the message says which it is.
Device device_named(const std::string&);

}  // namespace graft
