#include "tensor/pool.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "tensor/error.h"

namespace graft {
namespace {

struct Pool {
  std::mutex mutex;
  std::map<std::size_t, std::vector<std::byte*>> free;  // by size
  std::size_t live = 0, peak = 0;
  bool poison = false;

  // A free block of that size or up to twice it, and its size: ragged batches ask for other sizes
  // every time, and would leave one of each behind.
  std::pair<std::byte*, std::size_t> take(std::size_t size) {
    for (auto shelf = free.lower_bound(size); shelf != free.end() && shelf->first <= 2 * size;
         ++shelf) {
      if (shelf->second.empty()) continue;
      std::byte* const block = shelf->second.back();
      shelf->second.pop_back();
      return {block, shelf->first};
    }
    return {nullptr, size};
  }
};

// Never destroyed: an Array with static lifetime may return its block after main().
Pool& the_pool() {
  static Pool* pool = new Pool;
  return *pool;
}

// Eight classes per power of two: at most 12.5 % slack, and equal shapes always meet again.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 512) return (bytes + 63) / 64 * 64;
  const std::size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

Storage::~Storage() {
  if (!data || keepalive) return;
  Pool& pool = the_pool();
  std::lock_guard lock(pool.mutex);
  pool.live -= bytes;
  pool.free[block].push_back(data);
}

namespace pool {

std::shared_ptr<Storage> allocate(std::size_t bytes) {
  auto storage = std::make_shared<Storage>();
  if (bytes == 0) return storage;
  Pool& pool = the_pool();
  std::lock_guard lock(pool.mutex);
  std::tie(storage->data, storage->block) = pool.take(size_class(bytes));
  if (!storage->data)
    storage->data = static_cast<std::byte*>(std::aligned_alloc(64, storage->block));
  check(storage->data != nullptr, "memory: cannot get {} bytes; {} bytes are in use", bytes,
        pool.live);
  storage->bytes = bytes;
  if (pool.poison) std::memset(storage->data, 0xFF, storage->block);
  pool.live += bytes;
  pool.peak = std::max(pool.peak, pool.live);
  return storage;
}

std::size_t live_bytes() {
  std::lock_guard lock(the_pool().mutex);
  return the_pool().live;
}

std::size_t peak_bytes() {
  std::lock_guard lock(the_pool().mutex);
  return the_pool().peak;
}

void reset_peak() {
  std::lock_guard lock(the_pool().mutex);
  the_pool().peak = the_pool().live;
}

void poison(bool on) {
  std::lock_guard lock(the_pool().mutex);
  the_pool().poison = on;
}

void trim() {
  std::lock_guard lock(the_pool().mutex);
  for (auto& [size, shelf] : the_pool().free)
    for (std::byte* block : shelf) std::free(block);
  the_pool().free.clear();
}

}  // namespace pool
}  // namespace graft
