#include "autograd/graph.h"

#include <algorithm>
#include <queue>
#include <set>

#include "tensor/kernels.h"

namespace graft {
namespace {

thread_local bool recording = true;
// Set when record() would have recorded: checkpoint() asks whether anything inside it learns.
thread_local bool wanted = false;
std::uint64_t next_number = 1;

// Which leaves record() has met, as a sum of hashes: checkpoint() asks whether it met the same
// again.
thread_local std::uint64_t leaves_met = 0;

std::uint64_t hashed(std::uint64_t x) {
  x *= 0x9E3779B97F4A7C15ull;
  return (x ^ x >> 29) * 0xBF58476D1CE4E5B9ull;
}

// The recipe used last in this walk. q, k and v all want the same norm's output, one after another.
// It is held, so that no later one can come to lie at its address.
thread_local std::pair<std::shared_ptr<const Recipe>, Array> last_made;

}  // namespace

Array Kept::get() const {
  if (!recipe) return array;
  if (last_made.first != recipe) last_made = {recipe, recipe->make()};
  return last_made.second;
}

Kept keep(const Tensor& x, const Tensor& because) {
  if (!because.needs_grad()) return {};
  if (x.recipe()) return {{}, x.recipe()};
  return {x.value(), nullptr};
}
Kept keep(const Tensor& x, const Tensor& because, const Tensor& or_because) {
  return because.needs_grad() ? keep(x, because) : keep(x, or_because);
}
Kept keep(Array x) { return {std::move(x), nullptr}; }

// A long chain must not be destroyed by recursion: each node hands its inputs to one loop. What its
// derivative captured (checkpoint: x) goes while they are held there.
Node::~Node() {
  thread_local std::vector<std::shared_ptr<Node>>* dying = nullptr;
  if (dying) {
    for (auto& input : inputs)
      if (input) dying->push_back(std::move(input));
    return;
  }
  std::vector<std::shared_ptr<Node>> queue;
  dying = &queue;
  for (auto& input : inputs)
    if (input) queue.push_back(std::move(input));
  derive = nullptr;
  saved.clear();
  while (!queue.empty()) {
    std::shared_ptr<Node> node = std::move(queue.back());
    queue.pop_back();
  }
  dying = nullptr;
}

Tensor Tensor::leaf(Array value, std::string name) {
  check(!is_half(value.dtype()), "leaf: '{}' is stored as {}; what trains is f32 or f64", name,
        graft::name(value.dtype()));
  auto node = std::make_shared<Node>();
  node->number = next_number++;
  node->op = std::move(name);
  node->shape = value.shape();
  node->kind = value.kind();
  return Tensor(std::move(value), std::move(node));
}

Tensor record(const char* op, Array y, const std::vector<Tensor>& inputs, Saved saved,
              Derive derive) {
  bool needed = false;
  for (const Tensor& x : inputs) {
    needed |= x.needs_grad();
    if (x.needs_grad() && !x.node()->derive) leaves_met += hashed(x.node()->number);
  }
  if (!needed) return Tensor(std::move(y));
  wanted = true;
  if (!recording) return Tensor(std::move(y));
  auto node = std::make_shared<Node>();
  node->number = next_number++;
  node->op = op;
  node->shape = y.shape();
  node->kind = y.kind();
  for (const Tensor& x : inputs) node->inputs.push_back(x.node());
  node->saved = std::move(saved);
  node->derive = std::move(derive);
  return Tensor(std::move(y), std::move(node));
}

static bool exclusive(const Array& a) { return a.contiguous() && a.storage().use_count() == 1; }

bool is_recording() { return recording; }
NoRecord::NoRecord() : before_(recording) { recording = false; }
NoRecord::~NoRecord() { recording = before_; }

// Adds the second to the first.
static void add_up(std::deque<Array>& sums) {
  if (!exclusive(sums[0])) sums[0] = sums[0].clone();
  kernels::axpy(sums[0], sums[1].as_contiguous(), 1);
  sums.erase(sums.begin() + 1);
}

const Array& Gradients::operator[](const Tensor& leaf) const {
  check(has(leaf), "gradients: none reached '{}'", leaf.node() ? leaf.node()->op : "a constant");
  std::deque<Array>& sums = by_number_.at(leaf.node()->number);
  while (sums.size() > 1) add_up(sums);
  return sums[0];
}
Array& Gradients::operator[](const Tensor& leaf) {
  return const_cast<Array&>(std::as_const(*this)[leaf]);
}
bool Gradients::has(const Tensor& leaf) const {
  return leaf.node() && by_number_.contains(leaf.node()->number);
}

// One walk: a max-heap of nodes by number, each with the gradient gathered so far.
class Engine {
 public:
  Engine(Gradients& leaves, bool apart, bool last) : leaves_(leaves), apart_(apart), last_(last) {}

