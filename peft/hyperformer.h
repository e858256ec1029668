// What a spec of HyperFormer or HyperFormer++ says, and the hypernetworks that write an adapter for
// a task, a layer and a place: read by hyperformer.cpp.
#pragma once

#include <optional>

#include "peft/adapter.h"

namespace graft {

struct HyperOptions {
  // Whose adapters one set of hypernetworks writes.
  enum class Sharing { none, layers, all };

  HyperOptions(Options&, const Arch&, bool plus);

  Where where;
  Sharing sharing;
  int tasks, fresh;        // embeddings of the tasks so far; of those that came after them
  std::optional<int> use;  // the task of texts that do not say theirs
  bool described;
  int described_by;                       // so many examples of each task, or
  std::vector<std::int32_t> description;  // one task's description
  int t, hidden, i, m;
  Map f;
  double std;
  bool conditional, norms;

  bool frozen() const { return fresh > 0; }  // all but the new tasks' embeddings
  std::vector<Part> parts_of(const Arch& stack) const;
};

// A linear layer; as a hypernetwork, one row of its output is one tensor of an adapter.
struct HyperLayer {
  Tensor w, b;
  Tensor operator()(const Tensor& x) const { return linear(x, w, b); }
  Tensor write(const Tensor& code, Shape shape) const {
    return reshape((*this)(code), std::move(shape));
  }
};

// The set that writes whole adapters of code I [1, i].
struct HyperSet {
  HyperLayer down, down_b, up, up_b, gain, bias;
  // y + LN(U f(D y)), all six of them written.
  Tensor operator()(const Tensor& y, const Tensor& code, const HyperOptions&, int width) const;
};

// h_I: what is known of a place, [1, t], [1, 2t] or [1, 3t], to its code I [1, i].
struct Projector {
  HyperLayer in, out;
  Tensor gain, bias;  // of the norm after it, in the shared forms
  Tensor operator()(const Tensor& known) const;
};

}  // namespace graft
