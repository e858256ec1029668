// Where numbers live: blocks of memory kept for reuse, with exact counts of the bytes in use.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "tensor/device.h"

namespace graft {

struct PackedForms;

// One block. Bytes are 64-byte aligned and not initialised; the block returns to the pool when the
// last Array on it goes.
struct Storage {
  std::byte* data = nullptr;  // an address there, where the device is another
  Device device = Device::cpu;
  std::size_t bytes = 0;            // as asked, which is what the counters count
  std::size_t block = 0;            // as the pool has it
  std::shared_ptr<void> keepalive;  // set when the bytes belong to someone else (a mapped file)
  // Nobody will write to the bytes, and what products keep of them is here (packed.h).
  std::atomic<bool> constant = false;
  std::shared_ptr<PackedForms> packed;
  void end_constant();  // someone will
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage();
};

namespace pool {
// Throws Error when memory is exhausted, saying what was asked for and what is held.
std::shared_ptr<Storage> allocate(std::size_t bytes, Device = Device::cpu);
std::size_t live_bytes(Device = Device::cpu);  // bytes of all blocks now in use
std::size_t peak_bytes(Device = Device::cpu);  // the most there were since reset_peak()
void reset_peak();
// Fills every block handed out from now on with NaN bits: tests find what reads before it writes.
void poison(bool on);
// Puts the free blocks in order: from here on the same requests get the same addresses as they did
// after an earlier call, where as many blocks were free then.
void settle(Device);
void trim();  // gives the kept free blocks back to the system
}  // namespace pool

}  // namespace graft
