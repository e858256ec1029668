// The one device that is used: its memory, its stream, and what CUDA says to every call.
//
// Every piece of work goes into one stream, in the order of the calls, so that a block of memory
// that is given back may be handed out again at once. What needs numbers on the host waits for the
// stream.
#pragma once

#include <cstddef>
#include <string>

namespace graft {
class Array;
}

namespace graft::cuda {

// "" where a device can be used; else why not, in words.
std::string unusable();
// Such as "NVIDIA H100 80GB HBM3, sm_90", and ", TF32" where products of f32 use it: what the bits
// of a run depend on.
std::string device_name();

// A block of the device's memory, from cudaMalloc; null where there is no more.
void* allocate(std::size_t bytes);
void release(void* block);
std::size_t free_bytes();

void copy_to_device(void* to, const void* from, std::size_t bytes);
void copy_to_host(void* to, const void* from, std::size_t bytes);  // waits
void copy_on_device(void* to, const void* from, std::size_t bytes);
void fill_bytes(void* at, int byte, std::size_t bytes);
// Arrays on the device, strided, of any types.
void copy(Array& to, const Array& from);
void fill(Array&, double value);
void wait();  // for all work so far; throws what went wrong in it

}  // namespace graft::cuda
