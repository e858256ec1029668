// Bottleneck adapters after both sub-layers.
//
// Houlsby et al. 2019 (1902.00751), section 2.1:  A(y) = y + W_up f(W_down y + b_down) + b_up,
// on a sub-layer's output y after its projection, before it joins the residual.
//
//     sub-layer ── y ──┬─────────────────────────(+)── residual     slots: Attention::out, Mlp::out
//                      └── W_down ─ f ─ W_up ──────┘
//
// Trains: the adapters and, as in the paper, every norm's gain and bias (norms=no leaves them).
// Count: 2 m d + d + m for each adapter (two in a layer), and the norms.
// Start: near the identity, not at it: weights from a Gaussian of std 0.01 cut at two deviations,
// biases 0. The released code's std is 1e-3 (std=0.001). Cannot be merged: f is not linear.
// The paper does not name f; its code uses GELU, AdapterHub's configuration of that name SiLU.
#include "peft/bottleneck.h"
#include "peft/methods.h"

namespace graft {

const BottleneckForm kHoulsby{.method = "houlsby", .on = "attn+mlp", .norms = true};

std::unique_ptr<Adapter> make_houlsby(Options& o, const Arch& a) {
  return make_bottleneck(o, a, kHoulsby);
}

}  // namespace graft
