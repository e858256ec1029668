// The graph: recording what an op needs for its derivative, and walking it backward.
//
// An op computes its value, then calls record(). Where no input wants a gradient record() returns
// the bare value, so everything below the lowest trainable parameter is never recorded; keep(x, W)
// keeps x only if W learns. Freezing therefore saves time and memory without a line in any method.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "autograd/tensor.h"

namespace graft {

// One thing kept for backward: the numbers, or the recipe that makes them again. May be empty.
struct Kept {
  Array array;
  std::shared_ptr<const Recipe> recipe;
  Array get() const;  // the numbers; undefined if nothing was kept
};
using Saved = std::vector<Kept>;

// x, if any of `because` wants a gradient: the derivative for `because` reads x.
Kept keep(const Tensor& x, const Tensor& because);
Kept keep(const Tensor& x, const Tensor& because, const Tensor& or_because);
Kept keep(Array x);  // always (a result the derivative reads)

class Engine;

// Where a derivative puts the gradients of its inputs.
class Grads {
 public:
  bool needs(int input) const;
  // Adds g. Where g was broadcast from the input's shape it is summed down here, and only here; and
  // here alone it is turned into the input's type.
  void add(int input, Array g);
  // The input's gradient so far (zeros at first), to be added to in place: chains of sums then run
  // on from one micro-batch to the next and give the bits of one large batch.
  Array& into(int input);
  // The same for who can also write a sum's first addend instead of adding it, such as gemm: beta
  // is 1, or 0 where nothing has been added yet, and the numbers are then whatever lay there. Saves
  // a large weight's gradient from being filled with zeros and read again.
  struct Sum {
    Array& array;
    double beta;
  };
  Sum sum(int input);
  // Whether dy is the one that backward began with, where it was given none. On the host any other
  // one counts, too; on a device nobody looks.
  bool is_one(const Array& dy) const;
  // Walks on from y, recorded just now, with gradient dy: how checkpoint() re-enters the graph.
  void continue_from(const Tensor& y, const Array& dy);

 private:
  friend class Engine;
  Grads(Engine& engine, Node& node) : engine_(engine), node_(node) {}
  int use_of(int input);
  Engine& engine_;
  Node& node_;
  std::vector<int> use_;  // of each input, if it is a leaf: which of its sums this node adds to
};

using Derive = std::function<void(const Array& dy, const Saved&, Grads&)>;

struct Node {
  std::uint64_t number = 0;  // later nodes have larger numbers; backward goes from large to small
  std::string op;
  Shape shape;
  ArrayKind kind;
  std::vector<std::shared_ptr<Node>> inputs;  // null where no gradient is wanted
  Saved saved;
  Derive derive;  // empty for a leaf
  ~Node();
};

// y as the result of `op`. The graph grows only if an input wants a gradient.
Tensor record(const char* op, Array y, const std::vector<Tensor>& inputs, Saved saved,
              Derive derive);

bool is_recording();  // on this thread, now

// While one lives nothing is recorded: evaluation, generation.
class NoRecord {
 public:
  NoRecord();
  ~NoRecord();
  NoRecord(const NoRecord&) = delete;
  NoRecord& operator=(const NoRecord&) = delete;

 private:
  bool before_;
};

class Gradients {
 public:
  // The gradient of a leaf; throws if none reached it.
  const Array& operator[](const Tensor& leaf) const;
  Array& operator[](const Tensor& leaf);
  bool has(const Tensor& leaf) const;
  void clear() { by_number_.clear(); }

 private:
  friend class Engine;
  // Of each leaf one sum, or one for each of its uses (see backward), added up when it is read.
  mutable std::unordered_map<std::uint64_t, std::deque<Array>> by_number_;
};

// Gradients of y (one element, unless dy is given) in every leaf it depends on. The graph stays and
// may be walked again. The second form adds to gradients already there, for each use of a leaf in a
// sum of its own: a matrix used twice (a tied embedding) gets the same bits however a batch is cut.
// The last walk before they are read may say so. It adds these sums up as it goes, with the same
// bits: where it is the only one, a leaf that all layers read takes the room of two sums, not of
// one for each layer.
Gradients backward(const Tensor& y, const Array& dy = {});
void backward(const Tensor& y, Gradients& into, const Array& dy = {}, bool last = false);

// f(x), forgetting what happens inside and computing it again during backward (Chen et al. 2016);
// x itself is made again where it has a recipe.
// Parameters that f captures train even where x itself needs no gradient. Backward throws where f
// then reads other leaves than it did (an edit was dropped in between).
Tensor checkpoint(std::function<Tensor(const Tensor&)> f, const Tensor& x);

// What the graph below y keeps. Blocks are counted once, at the first node that keeps them; blocks
// of `own` (parameters, the batch) are not counted.
struct Explanation {
  struct Row {
    std::string op;
    Shape shape;
    std::size_t kept_bytes;
  };
  std::vector<Row> rows;  // in order of recording, leaves left out
  std::size_t kept_bytes = 0;
  std::string text() const;
};
Explanation explain(const Tensor& y, const std::vector<Array>& own = {});

}  // namespace graft
