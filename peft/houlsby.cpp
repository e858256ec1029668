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
// The paper does not name f; its code uses GELU.
#include "peft/methods.h"

namespace graft {
namespace {

struct Houlsby : Adapter {
  Houlsby(Options& o, const Arch& arch)
      : Adapter("houlsby"),
        where(o.where("attn+mlp", arch)),
        m(o.integer("m", 64)),
        std(o.real("std", 0.01)),
        f(o.choice("f", "gelu", {"gelu", "relu", "tanh"})),
        norms(o.flag("norms", true)) {
    check(std >= 0, "houlsby: std={}; need at least 0", std);
    for (Part part : where.parts)
      check(part == Part::attn || part == Part::mlp || (part == Part::cross && arch.crosses()),
            "houlsby: on={}; need attn, mlp or attn+mlp{}", to_string(where.parts),
            arch.crosses() ? ", or cross" : "");
    for (const Arch& stack : arch.stacks())
      placed += where.count(stack.layers) * (where.has(Part::attn) + where.has(Part::mlp) +
                                             (stack.crosses() && where.has(Part::cross)));
    check(placed > 0, "houlsby: on={} in layers {}..{} is nowhere in this model",
          to_string(where.parts), where.first, where.last);
  }

  void attach(Model& model) override {
    const int d = model.arch().width;
    check(m <= d, "houlsby: m={} in a model of width {}; need m <= {}", m, d, d);
    for (Block* block : model.all_blocks()) {
      const auto [stack, layer, part] = block->norm1.site;
      if (layer < where.first || layer > where.last) continue;
      if (where.has(Part::attn)) add(model, {stack, layer, Part::attn}, block->attention.out);
      if (where.has(Part::cross) && block->cross)
        add(model, {stack, layer, Part::cross}, block->cross->out);
      if (where.has(Part::mlp)) add(model, {stack, layer, Part::mlp}, block->mlp.out);
    }
    if (norms) {
      for (Norm* norm : model.norms()) norm->each([&](Weight& w) { own(w); });
    }
  }

  void add(const Model& model, const Site& site, Slot<Tensor, Sub, Ctx>& slot) {
    const int d = model.arch().width;
    const Init init{Init::Kind::truncated, std}, zeros{};
    const Tensor down = param(model, site, "down.weight", {m, d}, init);
    const Tensor down_b = param(model, site, "down.bias", {m}, zeros, {.decay = false});
    const Tensor up = param(model, site, "up.weight", {d, m}, init);
    const Tensor up_b = param(model, site, "up.bias", {d}, zeros, {.decay = false});
    const Map map_of = f == "gelu" ? Map::gelu : f == "relu" ? Map::relu : Map::tanh;
    hold(site, slot.add("houlsby", [=](Tensor y, const Sub&, const Ctx&) {
      return y + linear(map(map_of, linear(y, down, down_b)), up, up_b);
    }));
  }

  std::int64_t formula(const Arch& a) const override {
    const std::int64_t d = a.width;
    std::int64_t count = placed * (2 * m * d + d + m);
    for (const Arch& stack : a.stacks())
      if (norms) count += stack.norms() * d * (a.rms ? 1 : 2);
    return count;
  }

  Where where;
  std::int64_t placed = 0;  // how many adapters
  int m;
  double std;
  std::string f;
  bool norms;
};

}  // namespace

std::unique_ptr<Adapter> make_houlsby(Options& o, const Arch& a) {
  return std::make_unique<Houlsby>(o, a);
}

}  // namespace graft
