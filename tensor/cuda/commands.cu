// Lists of commands, and the graphs that take their places.
#include "tensor/cuda/commands.h"

#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensor/cuda/runtime.h"
#include "tensor/cuda/status.h"
#include "tensor/cuda/upload.h"
#include "tensor/cuda/word_hash.h"
#include "tensor/pool.h"

namespace graft::cuda {
namespace {

constexpr std::size_t kMostGraphs = 128;   // each holds some MB on the device
constexpr std::size_t kMostSeen = 100000;  // lists of which only the hash is known
constexpr std::size_t kRoom = 16;          // commands begin at multiples of this

struct Head {
  Start start;
  std::size_t bytes;  // of what follows, rounded up to kRoom
};
static_assert(sizeof(Head) == kRoom);

struct List {
  std::vector<std::byte> commands, copied;
  long count = 0;
  bool empty() const { return commands.empty(); }
  void clear() { commands.clear(), copied.clear(), count = 0; }
};

std::uint64_t waits = 0;

// Memory of the host that the device copies from by itself.
class Pinned {
 public:
  Pinned() = default;
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() {
    if (data_ && cudaFreeHost(data_) != cudaSuccess) (void)cudaGetLastError();
  }
  // The bytes, in a place that stays the same while they are no more than the first ones were.
  // Waits where earlier ones may not have been read yet.
  const std::byte* put(const std::vector<std::byte>& bytes) {
    if (bytes.empty()) return data_;
    if (used_ && used_at_ == waits) wait();
    if (bytes.size() > size_) {
      if (data_) GRAFT_CUDA_CHECK(cudaFreeHost(data_), "giving {} bytes back", size_);
      data_ = nullptr, size_ = 0;  // where there is no other
      void* block = nullptr;
      GRAFT_CUDA_CHECK(cudaMallocHost(&block, bytes.size()), "getting {} bytes of the host",
                       bytes.size());
      data_ = static_cast<std::byte*>(block), size_ = bytes.size();
    }
    std::memcpy(data_, bytes.data(), bytes.size());
    used_ = true, used_at_ = waits;
    return data_;
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  bool used_ = false;
  std::uint64_t used_at_ = 0;
};

void start_all(const std::vector<std::byte>& commands, const std::byte* copied) {
  for (const std::byte* at = commands.data(); at != commands.data() + commands.size();) {
    Head head{};
    std::memcpy(&head, at, sizeof head);
    at += sizeof head;
    head.start(at, copied);
    at += head.bytes;
  }
}

// A list as the device has it whole. Its copies lie where its nodes read them.
class Graph {
 public:
  explicit Graph(const List& list) : commands_(list.commands) {
    const std::byte* const copied = copied_.put(list.copied);
    cudaGraph_t graph = nullptr;
    GRAFT_CUDA_CHECK(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal),
                     "beginning a graph of {} commands", list.count);
    try {
      start_all(commands_, copied);
    } catch (...) {
      if (cudaStreamEndCapture(stream(), &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
      (void)cudaGetLastError();
      throw;
    }
    GRAFT_CUDA_CHECK(cudaStreamEndCapture(stream(), &graph), "ending a graph of {} commands",
                     list.count);
    const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    GRAFT_CUDA_CHECK(made, "making a graph of {} commands", list.count);
    // Here rather than at its first start, so that a want of room for it is seen here.
    const cudaError_t there = cudaGraphUpload(graph_, stream());
    if (there != cudaSuccess && cudaGraphExecDestroy(std::exchange(graph_, nullptr)) != cudaSuccess)
      (void)cudaGetLastError();
    GRAFT_CUDA_CHECK(there, "putting a graph of {} commands on the device", list.count);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (graph_ && cudaGraphExecDestroy(graph_) != cudaSuccess) (void)cudaGetLastError();
  }
  bool is(const List& list) const { return commands_ == list.commands; }
  void launch(const List& list) {
    (void)copied_.put(list.copied);
    GRAFT_CUDA_CHECK(cudaGraphLaunch(graph_, stream()), "starting a graph of {} commands",
                     list.count);
  }
  std::uint64_t used = 0;  // when last, by the count of lists and parts

 private:
  std::vector<std::byte> commands_;
  Pinned copied_;
  cudaGraphExec_t graph_ = nullptr;
};

// A list that was handed over before.
struct Known {
  std::unique_ptr<Graph> graph;  // from its second time on
  bool in_vain = false;          // it cannot be made
};

struct State {
  bool noting = false;
  List list, spare;
  Pinned copied;                                   // of lists without a graph
  std::unordered_map<std::uint64_t, Known> known;  // by hash
  std::size_t graphs = 0;
  Work work;
};
// Never destroyed: the device may be gone before what has static lifetime.
State& state() {
  static State* const s = new State;
  return *s;
}

void drop_oldest(State& s) {
  auto oldest = s.known.end();
  for (auto at = s.known.begin(); at != s.known.end(); ++at)
    if (at->second.graph &&
        (oldest == s.known.end() || at->second.graph->used < oldest->second.graph->used))
      oldest = at;
  wait();  // it may be running
  s.known.erase(oldest);
  --s.graphs;
}

// Null where it cannot be made, such as for want of room: the list is then no worse off than
// without graphs.
std::unique_ptr<Graph> graph_of(State& s, const List& list) {
  try {
    return std::make_unique<Graph>(list);
  } catch (const Error& error) {
    s.work.in_vain = error.what();
    return nullptr;
  }
}

// The graph that stands for the list, which is made when it comes for the second time: it will come
// again. Null: it is started command by command.
Graph* graph_for(State& s, const List& list) {
  const std::uint64_t hash = word_hash(list.commands.data(), list.commands.size());
  if (s.known.size() > kMostSeen) drop_graphs();
  if (s.known.try_emplace(hash).second) return nullptr;
  if (const Known& known = s.known[hash]; known.graph) {
    if (!known.graph->is(list)) return nullptr;
    ++s.work.replayed;
    return known.graph.get();
  }
  if (s.known[hash].in_vain) return nullptr;
  if (s.graphs == kMostGraphs) drop_oldest(s);
  Known& known = s.known[hash];
  known.graph = graph_of(s, list);
  known.in_vain = !known.graph;
  if (known.graph) ++s.graphs, ++s.work.graphs;
  return known.graph.get();
}

void start(State& s, const List& list) {
  Graph* const graph = graph_for(s, list);
  if (!graph) return start_all(list.commands, s.copied.put(list.copied));
  graph->used = static_cast<std::uint64_t>(s.work.lists + s.work.parts);
  graph->launch(list);
}

bool graphs_wanted() {
  const char* given = std::getenv("GRAFT_GRAPHS");
  const std::string value = given ? given : "1";
  check(value == "0" || value == "1", "GRAFT_GRAPHS: '{}'; need 0 or 1", value);
  return value == "1";
}

}  // namespace

bool noting() { return state().noting; }

std::byte* note(Start start, std::size_t bytes) {
  List& list = state().list;
  const Head head{start, (bytes + kRoom - 1) / kRoom * kRoom};
  const std::size_t at = list.commands.size();
  list.commands.resize(at + sizeof head + head.bytes);
  std::memcpy(list.commands.data() + at, &head, sizeof head);
  ++list.count, ++state().work.commands;
  return list.commands.data() + at + sizeof head;
}

std::size_t keep_copied(const void* from, std::size_t bytes) {
  State& s = state();
  const std::size_t at = (s.list.copied.size() + kRoom - 1) / kRoom * kRoom;
  s.list.copied.resize(at + bytes);
  std::memcpy(s.list.copied.data() + at, from, bytes);
  ++s.work.copies, s.work.copied_bytes += static_cast<long>(bytes);
  return at;
}

// Counts it as one of these.
static void start_as(long Work::*kind) {
  State& s = state();
  if (s.list.empty()) return;
  ++(s.work.*kind);
  std::swap(s.list, s.spare);  // a wait on the way comes here again, and finds nothing
  s.list.clear();
  try {
    start(s, s.spare);
  } catch (...) {
    distrust_uploads();
    throw;
  }
}

void start_noted() { start_as(&Work::lists); }

void begin_gathered() { start_as(&Work::parts); }

void drop_graphs() {
  wait();
  State& s = state();
  s.known.clear(), s.graphs = 0;
}

void has_waited() { ++waits; }

const Work& work() { return state().work; }

void gathered(Device where, const std::function<void()>& step) {
  State& s = state();
  if (where == Device::cpu || s.noting || !graphs_wanted()) return step();
  // So that the same arrays come to lie at the same addresses as in the last step.
  forget_uploads();
  pool::settle(Device::cuda);
  s.noting = true;
  try {
    step();
  } catch (...) {
    s.noting = false;
    try {
      start_noted();
    } catch (const std::exception&) {
      // the first error is the one to tell
    }
    throw;
  }
  s.noting = false;
  start_noted();
}

}  // namespace graft::cuda
