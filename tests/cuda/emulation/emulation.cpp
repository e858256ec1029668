#include <setjmp.h>
#include <ucontext.h>
#ifdef GRAFT_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

#include <array>
#include <memory>
#include <vector>

#include "cuda_runtime.h"
#include "tensor/error.h"

namespace graft::emulation {

Place now;
cudaGraph_t captured = nullptr;
bool no_room_for_graphs = false, no_memory = false;

namespace {

constexpr std::size_t kStack = 128 << 10;
constexpr unsigned kWarpSize = 32;
constexpr std::size_t kMostShared = 227 << 10;  // sm_90's

enum class At { ready, block, warp, ended };

// A place in the program with a stack of its own. The first entry is by setcontext; later ones are
// by longjmp, which asks nothing of the system and is many times faster. The address sanitizer must
// be told of each, and takes longjmp for the end of the frames that it leaves.
struct Context {
  ucontext_t context;
  jmp_buf jump;
  bool entered = false;
  void* stack = nullptr;
  std::size_t stack_size = 0;
};

void leap(Context& from, Context& to) {
#ifdef GRAFT_SANITIZED
  void* kept = nullptr;
  const void* left = nullptr;
  std::size_t size = 0;
  __sanitizer_start_switch_fiber(&kept, to.stack, to.stack_size);
  swapcontext(&from.context, &to.context);
  __sanitizer_finish_switch_fiber(kept, &left, &size);
#else
  from.entered = true;
  if (_setjmp(from.jump) != 0) return;
  if (to.entered) _longjmp(to.jump, 1);
  to.entered = true;
  setcontext(&to.context);
#endif
}

// Carries threads one after another until one of them waits; that one then stays on it.
struct Fiber : Context {
  std::unique_ptr<char[]> memory{new char[kStack]};
  unsigned thread = 0;
};

struct Copy {
  void* to;
  const void* from;
  unsigned room, bytes;  // zeros from `bytes` on
};

struct Block {
  const std::function<void()>* kernel = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers;  // kept from block to block
  std::vector<At> at;                          // by thread
  std::vector<Fiber*> carrier;                 // of a thread that has begun
  unsigned begun = 0, ended = 0, used = 0;
  Fiber* running = nullptr;
  Context scheduler;
  std::vector<std::byte> shared;
  std::vector<std::array<std::byte, 16>> slots;
  std::vector<std::vector<Copy>> copies;  // begun, by thread
  bool reversed = false;
};
Block block;

void place(unsigned thread) { now.thread = {thread, 0, 0}; }

// What every fiber does for ever: it takes threads until none is left, and then waits to be used
// again, by another block.
void carry() {
#ifdef GRAFT_SANITIZED
  const void* stack = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
  block.scheduler.stack = const_cast<void*>(stack);
  block.scheduler.stack_size = size;
#endif
  for (;;) {
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
    leap(*block.running, block.scheduler);
  }
}

void resume(Fiber* fiber) {
  block.running = fiber;
  place(fiber->thread);
  leap(block.scheduler, *fiber);
}

void begin_fiber() {
  if (block.used == block.fibers.size()) {
    Fiber& fiber = *block.fibers.emplace_back(std::make_unique<Fiber>());
    fiber.stack = fiber.memory.get();
    fiber.stack_size = kStack;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, carry, 0);
  }
  resume(block.fibers[block.used++].get());
}

void wait(At where) {
  Fiber* const self = block.running;
  block.at[self->thread] = where;
  leap(*self, block.scheduler);
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
  check(shared_bytes <= kMostShared, "emulation: {} bytes of shared memory; a block has {}",
        shared_bytes, kMostShared);
  now.grid = grid;
  now.block_size = size;
  block.kernel = &kernel;
  block.slots.resize(size.x);
  block.copies.resize(std::max<std::size_t>(block.copies.size(), size.x));
  const unsigned blocks = grid.x * grid.y;
  for (unsigned n = 0; n < blocks; ++n) {
    const unsigned b = block.reversed ? blocks - 1 - n : n;
    now.block = {b % grid.x, b / grid.x, 0};
    block.at.assign(size.x, At::ready);
    block.carrier.assign(size.x, nullptr);
    block.begun = block.ended = block.used = 0;
    block.shared.assign(shared_bytes, std::byte{0xFF});
    run_block();
    for (auto& begun : block.copies) begun.clear();  // nobody can have read them
  }
}

void submit(std::function<void()> work) {
  if (captured)
    captured->push_back(std::move(work));
  else
    work();
}
bool capturing() { return captured != nullptr; }

void* shared() { return block.shared.data(); }
void reverse(bool on) { block.reversed = on; }
void wait_for_block() { wait(At::block); }
void wait_for_warp() { wait(At::warp); }
void misaligned() { fail("emulation: a matrix's row does not begin at a multiple of 16 bytes"); }

void copy_meanwhile(void* to, const void* from, unsigned room, unsigned bytes) {
  if (reinterpret_cast<std::uintptr_t>(to) % room != 0 ||
      (bytes && reinterpret_cast<std::uintptr_t>(from) % room != 0))
    fail("emulation: a copy of {} bytes is not aligned to as many", room);
  std::memset(to, 0xFF, room);
  block.copies[now.thread.x].push_back({to, from, room, bytes});
}
void wait_for_copies() {
  auto& begun = block.copies[now.thread.x];
  for (const Copy& c : begun) {
    std::memset(c.to, 0, c.room);
    if (c.bytes) std::memcpy(c.to, c.from, c.bytes);
  }
  begun.clear();
}

void* slot(unsigned thread) { return block.slots[thread].data(); }

}  // namespace graft::emulation
