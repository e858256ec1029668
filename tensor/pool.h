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
  const char* purpose = nullptr;    // what it was handed out for
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
// What blocks are for that this thread is handed while one lives: the message where there is no
// more memory says how much each holds. The outermost counts; where there is none it is rows and
// gradients. The name is a literal.
class Purpose {
 public:
  explicit Purpose(const char* name);
  ~Purpose();
  Purpose(const Purpose&) = delete;
  Purpose& operator=(const Purpose&) = delete;

 private:
  const char* before_;
};
// Throws Error when memory is exhausted, saying what was asked for, and who holds how much.
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
