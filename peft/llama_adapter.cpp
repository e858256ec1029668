// LLaMA-Adapter: prompts that the upper layers attend to through a gate.
//
// Zhang et al. 2023 (2303.16199), equations 2 to 8:  with a prompt P_l [K, d] for each of the upper
// L layers, K_P = W_k P_l and V_P = W_v P_l,
//     y = W_o (softmax(q K^T / sqrt(d_h)) V + g_l softmax(q K_P^T / sqrt(d_h)) V_P).
//
//     text's K, V ── softmax ───────(+)── o ── y        slot: Attention::banks, with a gate
//     P ─ W_k, W_v ─ softmax ─ g_l ──┘
//
// Trains: P and g.   Count: K d + heads for each layer (gate=linear: K d + 1).
// Start: P from N(0, 1) and g = 0, so the first output is the base's, bit for bit.
// Positions: none on the prompt's keys; the text's stay as they are. Merge: no.
// Where sources disagree: gate=tanh (default) is tanh(g), one g for each head, as the paper's text
// and its code have it; gate=linear is PEFT's, one number for a layer, as it is. The paper prints
// sqrt(C) for sqrt(d_h), a slip: the text's own attention would change. What its ablation's "rand
// init" is, it does not say: init=random draws g from N(0, 1); gate=none has no gate, the prompt's
// keys join the text's softmax.
// The paper's 7B model has 32 layers and prompts in layers=top30. An encoder-decoder has them in
// both stacks' attention to themselves. W_k and W_v are the matrices as they stand, without what
// other methods add to their outputs.
#include "peft/methods.h"

namespace graft {
namespace {

struct LlamaAdapter : Adapter {
  LlamaAdapter(Options& o, const Arch& arch)
      : Adapter("llama_adapter"),
        layers(o.layers(arch)),
        length(o.integer("length", 10)),
        gate(o.choice("gate", "tanh", {"tanh", "linear", "none"})),
        random(o.choice("init", "zero", {"zero", "random"}) == "random") {
    no_merge_ = "it gives attention keys and values of its own, which is no change of a weight";
    check(gate != "none" || !o.has("init"),
          "llama_adapter: init= with gate=none; it says how the gate starts");
    starts_as_base_ = !random && gate != "none";
  }

  void attach(Model& m) override {
    for (Block* block : m.all_blocks()) {
      const auto [stack, layer, part] = block->norm1.site;
      if (layer >= layers.first && layer <= layers.last)
        add(m, {stack, layer, Part::attn}, block->attention);
    }
  }

  void add(const Model& m, const Site& site, Attention& attention) {
    const int heads = m.arch().heads, dh = m.arch().head_width();
    const Tensor p = param(m, site, "prompt", {length, m.arch().width}, {Init::Kind::normal, 1});
    Tensor g;
    if (gate != "none")
      g = param(m, site, "gate", {gate == "tanh" ? heads : 1},
                {random ? Init::Kind::normal : Init::Kind::zeros, 1}, {.decay = false});
    const Tensor ones(m.build().storage ? Array::full({1, dh}, 1, m.build().kind()) : Array());
    const bool per_head = gate == "tanh";
    hold(site, attention.banks.add("llama_adapter", [=, k = &attention.k, v = &attention.v](
                                                        Attn a, const Ctx&) {
      const Tensor by = per_head ? reshape(reshape(tanh(g), {heads, 1}) * ones, {heads * dh}) : g;
      a.banks.push_back(
          {linear(p, k->w.value(), k->b.value()), linear(p, v->w.value(), v->b.value()), by});
      return a;
    }));
  }

  std::int64_t formula(const Arch& a) const override {
    std::int64_t n = 0;
    for (const Arch& stack : a.stacks()) n += layers.count(stack.layers);
    return n * (std::int64_t{length} * a.width + (gate == "tanh"     ? a.heads
                                                  : gate == "linear" ? 1
                                                                     : 0));
  }

  Where layers;
  int length;
  std::string gate;
  bool random;
};

}  // namespace

std::unique_ptr<Adapter> make_llama_adapter(Options& o, const Arch& a) {
  return std::make_unique<LlamaAdapter>(o, a);
}

}  // namespace graft
