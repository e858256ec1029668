#include "tensor/cuda/upload.h"

#include <cstring>
#include <vector>

#include "tensor/hash.h"

namespace graft::cuda {
namespace {

constexpr std::size_t kMostBytes = 64 << 10;  // of an array: larger ones are copied each time
constexpr std::size_t kMost = 64;             // arrays

struct Upload {
  std::uint64_t hash;
  Array on_host, on_device;
};
struct Uploads {
  std::vector<Upload> all;
  std::size_t next = 0;     // whose place a new one takes where there are kMost
  bool distrusted = false;  // their copies may not have been made
};
// Never destroyed: the device may be gone before what has static lifetime.
Uploads& uploads() {
  static Uploads* const the_uploads = new Uploads;
  return *the_uploads;
}

}  // namespace

Array uploaded(const Array& x) {
  if (x.device() == Device::cuda || x.numel() == 0 || x.bytes() > kMostBytes)
    return x.to(Device::cuda);
  const std::uint64_t hash = x.hash();
  Uploads& known = uploads();
  if (known.distrusted) forget_uploads();
  for (const Upload& one : known.all)
    if (one.hash == hash && same_bits(one.on_host, x)) return one.on_device;
  const Array own = x.clone();  // x may be written to afterwards
  Upload made{hash, own, own.to(Device::cuda)};
  if (known.all.size() < kMost) return known.all.emplace_back(std::move(made)).on_device;
  known.next %= kMost;
  return (known.all[known.next++] = std::move(made)).on_device;
}

void forget_uploads() { uploads() = {}; }

void distrust_uploads() { uploads().distrusted = true; }

}  // namespace graft::cuda