  // Begins at y with gradient dy, or one.
  void begin(const Tensor& y, const Array& dy) {
    if (!dy.defined()) one_ = Array::full(y.shape(), 1, y.kind());
    add(y.node(), dy.defined() ? dy : one_, next_use(*y.node()));
  }
  bool is_one(const Array& dy) const {
    if (dy.device() == Device::cpu) return dy.item() == 1;
    return one_.defined() && dy.storage() == one_.storage();
  }

  // Which of a leaf's sums its next use adds to: one for all, or, apart, one for each.
  int next_use(const Node& node) { return apart_ && !node.derive ? uses_[node.number]++ : 0; }
  Array& gradient_of(const Node& node, int use) {
    if (node.derive) return pending_[node.number];
    std::deque<Array>& sums = leaves_.by_number_[node.number];
    if (sums.size() <= static_cast<std::size_t>(use)) sums.resize(use + 1);
    return sums[use];
  }
  void want(const std::shared_ptr<Node>& node) {
    if (node->derive && queued_.insert(node->number).second) heap_.push(node);
  }
  void add(const std::shared_ptr<Node>& node, Array g, int use);

  void run() {
    while (!heap_.empty()) {
      const std::shared_ptr<Node> node = heap_.top();
      heap_.pop();
      queued_.erase(node->number);
      Array dy = std::move(pending_[node->number]);
      pending_.erase(node->number);
      Grads grads(*this, *node);
      node->derive(dy, node->saved, grads);
      for (const auto& input : node->inputs)
        if (last_ && input && !input->derive) end_uses(*input);
    }
    last_made = {};
  }

  // The uses of a leaf so far are done, and no walk after this one adds to them. As when they are
  // read: the second to the first, then the third.
  void end_uses(const Node& leaf) {
    for (int& uses = uses_[leaf.number]; uses > 1; --uses) add_up(leaves_.by_number_[leaf.number]);
  }

 private:
  struct Later {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
      return a->number < b->number;
    }
  };
  Gradients& leaves_;
  bool apart_, last_;
  Array one_;
  std::unordered_map<std::uint64_t, int> uses_;
  std::unordered_map<std::uint64_t, Array> pending_;
  std::set<std::uint64_t> queued_;
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Later> heap_;
};

namespace {

// g with dimension d summed down to 1.
Array summed(const Array& g, int d) {
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < d; ++i) outer *= g.shape()[i];
  for (int i = d + 1; i < g.ndim(); ++i) inner *= g.shape()[i];
  const std::int64_t n = g.shape()[d];
  const Array from = g.as_contiguous().reshape({outer, n, inner});
  Array down = Array::zeros({outer, inner}, g.kind());
  if (inner == 1) {
    Array flat = down.reshape({outer});
    kernels::sum_columns(flat, from.reshape({outer, n}));
  } else {
    for (std::int64_t o = 0; o < outer; ++o) {
      Array row = down.slice(0, o, o + 1).reshape({inner});
      kernels::add_rows(row, from.slice(0, o, o + 1).reshape({n, inner}));
    }
  }
  Shape shape = g.shape();
  shape[d] = 1;
  return down.reshape(std::move(shape));
}

// Adds g, broadcast from sum's shape, into sum: within rows first, then row after row onto what is
// there, so that rows that come in two calls give the bits of one.
void add_summed_down(Array& sum, Array g) {
  if (g.shape() == sum.shape()) {
    kernels::axpy(sum, g.as_contiguous(), 1);
    return;
  }
  Shape want = sum.shape();
  while (want.size() > 1 && want.front() == 1) want.erase(want.begin());
  const int extra = g.ndim() - static_cast<int>(want.size());
  for (int d = g.ndim() - 1; d >= std::max(1, extra); --d)
    if (g.shape()[d] != want[d - extra]) g = summed(g, d);
  Array flat = sum.reshape({sum.numel()});
  kernels::add_rows(flat, g.as_contiguous().reshape({-1, sum.numel()}));
}

}  // namespace

// What was computed in half precision of a master in f32 has its gradient in f32 from here on; and
// what comes wider than its input is summed down before it is rounded.
void Engine::add(const std::shared_ptr<Node>& node, Array g, int use) {
  if (is_half(node->kind.dtype) && g.dtype() == Dtype::f32 && g.shape() != node->shape) {
    Array down = Array::zeros(node->shape, g.kind());
    add_summed_down(down, std::move(g));
    g = std::move(down);
  }
  g = g.to(node->kind.dtype);
  Array& sum = gradient_of(*node, use);
  if (!sum.defined() && g.shape() == node->shape) {
    sum = std::move(g);
  } else {
    if (!sum.defined()) sum = Array::zeros(node->shape, node->kind);
    if (!exclusive(sum)) sum = sum.clone();
    add_summed_down(sum, g);
  }
  want(node);
}

bool Grads::needs(int input) const { return node_.inputs.at(input) != nullptr; }

int Grads::use_of(int input) {
  if (use_.empty()) use_.resize(node_.inputs.size(), -1);
  if (use_[input] < 0) use_[input] = engine_.next_use(*node_.inputs[input]);
  return use_[input];
}

