// A libFuzzer program for the target that GRAFT_FUZZ_TARGET names. Besides what the sanitizers see,
// an input fails by breaking the target's contract, and by memory: what is held at any moment may
// be a multiple of the input (JSON's values and rows of short fields are larger than their text),
// never what a number in it says.
#include <sanitizer/allocator_interface.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/fuzz/targets.h"

namespace {

constexpr std::int64_t kTimes = 200, kBesides = 16 << 20;  // bytes

std::atomic<std::int64_t> live{0}, most{0};

void on_malloc(const volatile void*, std::size_t size) {
  const std::int64_t now = live += std::int64_t(size);
  if (now > most) most = now;
}

void on_free(const volatile void* at) {
  if (at != nullptr)
    live -= std::int64_t(__sanitizer_get_allocated_size(const_cast<const void*>(at)));
}

const graft::fuzz::Target& target() {
  for (const auto& one : graft::fuzz::targets())
    if (std::strcmp(one.name, GRAFT_FUZZ_TARGET) == 0) return one;
  std::fprintf(stderr, "no target is called %s\n", GRAFT_FUZZ_TARGET);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  graft::fuzz::run(target(), "");
  __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::int64_t before = live;
  most = before;
  try {
    graft::fuzz::run(target(), {reinterpret_cast<const char*>(bytes), size});
  } catch (const std::exception& broken) {
    std::fprintf(stderr, "contract broken: %s\n", broken.what());
    std::abort();
  }
  if (most - before > kTimes * std::int64_t(size) + kBesides) {
    std::fprintf(stderr, "contract broken: %lld bytes held for an input of %zu\n",
                 static_cast<long long>(most - before), size);
    std::abort();
  }
  return 0;
}
