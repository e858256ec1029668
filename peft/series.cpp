// Bottleneck adapters of LLMs, in series with a sub-layer or with single matrices.
//
// Hu et al. 2023 (LLM-Adapters, 2304.01933), equation 3:  H <- H + f(H W_down) W_up, without
// biases, after the feed-forward, which they find the best place. Its parallel form, equation 4, is
// `parallel:m=256,f=tanh,s=1,bias=no`, or on single linears with on=q+k+v+up and the like.
//
//     sub-layer ── H ──┬─────────────────────────(+)──          slots: Mlp::out, Attention::out;
//                      └── W_down ─ f ─ W_up ──────┘                   Linear::out
//
// Trains: the adapters. Count: 2 m d for each. Start: N(0, 0.02). Cannot be merged.
// The released code puts one on each linear of the feed-forward instead: in front of gate and up,
// behind down. That is `series:on=gate+up,place=before|series:on=down`.
#include "peft/bottleneck.h"
#include "peft/methods.h"

namespace graft {

const BottleneckForm kSeries{
    .method = "series", .m = 256, .f = "tanh", .init = "normal", .bias = false, .linears = true};

std::unique_ptr<Adapter> make_series(Options& o, const Arch& a) {
  return make_bottleneck(o, a, kSeries);
}

}  // namespace graft
