// Methods that add nothing and train a part of the base itself, in private copies.
//
//   head       the task's head alone; the base is a fixed encoder of text.
//   full       every parameter: what all other methods are compared with. The head over the
//              vocabulary is part of it with vocabulary=yes, for language modelling and cloze
//              heads; a task with a head of its own never reads it.
//   top        the k uppermost blocks (an encoder-decoder's: the decoder's) and the final norm
//              (Houlsby et al. 2019, section 3.4, where fine-tuning the top layers is the baseline
//              at equal size).
//   bitfit     every bias of the blocks and norms (Ben Zaken et al. 2021, 2106.10199); on=q+up are
//              those that the paper finds to be almost as good, of queries and intermediate layers.
//              BERT's bias for pooling, 1/134 of the paper's count, is its head's here.
//   layernorm  every norm's gain and bias (Houlsby et al. 2019, section 3.4; Zhao et al. 2023,
//              2312.11420), or those of on=norm1+norm_out and the like.
//
// Start: the base, bit for bit. Merge: the copies stand in the base's place already.
#include <algorithm>

#include "peft/methods.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

// What a block has: q k v o up down (gate), and xq xk xv xo in a decoder that reads an encoder.
std::int64_t linear_biases(const Arch& a) {
  if (!a.biases) return 0;
  const std::int64_t inner = std::int64_t{a.heads} * a.head_width(),
                     kv = std::int64_t{a.kv_heads} * a.head_width();
  if (a.qkv_biases_alone) return inner + 2 * kv;
  return (1 + a.crosses()) * (inner + 2 * kv + a.width) + a.width + a.hidden * (a.gated ? 2 : 1);
}
std::int64_t block_norms(const Arch& a) {
  return (2 + a.crosses()) * norm_size(a) + a.head_norms * 2 * std::int64_t{a.head_width()};
}
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

// Parts and layers of norms and linears, of which some parameters train. `on=all`: `all_parts`.
struct Chosen : Adapter {
  Chosen(const std::string& name, Options& o, const Arch& a, const std::vector<Part>& all_parts)
      : Adapter(name), where(o.layers(a)) {
    const std::string on = o.text("on", "all");
    where.parts = all_parts;
    try {
      if (on != "all") where.parts = parts_named(on);
    } catch (const Error& e) {
      fail("{}: on={}: {}", name, on, e.what());
    }
    for (Part part : where.parts)
      check(std::ranges::count(all_parts, part) > 0, "{}: on={}: this model has {}", name, on,
            to_string(all_parts));
  }
  // Whether `part` is outside the blocks and in the range, or in a block of the range.
  bool takes(const Site& site, int layers) const {
    if (!where.has(site.part)) return false;
    if (site.part == Part::norm_embed) return where.first == 0;
    if (site.part == Part::norm_out) return where.last >= layers - 1;
    return site.layer >= where.first && site.layer <= where.last;
  }
  Where where;
};

std::vector<Part> biased_parts(const Arch& a) {
  std::vector<Part> parts;
  for (Part part : linear_parts(a))
    if (a.biased(part)) parts.push_back(part);
  if (!a.rms) std::ranges::copy(norm_parts(a), std::back_inserter(parts));
  check(!parts.empty(), "bitfit: this model has no biases");
  return parts;
}

struct BitFit : Chosen {
  BitFit(Options& o, const Arch& a) : Chosen("bitfit", o, a, biased_parts(a)) {}
  void attach(Model& m) override {
    if (m.encoder) attach_stack(*m.encoder);
    attach_stack(m);
  }
  void attach_stack(Model& m) {
    const auto bias = [&](Weight& w) {
      const Parameter& p = w.parameter();
      if (p.name == "bias" && takes(p.site, m.arch().layers)) own(w);
    };
    for (auto& block : m.blocks) block->each(bias);
    if (m.embedding.norm) m.embedding.norm->each(bias);
    if (m.final_norm) m.final_norm->each(bias);
  }
  std::int64_t formula(const Arch& a) const override {
    std::int64_t n = 0;
    for (const Arch& stack : a.stacks())
      for (Part part : where.parts)
        n += is_norm(part) ? norms_of(where, stack, part) * stack.width
                           : count_of(where, stack, part) * shape_of(stack, part).out;
    return n;
  }
};

struct LayerNormOnly : Chosen {
  LayerNormOnly(Options& o, const Arch& a) : Chosen("layernorm", o, a, norm_parts(a)) {}
  void attach(Model& m) override {
    const int layers = m.arch().layers, below = m.arch().encoder_layers;
    for (Norm* norm : m.norms()) {
      const bool encoder = below > 0 && norm->site.stack == Stack::encoder;
      if (takes(norm->site, encoder ? below : layers)) norm->each([&](Weight& w) { own(w); });
    }
  }
  std::int64_t formula(const Arch& a) const override {
    std::int64_t n = 0;
    for (const Arch& stack : a.stacks())
      for (Part part : where.parts) n += norms_of(where, stack, part) * norm_size(stack);
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
