#include "tensor/pool.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "tensor/cuda/runtime.h"
#include "tensor/error.h"

namespace graft {
namespace {

struct Pool {
  Device device = Device::cpu;
  std::mutex mutex;
  std::map<std::size_t, std::vector<std::byte*>> free;  // by size
  std::size_t live = 0, peak = 0;
  std::vector<std::pair<const char*, std::size_t>> live_for;  // by purpose
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
  void trim() {
    // Work that was asked for may still use what is given back here, and the graphs of earlier work
    // name it: they are not to copy to it, should it be got again at the same address.
    if (device == Device::cuda && !free.empty()) cuda::drop_graphs();
    for (auto& [size, shelf] : free)
      for (std::byte* block : shelf)
        device == Device::cpu ? std::free(block) : cuda::release(block);
    free.clear();
  }
  // From the system; what is kept free goes back first where it would be needed. Null: there is no
  // more.
  std::byte* get(std::size_t size) {
    const auto once = [&] {
      return static_cast<std::byte*>(device == Device::cpu ? std::aligned_alloc(64, size)
                                                           : cuda::allocate(size));
    };
    std::byte* const block = once();
    if (block || free.empty()) return block;
    trim();
    return once();
  }
  std::size_t& held_for(const char* purpose) {
    for (auto& [name, bytes] : live_for)
      if (name == purpose) return bytes;
    return live_for.emplace_back(purpose, 0).second;
  }
  std::string in_use() const {
    std::map<std::string, std::size_t> by_name;  // a literal may lie in several places
    for (const auto& [purpose, bytes] : live_for) by_name[purpose] += bytes;
    std::string all;
    for (const auto& [name, bytes] : by_name)
      if (bytes > 0) all += fmt::format("{}{} {}", all.empty() ? "" : ", ", name, bytes);
    return all.empty() ? "none" : all;
  }
  void fill_with_nan(std::byte* block, std::size_t size) {
    if (device == Device::cpu)
      std::memset(block, 0xFF, size);
    else
      cuda::fill_bytes(block, 0xFF, size);
  }
};

thread_local const char* purpose = nullptr;
constexpr const char* kNoPurpose = "rows and gradients";

// Never destroyed: an Array with static lifetime may return its block after main().
Pool& pool_of(Device device) {
  static Pool* pools = [] {
    auto* both = new Pool[2];
    both[1].device = Device::cuda;
    return both;
  }();
  return pools[device == Device::cuda];
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
  Pool& pool = pool_of(device);
  std::lock_guard lock(pool.mutex);
  pool.live -= bytes;
  pool.held_for(purpose) -= bytes;
  pool.free[block].push_back(data);
}

namespace pool {

Purpose::Purpose(const char* name) : before_(purpose) {
  if (!purpose) purpose = name;
}
Purpose::~Purpose() { purpose = before_; }

std::shared_ptr<Storage> allocate(std::size_t bytes, Device device) {
  auto storage = std::make_shared<Storage>();
  storage->device = device;
  if (bytes == 0) return storage;
  Pool& pool = pool_of(device);
  std::lock_guard lock(pool.mutex);
  std::tie(storage->data, storage->block) = pool.take(size_class(bytes));
  if (!storage->data) storage->data = pool.get(storage->block);
  if (!storage->data)
    fail("memory: cannot get {} bytes on {}; in use are {} bytes: {}{}", bytes, name(device),
         pool.live, pool.in_use(),
         device == Device::cpu ? "" : fmt::format("; {} are free there", cuda::free_bytes()));
  storage->bytes = bytes;
  storage->purpose = purpose ? purpose : kNoPurpose;
  if (pool.poison) pool.fill_with_nan(storage->data, storage->block);
  pool.live += bytes;
  pool.held_for(storage->purpose) += bytes;
  pool.peak = std::max(pool.peak, pool.live);
  return storage;
}

std::size_t live_bytes(Device device) {
  std::lock_guard lock(pool_of(device).mutex);
  return pool_of(device).live;
}

std::size_t peak_bytes(Device device) {
  std::lock_guard lock(pool_of(device).mutex);
  return pool_of(device).peak;
}

namespace {
template <class F>
void each_pool(F&& f) {
  for (const Device device : {Device::cpu, Device::cuda}) {
    std::lock_guard lock(pool_of(device).mutex);
    f(pool_of(device));
  }
}
}  // namespace

void reset_peak() {
  each_pool([](Pool& pool) { pool.peak = pool.live; });
}

void poison(bool on) {
  each_pool([on](Pool& pool) { pool.poison = on; });
}

void settle(Device device) {
  std::lock_guard lock(pool_of(device).mutex);
  for (auto& [size, shelf] : pool_of(device).free) std::sort(shelf.begin(), shelf.end());
}

void trim() {
  each_pool([](Pool& pool) { pool.trim(); });
}

}  // namespace pool
}  // namespace graft
