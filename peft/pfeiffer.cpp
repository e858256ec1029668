// One bottleneck adapter in a layer, after the feed-forward, reading what the norm gives.
//
// Pfeiffer et al. 2021 (AdapterFusion, 2005.00247), the placement that their search ends at, as
// their AdapterHub computes it:  y' = y + W_up f(W_down z + b_down) + b_up.
//
//     h ──┬── feed-forward ── y ──┬─────────────────────────────(+)──(+)── norm     slot: Mlp::out
//         │                       │                              │    │
//         ├──────────────────────(+)─ norm ─ z ─ W_down ─ f ─ W_up    │
//         └───────────────────────────────────────────────────────────┘
//
// z = norm2(y + h), by the block's own norm, which is used twice; in a pre-norm model there is none
// to use and z = y + h. The skip around the bottleneck is y, not z.
//
// Trains: the adapters. Count: 2 m d + d + m for each, one in a layer; m = d / 16.
// Start: near the identity: weights from N(0, 0.02), biases 0; f is ReLU. Cannot be merged.
#include "peft/bottleneck.h"
#include "peft/methods.h"

namespace graft {

const BottleneckForm kPfeiffer{
    .method = "pfeiffer", .reduction = 16, .place = "joined", .f = "relu", .init = "normal"};

std::unique_ptr<Adapter> make_pfeiffer(Options& o, const Arch& a) {
  return make_bottleneck(o, a, kPfeiffer);
}

}  // namespace graft
