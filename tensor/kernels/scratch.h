// Working memory that a thread keeps between calls, so that a kernel allocates nothing once it has
// seen its largest shape.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "tensor/error.h"

namespace graft::cpu {

// At least `count` numbers, aligned to a cache line, with whatever the last user of the same Tag
// left in them. Valid until this thread asks for the Tag again.
template <class Tag, class T>
T* scratch(std::size_t count) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<void, Free> block;
  static thread_local std::size_t size = 0;
  const std::size_t bytes = count * sizeof(T);
  if (size < bytes || !block) {
    size = 0;
    block.reset();
    const std::size_t whole = (bytes + 4096) / 4096 * 4096;
    block.reset(std::aligned_alloc(4096, whole));
    check(block != nullptr, "kernels: cannot get {} bytes of working memory", whole);
    size = whole;
  }
  return static_cast<T*>(block.get());
}

}  // namespace graft::cpu
