// A run whose checkpoint is being renamed when it is killed: right before the call, and right
// behind it. A tracer stops the run at each of its calls of the system, so that neither moment is
// left to chance.
#include <doctest/doctest.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "experiments/runs/finetune.h"
#include "nn/files/atomic.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

const RunSpec kSpec{
    .method = "lora:r=2,on=q+v,dropout=0.1", .lr = 0.01, .epochs = 6, .batch = 4, .seed = 3};

std::uint64_t train(const RunPlaces& places) {
  SmallModel base(arch_of(Stack::encoder));
  const EncodedTask task =
      encode_task(data(TaskData::Kind::classification), tokenizer(), base.arch(), {});
  return finetune(base, task, kSpec, all_methods(), {}, places).weights_hash;
}

enum class Moment { before, behind };
enum class End { killed, by_itself, untraceable };

bool renames(std::uint64_t call) {
#ifdef SYS_rename
  if (call == SYS_rename) return true;
#endif
#ifdef SYS_renameat
  if (call == SYS_renameat) return true;
#endif
  return call == SYS_renameat2;
}

// Trains in a process of its own, its state in the folder and written at every step, up to its nth
// rename; at the end it writes its hash there.
End train_until(const Folder& folder, int nth, Moment moment) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // no doctest in here
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(3);
    ::raise(SIGSTOP);
    try {
      const std::uint64_t hash = train({folder / "state", 0, [](int, int, double) {}});
      std::ofstream(folder / "hash") << hash << std::flush;
    } catch (const std::exception& error) {  // such as a state that cannot be read
      fmt::print(stderr, "{}\n", error.what());
      ::_exit(4);
    }
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) return End::untraceable;
  const bool traced =
      ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) == 0;
  bool inside = false;  // of the nth rename
  for (int signal = 0; traced;) {
    if (::ptrace(PTRACE_SYSCALL, child, nullptr, signal) != 0) break;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      CHECK(status == 0);
      return End::by_itself;
    }
    signal = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
    if (signal != 0) continue;
    __ptrace_syscall_info info{};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) <= 0) break;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
      inside = renames(info.entry.nr) && --nth == 0;
    else if (!inside)
      continue;
    if (!inside || (moment == Moment::behind && info.op == PTRACE_SYSCALL_INFO_ENTRY)) continue;
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    return End::killed;
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return End::untraceable;
}

}  // namespace

TEST_CASE("a run killed right before and right behind its checkpoint's rename loses nothing") {
  const Threads one(1);
  const std::uint64_t whole = train({});
  const Folder folder;
  int killed = 0;
  for (Moment moment = Moment::before;; ++killed) {
    REQUIRE(killed < 200);
    const std::string old = fs::exists(folder / "state") ? read_file(folder / "state") : "";
    // The second rename, so that one checkpoint of this start stands and every start gets on.
    const End end = train_until(folder, 2, moment);
    if (end == End::untraceable) {
      REQUIRE(killed == 0);
      MESSAGE("SKIPPED: no process may be traced here");
      return;
    }
    if (end == End::by_itself) break;
    CHECK(read_file(folder / "state") != old);
    moment = moment == Moment::before ? Moment::behind : Moment::before;
  }
  CHECK(killed >= 6);
  CHECK(read_file(folder / "hash") == std::to_string(whole));
}
