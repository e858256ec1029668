// A scaled bottleneck adapter beside the feed-forward.
//
// He et al. 2022 (2110.04366), table 1 and section 4.6:  h' = h + s f(x W_down) W_up, x what the
// sub-layer reads; s = 4, or trained (s=learned) from 1.
//
//     x ──┬── feed-forward ── y ──(+)── residual          slots: Mlp::out, Attention::out
//         └── W_down ─ f ─ W_up ───┘ s
//
// Trains: the adapters. Count: 2 m d + d + m for each, one in a layer (+ 1 if s trains); m = d / 2,
// as 512 in the paper's models of width 1024.
// Start: the base, bit for bit: W_down uniform in +-1/sqrt(d) as LoRA's released A, W_up and the
// biases 0. Cannot be merged: f is not linear.
// In a pre-norm model x is behind the norm, as everything that the sub-layer reads; AdapterHub
// takes the residual stream before it: place=residual. The paper's code has dropout after f, here
// dropout= is that of the result, as in AdapterHub.
#include "peft/bottleneck.h"
#include "peft/methods.h"

namespace graft {

const BottleneckForm kParallel{.method = "parallel",
                               .reduction = 2,
                               .place = "parallel",
                               .f = "relu",
                               .init = "mam",
                               .s = 4,
                               .linears = true};

std::unique_ptr<Adapter> make_parallel(Options& o, const Arch& a) {
  return make_bottleneck(o, a, kParallel);
}

}  // namespace graft
