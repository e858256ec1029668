// Methods that add nothing and train a part of the base itself, in private copies.
//
//   head       the task's head alone; the base is a fixed encoder of text.
//   full       every parameter: what all other methods are compared with. The head over the
//              vocabulary is part of it with vocabulary=yes, for language modelling and cloze
//              heads; a task with a head of its own never reads it.
//   top        the k uppermost blocks (an encoder-decoder's: the decoder's) and the final norm
//   (Houlsby et al. 2019, section 3.4, where
//              fine-tuning the top layers is the baseline at equal size).
//   bitfit     every bias of the blocks and norms (Ben Zaken et al. 2021, 2106.10199).
//   layernorm  every norm's gain and bias (Houlsby et al. 2019, section 3.4).
//
// Start: the base, bit for bit. Merge: the copies stand in the base's place already.
#include <algorithm>

#include "peft/methods.h"

namespace graft {
namespace {

std::int64_t norm_size(const Arch& a) { return a.width * (a.rms ? 1 : 2); }
// What a block has: q k v o up down (gate), and xq xk xv xo in a decoder that reads an encoder.
std::int64_t linear_biases(const Arch& a) {
  if (!a.biases) return 0;
  const std::int64_t inner = std::int64_t{a.heads} * a.head_width(),
                     kv = std::int64_t{a.kv_heads} * a.head_width();
  return (1 + a.crosses()) * (inner + 2 * kv + a.width) + a.width + a.hidden * (a.gated ? 2 : 1);
}
std::int64_t block_norms(const Arch& a) { return (2 + a.crosses()) * norm_size(a); }
std::int64_t block_size(const Arch& a) {
  const std::int64_t d = a.width, inner = std::int64_t{a.heads} * a.head_width(),
                     kv = std::int64_t{a.kv_heads} * a.head_width();
  return (1 + a.crosses()) * 2 * d * (inner + kv) + (a.gated ? 3 : 2) * d * a.hidden +
         linear_biases(a) + block_norms(a);
}

struct HeadOnly : Adapter {
  HeadOnly(Options&, const Arch&) : Adapter("head") {}
  void attach(Model&) override {}
  std::int64_t formula(const Arch&) const override { return 0; }
};

struct Full : Adapter {
  Full(Options& o, const Arch&)
      : Adapter("full"),
        embeddings(o.flag("embeddings", true)),
        vocabulary(o.flag("vocabulary", false)) {}
  void attach(Model& m) override {
    if (m.encoder) attach_stack(*m.encoder);
    attach_stack(m);
    if (!vocabulary) return;
    if (m.lm_dense) m.lm_dense->each([&](Weight& w) { own(w); });
    if (m.lm_norm) m.lm_norm->each([&](Weight& w) { own(w); });
    if (m.lm_bias) own(m.lm_bias);
    if (m.lm_head) m.lm_head->each([&](Weight& w) { own(w); });
  }
  void attach_stack(Model& m) {
    const auto all = [&](Weight& w) { own(w); };
    if (embeddings) m.embedding.each(all);
    if (m.relative) all(m.relative->table);
    for (auto& block : m.blocks) block->each(all);
    if (m.final_norm) m.final_norm->each(all);
  }
  std::int64_t formula(const Arch& a) const override {
    const std::int64_t d = a.width;
    std::int64_t n = 0;
    for (const Arch& stack : a.stacks())
      n += stack.layers * block_size(stack) + a.final_norm * norm_size(a) +
           std::int64_t{a.relative_buckets} * a.heads;
    if (embeddings)
      n += a.vocab * d + a.learned_positions * (a.positions + a.position_offset) * d +
           a.token_types * d + a.embed_norm * norm_size(a);
    if (vocabulary)
      n += a.lm_transform * (d * d + d + norm_size(a)) + a.lm_bias * std::int64_t{a.vocab} +
           (a.lm && !a.tied) * std::int64_t{a.vocab} * d;
    return n;
  }
  bool embeddings, vocabulary;
};

struct Top : Adapter {
  Top(Options& o, const Arch& a) : Adapter("top"), k(o.integer("k", 1)) {
    check(k <= a.layers, "top: k={}; the model has {} layers", k, a.layers);
  }
  void attach(Model& m) override {
    for (int i = m.arch().layers - k; i < m.arch().layers; ++i)
      m.blocks[i]->each([&](Weight& w) { own(w); });
    if (m.final_norm) m.final_norm->each([&](Weight& w) { own(w); });
  }
  std::int64_t formula(const Arch& a) const override {
    return k * block_size(a) + a.final_norm * norm_size(a);
  }
  int k;
};

struct BitFit : Adapter {
  BitFit(Options& o, const Arch& a) : Adapter("bitfit"), where(o.layers(a)) {
    check(a.biases || !a.rms, "bitfit: this model has no biases");
  }
  void attach(Model& m) override {
    const auto bias = [&](Weight& w) {
      if (w.parameter().name == "bias") own(w);
    };
    if (m.encoder) attach_stack(*m.encoder, bias);
    attach_stack(m, bias);
  }
  void attach_stack(Model& m, const EachWeight& bias) {
    const int layers = m.arch().layers;
    for (int i = where.first; i <= std::min(where.last, layers - 1); ++i) m.blocks[i]->each(bias);
    if (where.first == 0 && m.embedding.norm) m.embedding.norm->each(bias);
    if (where.last >= layers - 1 && m.final_norm) m.final_norm->each(bias);
  }
  std::int64_t formula(const Arch& a) const override {
    const std::int64_t norm = a.rms ? 0 : a.width;
    std::int64_t n = 0;
    for (const Arch& stack : a.stacks())
      n += where.count(stack.layers) * (linear_biases(stack) + (2 + stack.crosses()) * norm) +
           (where.first == 0 && a.embed_norm ? norm : 0) +
           (where.last >= stack.layers - 1 && a.final_norm ? norm : 0);
    return n;
  }
  Where where;
};

struct LayerNormOnly : Adapter {
  LayerNormOnly(Options&, const Arch&) : Adapter("layernorm") {}
  void attach(Model& m) override {
    for (Norm* norm : m.norms()) norm->each([&](Weight& w) { own(w); });
  }
  std::int64_t formula(const Arch& a) const override {
    std::int64_t n = 0;
    for (const Arch& stack : a.stacks()) n += stack.norms() * norm_size(a);
    return n;
  }
};

}  // namespace

std::unique_ptr<Adapter> make_head(Options& o, const Arch& a) {
  return std::make_unique<HeadOnly>(o, a);
}
std::unique_ptr<Adapter> make_full(Options& o, const Arch& a) {
  return std::make_unique<Full>(o, a);
}
std::unique_ptr<Adapter> make_top(Options& o, const Arch& a) { return std::make_unique<Top>(o, a); }
std::unique_ptr<Adapter> make_bitfit(Options& o, const Arch& a) {
  return std::make_unique<BitFit>(o, a);
}
std::unique_ptr<Adapter> make_layernorm(Options& o, const Arch& a) {
  return std::make_unique<LayerNormOnly>(o, a);
}

}  // namespace graft
