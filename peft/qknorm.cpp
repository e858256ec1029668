// QKNorm: attention by the angle between queries and keys.
//
// Henry et al. 2020 (2010.04245), equation 4:  with q^ = q / |q| and k^ = k / |k| of each head,
//     Attn = softmax(g q^ k^T) V,   g learned, one for each attention, from g0 = log2(L^2 - L),
// L the 97.5th percentile of the training sequences' lengths; g stands in the place of 1/sqrt(d_h).
//
//     q, k ─ q + a (q^ g sqrt(d_h) - q), k + a (k^ - k) ─ softmax ─ V      slot: Attention::banks
//
// Trains: g and, with gate=learned, a.   Count: 2 for each attention; gate=one: 1.
// Start: a = 0, the base's attention bit for bit; at a = 1 it is the paper's. gate=one has the
// paper's from the first step: for bases that are trained with it (`full|qknorm:gate=one`).
// Merge: no. Deviation: the gate is ours, so that a trained base can go over to it.
// length=L gives g0, 72 (the paper's English-Vietnamese) if nothing is said; length=data takes L
// from the task's first 1000 training texts. learn=no keeps g at g0. Norms do not change under a
// rotation, so rotary positions may come before; a bias by place is added to the scores as it is.
#include <algorithm>
#include <cmath>

#include "peft/methods.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

constexpr double kEps = 1e-12;  // under the root

double start_of(int length) { return std::log2(double(length) * length - length); }

// x / |x| of each head's part of rows [N, heads dh].
Tensor unit(const Tensor& x, std::int64_t dh) {
  const Tensor gain(Array::full({dh}, 1 / std::sqrt(double(dh)), x.kind()));
  return reshape(rms_norm(reshape(x, {x.numel() / dh, dh}), gain, kEps), x.shape());
}

struct QkNorm : Adapter {
  QkNorm(Options& o, const Arch& arch)
      : Adapter("qknorm"),
        where(o.where("attn", arch)),
        from_data(o.text("length", "72") == "data"),
        length(from_data ? 72 : o.integer("length", 72, 2)),
        gated(o.choice("gate", "learned", {"learned", "one"}) == "learned"),
        learned(o.flag("learn", true)) {
    starts_as_base_ = gated;
    no_merge_ = "it divides queries and keys by their lengths, which no matrix does";
    check(gated || learned, "qknorm: gate=one,learn=no leaves nothing to train");
    std::int64_t placed = 0;
    for (Part part : where.parts) {
      check(part == Part::attn || (part == Part::cross && arch.crosses()),
            "qknorm: on={}; need attn{}", to_string(where.parts),
            arch.crosses() ? ", cross or both" : "");
      for (const Arch& stack : arch.stacks()) placed += count_of(where, stack, part);
    }
    check(placed > 0, "qknorm: on={} in layers {}..{} is nowhere in this model",
          to_string(where.parts), where.first, where.last);
  }

  void attach(Model& m) override {
    for (Block* block : m.all_blocks()) {
      const auto [stack, layer, part] = block->norm1.site;
      if (layer < where.first || layer > where.last) continue;
      if (where.has(Part::attn)) add_to(m, {stack, layer, Part::attn}, block->attention);
      if (where.has(Part::cross) && block->cross)
        add_to(m, {stack, layer, Part::cross}, *block->cross);
    }
  }

  void add_to(const Model& m, const Site& site, Attention& attention) {
    const Init one{Init::Kind::ones, 1}, zero{Init::Kind::zeros, 0};
    Tensor g = param(m, site, "g", {1}, one,
                     {.decay = false,
                      .trains = learned,
                      .start = from_data ? "log2(L^2 - L) of the task's lengths L"
                                         : fmt::format("{:.4g}", start_of(length))});
    if (m.build().storage) g.value().fill(start_of(length));
    scales.push_back(g);
    Tensor a;
    if (gated) a = param(m, site, "gate", {1}, zero, {.decay = false});
    hold(site, attention.banks.add(
                   "qknorm", [g, a, dh = std::int64_t{m.arch().head_width()}](Attn x, const Ctx&) {
                     const auto towards = [&a](const Tensor& from, const Tensor& to) {
                       return a.defined() ? from + a * (to - from) : to;
                     };
                     x.q = towards(x.q, (1 / x.scale) * (g * unit(x.q, dh)));
                     if (x.k.defined()) x.k = towards(x.k, unit(x.k, dh));  // else a cache has them
                     return x;
                   }));
  }

  int examples() const override { return from_data ? 1000 : 0; }

  void calibrate(const Model&, const std::vector<Batch>& of_tasks) override {
    if (!from_data) return;
    std::vector<int> lengths;
    for (const Batch& batch : of_tasks) {
      const Batch& read = batch.source ? *batch.source : batch;
      lengths.insert(lengths.end(), read.length.begin(), read.length.end());
    }
    check(!lengths.empty(), "qknorm: length=data, and there are no texts");
    std::ranges::sort(lengths);
    const auto at = static_cast<std::size_t>(std::ceil(0.975 * double(lengths.size()))) - 1;
    for (Tensor& g : scales) g.value().fill(start_of(std::max(2, lengths[at])));
  }

  std::int64_t formula(const Arch& arch) const override {
    std::int64_t n = 0;
    for (const Arch& stack : arch.stacks())
      for (Part part : where.parts) n += count_of(where, stack, part);
    return n * (int{gated} + int{learned});
  }

  Where where;
  bool from_data;
  int length;
  bool gated, learned;
  std::vector<Tensor> scales;
};

}  // namespace

std::unique_ptr<Adapter> make_qknorm(Options& o, const Arch& a) {
  return std::make_unique<QkNorm>(o, a);
}

}  // namespace graft
