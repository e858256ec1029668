// The one device that is used: its memory, its stream, and what CUDA says to every call.
//
// Every piece of work goes into one stream, in the order of the calls, so that a block of memory
// that is given back may be handed out again at once. What needs numbers on the host waits for the
// stream.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "tensor/device.h"

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

// Calls `step`, and hands its work over not call by call but when it ends, or wants numbers on the
// host. Work that is the same as some earlier step's, to the last argument and address, then is one
// CUDA graph: a step of a small model takes longer to hand over than to do. A step's work often is
// that of another one whose batch has as many rows and sequences (filled_up); what the rows hold,
// the draws and adamw's rate may differ. Throws what `step` does. For the host, and where
// GRAFT_GRAPHS is 0, it is a call and no more.
void gathered(Device, const std::function<void()>& step);
// Within it: hands over what there is so far, so that the device works while the rest is noted. A
// graph then stands in for each part. Elsewhere there is nothing to hand over.
void begin_gathered();
// Gives up all graphs, once what runs has ended: for the pool, which gives memory back that their
// copies name.
void drop_graphs();

// What gathered() has done so far.
struct Work {
  long commands = 0;                  // noted: kernels, products, copies
  long copies = 0, copied_bytes = 0;  // of these, from the host
  long lists = 0, graphs = 0;         // handed over; made into graphs
  long parts = 0;                     // handed over by begin_gathered(): no lists of their own
  long replayed = 0;                  // lists and parts that a graph stood in for
  std::string in_vain;  // why a graph could not be made, the last time that one could not
};
const Work& work();

}  // namespace graft::cuda
