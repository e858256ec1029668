// What a spec of prefix tuning says, and the keys and values that it comes to: read by the method
// (prefix.cpp) and by PEFT's folders (peft_prompts.cpp).
#pragma once

#include <functional>

#include "nn/parameter.h"
#include "peft/virtual_rows.h"

namespace graft {

struct PrefixOptions {
  PrefixOptions(Options&, const Arch&);
  // Whether an attention has a prefix.
  bool has(const Site& attention, const Arch&) const;

  Where where;
  std::vector<Stack> stacks;
  int length;
  bool mlp;
  int mid;
  std::string init;
  double std;
  std::vector<std::vector<std::int32_t>> tokens;  // of init=text
  bool shift;                                     // the text's positions begin at `length`
  bool infix;
};

// One attention's prefix as it is computed from what trains.
struct PrefixWeights {
  struct Map {
    Tensor w, b;
  };
  Tensor k, v;         // [P, d_kv], without the MLP
  Tensor embed;        // [P, d]
  Map in, k_of, v_of;  // [mid, d], [d_kv, mid]

  Tensor keys() const { return k.defined() ? k : through(k_of); }
  Tensor values() const { return v.defined() ? v : through(v_of); }

 private:
  Tensor through(const Map& out) const {
    return linear(tanh(linear(embed, in.w, in.b)), out.w, out.b);
  }
};

// Those of one attention, by the parameters' labels.
PrefixWeights prefix_weights(const PrefixOptions&, const Site& attention,
                             const std::function<Tensor(const std::string& label)>&);

}  // namespace graft
