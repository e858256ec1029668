#include <ucontext.h>

#include <array>
#include <memory>
#include <vector>

#include "cuda_runtime.h"
#include "tensor/error.h"

namespace graft::emulation {

Place now;

namespace {

constexpr std::size_t kStack = 128 << 10;
constexpr unsigned kWarpSize = 32;

enum class At { ready, block, warp, ended };

// Carries threads one after another until one of them waits; that one then stays on it.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  unsigned thread = 0;
};

struct Block {
  const std::function<void()>* kernel = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers;  // kept from block to block
  std::vector<At> at;                          // by thread
  std::vector<Fiber*> carrier;                 // of a thread that has begun
  unsigned begun = 0, ended = 0, used = 0;
  Fiber* running = nullptr;
  ucontext_t scheduler;
  std::vector<std::byte> shared;
  std::vector<std::array<std::byte, 16>> slots;
  bool reversed = false;
};
Block block;

void place(unsigned thread) { now.thread = {thread, 0, 0}; }

void carry() {
  while (block.begun < block.at.size()) {
    const unsigned n = block.begun++;
    const auto thread = block.reversed ? unsigned(block.at.size()) - 1 - n : n;
    Fiber* const self = block.running;
    self->thread = thread;
    block.carrier[thread] = self;
    place(thread);
    (*block.kernel)();
    block.at[thread] = At::ended;
    ++block.ended;
  }
  // Its work is done: it may be taken for other threads, which begin anew.
  swapcontext(&block.running->context, &block.scheduler);
}

void resume(Fiber* fiber) {
  block.running = fiber;
  place(fiber->thread);
  swapcontext(&block.scheduler, &fiber->context);
}

void begin_fiber() {
  if (block.used == block.fibers.size()) block.fibers.push_back(std::make_unique<Fiber>());
  Fiber* const fiber = block.fibers[block.used++].get();
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack.get();
  fiber->context.uc_stack.ss_size = kStack;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, carry, 0);
  resume(fiber);
}

void wait(At where) {
  Fiber* const self = block.running;
  block.at[self->thread] = where;
  swapcontext(&self->context, &block.scheduler);
}

// Frees the threads [from, to) where all that have not ended wait there.
bool free_all(unsigned from, unsigned to, At where) {
  bool any = false;
  for (unsigned t = from; t < to; ++t) {
    if (block.at[t] == At::ended) continue;
    if (block.at[t] != where) return false;
    any = true;
  }
  for (unsigned t = from; t < to; ++t)
    if (block.at[t] == where) block.at[t] = At::ready;
  return any;
}

void run_block() {
  const auto threads = static_cast<unsigned>(block.at.size());
  while (block.ended < threads) {
    if (block.begun < threads) {
      begin_fiber();
      continue;
    }
    bool freed = free_all(0, threads, At::block);
    for (unsigned w = 0; w < threads; w += kWarpSize)
      freed |= free_all(w, std::min(w + kWarpSize, threads), At::warp);
    check(freed, "emulation: of {} threads some wait at a barrier that others do not reach",
          threads);
    for (unsigned n = 0; n < threads; ++n) {
      const unsigned t = block.reversed ? threads - 1 - n : n;
      if (block.at[t] == At::ready) resume(block.carrier[t]);
    }
  }
}

}  // namespace

void run(dim3 grid, dim3 size, std::size_t shared_bytes, const std::function<void()>& kernel) {
  now.grid = grid;
  now.block_size = size;
  block.kernel = &kernel;
  block.slots.resize(size.x);
  const unsigned blocks = grid.x * grid.y;
  for (unsigned n = 0; n < blocks; ++n) {
    const unsigned b = block.reversed ? blocks - 1 - n : n;
    now.block = {b % grid.x, b / grid.x, 0};
    block.at.assign(size.x, At::ready);
    block.carrier.assign(size.x, nullptr);
    block.begun = block.ended = block.used = 0;
    block.shared.assign(shared_bytes, std::byte{0xFF});
    run_block();
  }
}

void* shared() { return block.shared.data(); }
void reverse(bool on) { block.reversed = on; }
void wait_for_block() { wait(At::block); }
void wait_for_warp() { wait(At::warp); }
void* slot(unsigned thread) { return block.slots[thread].data(); }

}  // namespace graft::emulation