void Grads::add(int input, Array g) {
  if (needs(input)) engine_.add(node_.inputs[input], std::move(g), use_of(input));
}

Grads::Sum Grads::sum(int input) {
  const auto& node = node_.inputs.at(input);
  check(node != nullptr, "{}: a gradient for input {}, which wants none", node_.op, input);
  Array& sum = engine_.gradient_of(*node, use_of(input));
  const bool begun = sum.defined();
  if (!begun)
    sum = Array::empty(node->shape, node->kind);
  else if (!exclusive(sum))
    sum = sum.clone();
  engine_.want(node);
  return {sum, begun ? 1.0 : 0.0};
}

Array& Grads::into(int input) {
  const auto [sum, beta] = this->sum(input);
  if (beta == 0) sum.fill(0);
  return sum;
}

bool Grads::is_one(const Array& dy) const { return engine_.is_one(dy); }

void Grads::continue_from(const Tensor& y, const Array& dy) {
  if (y.node()) engine_.add(y.node(), dy, engine_.next_use(*y.node()));
}

static void walk(const Tensor& y, Gradients& into, const Array& dy, bool apart, bool last) {
  check(y.needs_grad(), "backward: nothing that y depends on wants a gradient");
  check(dy.defined() || y.numel() == 1, "backward: y has shape {}; give dy or reduce it",
        y.shape());
  check(!dy.defined() || dy.shape() == y.shape(), "backward: dy {} for y {}", dy.shape(),
        y.shape());
  Engine engine(into, apart, last);
  engine.begin(y, dy);
  engine.run();
}

void backward(const Tensor& y, Gradients& into, const Array& dy, bool last) {
  walk(y, into, dy, true, last);
}

Gradients backward(const Tensor& y, const Array& dy) {
  Gradients grads;
  walk(y, grads, dy, false, false);
  return grads;
}

Tensor checkpoint(std::function<Tensor(const Tensor&)> f, const Tensor& x) {
  if (!recording) return f(x);
  const std::uint64_t met_before = leaves_met;
  const bool wanted_before = wanted;
  wanted = x.needs_grad();
  Tensor y;
  {
    NoRecord off;
    y = f(x);
  }
  const bool learns = wanted;
  wanted = wanted_before || learns;
  if (!learns) return y.detach();
  auto node = std::make_shared<Node>();
  node->number = next_number++;
  node->op = "checkpoint";
  node->shape = y.shape();
  node->kind = y.kind();
  node->inputs = {x.node()};
  node->saved = {x.recipe() ? Kept{{}, x.recipe()} : keep(x.value())};
  node->derive = [f = std::move(f), of = x.node(), met = leaves_met - met_before](
                     const Array& dy, const Saved& s, Grads& g) {
    const std::uint64_t before = leaves_met;
    const Tensor y = f(Tensor(s[0].get(), of).with_recipe(s[0].recipe));
    check(leaves_met - before == met,
          "checkpoint: {} is not made from the same leaves again; was an edit dropped or a "
          "parameter put in place between forward and backward?",
          y.shape());
    g.continue_from(y, dy);
  };
  return Tensor(y.value(), std::move(node));
}

Explanation explain(const Tensor& y, const std::vector<Array>& own) {
  std::set<const Storage*> seen;
  for (const Array& a : own) seen.insert(a.storage().get());
  std::unordered_map<std::uint64_t, std::shared_ptr<Node>> nodes;
  std::vector<std::shared_ptr<Node>> queue{y.node()};
  while (!queue.empty()) {
    const std::shared_ptr<Node> node = std::move(queue.back());
    queue.pop_back();
    if (!node || !nodes.emplace(node->number, node).second) continue;
    for (const auto& input : node->inputs) queue.push_back(input);
  }
  std::vector<std::uint64_t> order;
  for (const auto& [number, node] : nodes) order.push_back(number);
  std::sort(order.begin(), order.end());
  Explanation out;
  for (std::uint64_t number : order) {
    const Node& node = *nodes[number];
    if (!node.derive) continue;
    std::size_t bytes = 0;
    const auto add = [&](const Array& a) {
      if (a.has_storage() && seen.insert(a.storage().get()).second) bytes += a.storage()->bytes;
    };
    for (const Kept& kept : node.saved) {
      add(kept.array);
      if (kept.recipe)
        for (const Array& a : kept.recipe->from) add(a);
    }
    out.rows.push_back({node.op, node.shape, bytes});
    out.kept_bytes += bytes;
  }
  return out;
}

std::string Explanation::text() const {
  std::string out = fmt::format("{:<22}{:<24}{:>14}\n", "op", "shape", "bytes kept");
  for (const Row& row : rows)
    out +=
        fmt::format("{:<22}{:<24}{:>14}\n", row.op, fmt::format("{}", row.shape), row.kept_bytes);
  return out + fmt::format("{} nodes, {} bytes kept\n", rows.size(), kept_bytes);
}

}  // namespace graft
