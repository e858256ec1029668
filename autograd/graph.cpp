#include "autograd/graph.h"

#include <queue>
#include <set>

#include "tensor/kernels.h"

namespace graft {
namespace {

thread_local bool recording = true;
// Set when record() would have recorded: checkpoint() asks whether anything inside it learns.
thread_local bool wanted = false;
std::uint64_t next_number = 1;

// The recipe used last in this walk. q, k and v all want the same norm's output, one after another.
thread_local std::pair<const Recipe*, Array> last_made;

}  // namespace

Array Kept::get() const {
  if (!recipe) return array;
  if (last_made.first != recipe.get()) last_made = {recipe.get(), recipe->make()};
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

// A long chain must not be destroyed by recursion: each node hands its inputs to one loop.
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
  while (!queue.empty()) {
    std::shared_ptr<Node> node = std::move(queue.back());
    queue.pop_back();
  }
  dying = nullptr;
}

Tensor Tensor::leaf(Array value, std::string name) {
  auto node = std::make_shared<Node>();
  node->number = next_number++;
  node->op = std::move(name);
  node->shape = value.shape();
  node->dtype = value.dtype();
  return Tensor(std::move(value), std::move(node));
}

Tensor record(const char* op, Array y, const std::vector<Tensor>& inputs, Saved saved,
              Derive derive) {
  bool needed = false;
  for (const Tensor& x : inputs) needed |= x.needs_grad();
  if (!needed) return Tensor(std::move(y));
  wanted = true;
  if (!recording) return Tensor(std::move(y));
  auto node = std::make_shared<Node>();
  node->number = next_number++;
  node->op = op;
  node->shape = y.shape();
  node->dtype = y.dtype();
  for (const Tensor& x : inputs) node->inputs.push_back(x.node());
  node->saved = std::move(saved);
  node->derive = std::move(derive);
  return Tensor(std::move(y), std::move(node));
}

NoRecord::NoRecord() : before_(recording) { recording = false; }
NoRecord::~NoRecord() { recording = before_; }

const Array& Gradients::operator[](const Tensor& leaf) const {
  check(has(leaf), "gradients: none reached '{}'", leaf.node() ? leaf.node()->op : "a constant");
  return by_number_.at(leaf.node()->number);
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
  explicit Engine(Gradients& leaves) : leaves_(leaves) {}

  Array& gradient_of(const Node& node) {
    return node.derive ? pending_[node.number] : leaves_.by_number_[node.number];
  }
  void want(const std::shared_ptr<Node>& node) {
    if (node->derive && queued_.insert(node->number).second) heap_.push(node);
  }
  void add(const std::shared_ptr<Node>& node, Array g);

  void run() {
    while (!heap_.empty()) {
      const std::shared_ptr<Node> node = heap_.top();
      heap_.pop();
      queued_.erase(node->number);
      Array dy = std::move(pending_[node->number]);
      pending_.erase(node->number);
      Grads grads(*this, *node);
      node->derive(dy, node->saved, grads);
    }
    last_made = {};
  }

 private:
  struct Later {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
      return a->number < b->number;
    }
  };
  Gradients& leaves_;
  std::unordered_map<std::uint64_t, Array> pending_;
  std::set<std::uint64_t> queued_;
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Later> heap_;
};

namespace {

bool exclusive(const Array& a) { return a.contiguous() && a.storage().use_count() == 1; }

// Adds g, broadcast from sum's shape, into sum.
void add_summed_down(Array& sum, const Array& g) {
  if (g.shape() == sum.shape()) {
    kernels::axpy(sum, g.as_contiguous(), 1);
    return;
  }
  const std::int64_t columns = sum.numel();
  const int tail = sum.ndim();
  const bool leading = std::equal(sum.shape().begin(), sum.shape().end(),
                                  g.shape().end() - std::min(tail, g.ndim()));
  if (leading) {  // [..., C] down to [C]
    Array flat = sum.reshape({columns});
    kernels::add_rows(flat, g.as_contiguous().reshape({-1, columns}));
    return;
  }
  Array moved = g;  // sum one repeated dimension at a time, the last ones first
  const int extra = g.ndim() - tail;
  for (int d = g.ndim() - 1; d >= 0; --d) {
    const std::int64_t want = d < extra ? 1 : sum.shape()[d - extra];
    if (moved.shape()[d] == want) continue;
    std::int64_t outer = 1, inner = 1;
    for (int i = 0; i < d; ++i) outer *= moved.shape()[i];
    for (int i = d + 1; i < moved.ndim(); ++i) inner *= moved.shape()[i];
    const std::int64_t n = moved.shape()[d];
    Shape shape = moved.shape();
    shape[d] = 1;
    const Array source = moved.as_contiguous().reshape({outer, n, inner});
    Array down = Array::zeros({outer, inner}, g.dtype());
    for (std::int64_t o = 0; o < outer; ++o) {
      Array row = down.slice(0, o, o + 1).reshape({inner});
      kernels::add_rows(row, source.slice(0, o, o + 1).reshape({n, inner}));
    }
    moved = down.reshape(shape);
  }
  kernels::axpy(sum, moved.reshape(sum.shape()), 1);
}

}  // namespace

void Engine::add(const std::shared_ptr<Node>& node, Array g) {
  Array& sum = gradient_of(*node);
  if (!sum.defined() && g.shape() == node->shape) {
    sum = std::move(g);
  } else {
    if (!sum.defined()) sum = Array::zeros(node->shape, node->dtype);
    if (!exclusive(sum)) sum = sum.clone();
    add_summed_down(sum, g);
  }
  want(node);
}

bool Grads::needs(int input) const { return node_.inputs.at(input) != nullptr; }

void Grads::add(int input, Array g) {
  if (needs(input)) engine_.add(node_.inputs[input], std::move(g));
}

Array& Grads::into(int input) {
  const auto& node = node_.inputs.at(input);
  check(node != nullptr, "{}: a gradient for input {}, which wants none", node_.op, input);
  Array& sum = engine_.gradient_of(*node);
  if (!sum.defined())
    sum = Array::zeros(node->shape, node->dtype);
  else if (!exclusive(sum))
    sum = sum.clone();
  engine_.want(node);
  return sum;
}

void Grads::continue_from(const Tensor& y, const Array& dy) {
  if (y.node()) engine_.add(y.node(), dy);
}

void backward(const Tensor& y, Gradients& into, const Array& dy) {
  check(y.needs_grad(), "backward: nothing that y depends on wants a gradient");
  check(dy.defined() || y.numel() == 1, "backward: y has shape {}; give dy or reduce it", y.shape());
  check(!dy.defined() || dy.shape() == y.shape(), "backward: dy {} for y {}", dy.shape(), y.shape());
  Engine engine(into);
  engine.add(y.node(), dy.defined() ? dy : Array::full(y.shape(), 1, y.dtype()));
  engine.run();
}

Gradients backward(const Tensor& y, const Array& dy) {
  Gradients grads;
  backward(y, grads, dy);
  return grads;
}

Tensor checkpoint(std::function<Tensor(const Tensor&)> f, const Tensor& x) {
  if (!recording) return f(x);
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
  node->dtype = y.dtype();
  node->inputs = {x.node()};
  node->saved = {keep(x.value())};
  node->derive = [f = std::move(f), x](const Array& dy, const Saved&, Grads& g) {
    g.continue_from(f(x), dy);
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
    out += fmt::format("{:<22}{:<24}{:>14}\n", row.op, fmt::format("{}", row.shape), row.kept_bytes);
  return out + fmt::format("{} nodes, {} bytes kept\n", rows.size(), kept_bytes);
}

}  // namespace graft
