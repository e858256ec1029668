// (IA)3: activations times learned vectors.
//
// Liu et al. 2022 (2205.05638), section 3.3:
//     softmax(q (l_k * k)^T / sqrt(dh)) (l_v * v)        (l_ff * f(W1 x)) W2
//
//     x ── W_k ──(*)── l_k        x ── W_up ─ f ──(*)── W_down        slots: Linear::out of k, v;
//     x ── W_v ──(*)── l_v                        l_ff                       Mlp::hidden
//
// Trains: one number for each feature of keys, values and of what enters the feed-forward's second
// matrix; `on=` names others: a linear's whole output is scaled, and `down` stands for l_ff.
// Of an encoder-decoder the attention across is scaled, too (xk, xv).
// Count: the linears' outputs, and hidden for `down`; 2 d_kv + d_ff a layer.
// Start: ones, the base bit for bit. Merge: rows of W and b, or the columns of W_down, times l.
// With rotary positions keys are scaled before they are rotated, as PEFT does, so that it merges;
// the paper's T5 has none.
#include "peft/methods.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

struct Ia3 : Adapter {
  Ia3(Options& o, const Arch& arch)
      : Adapter("ia3"), where(o.where(arch.crosses() ? "k+v+xk+xv+down" : "k+v+down", arch)) {}

  void attach(Model& m) override {
    for (Linear* l : m.linears(where)) {
      if (l->site.part == Part::down) continue;  // below: what enters it
      const Tensor scale = vector_for(m, *l, l->out_width());
      const EditBase* edit =
          hold(l->site,
               l->out.add("ia3", [=](Tensor y, const Tensor&, const Ctx&) { return y * scale; }));
      scaled.push_back({l, scale, edit});
    }
    if (!where.has(Part::down)) return;
    for (Block* block : m.all_blocks()) {
      Linear& down = block->mlp.down;
      if (down.site.layer < where.first || down.site.layer > where.last) continue;
      const Tensor scale = vector_for(m, down, down.in());
      const EditBase* edit = hold(
          down.site, block->mlp.hidden.add("ia3", [=](Tensor h, const Ctx&) { return h * scale; }));
      scaled.push_back({&down, scale, edit});
    }
  }

  Tensor vector_for(const Model& m, const Linear& l, int width) {
    return param(m, l.site, "ia3_l", {width}, {Init::Kind::ones, 1}, {.decay = false});
  }

  std::int64_t formula(const Arch& a) const override {
    std::int64_t count = 0;
    for (const Arch& stack : a.stacks())
      for (Part part : where.parts)
        count += count_of(where, stack, part) *
                 (part == Part::down ? shape_of(a, part).in : shape_of(a, part).out);
    return count;
  }

  bool scales_input(const Site& site) const override {
    return site.part == Part::down && where.has(site.part) && site.layer >= where.first &&
           site.layer <= where.last;
  }

  // What `weight` holds, times l along its rows (or columns), in its place.
  void put_scaled(Weight& weight, const Tensor& scale) {
    cover(weight, Tensor((Tensor(weight.value().value().own_copy()) * scale.detach()).value()));
  }

  void merge() override {
    check(!merged_, "ia3: it is merged already");
    for (auto& [l, scale, edit] : scaled) {
      if (!edit->enabled) continue;
      const bool input = l->site.part == Part::down;
      put_scaled(l->w, input ? scale : reshape(scale.detach(), {l->out_width(), 1}));
      if (l->b && !input) put_scaled(l->b, scale);
    }
    edits_off();
    merged_ = true;
  }

  Change change() const override { return Change::scales; }

  struct Scaled {
    Linear* linear;
    Tensor scale;
    const EditBase* edit;
  };
  Where where;
  std::vector<Scaled> scaled;
};

}  // namespace

std::unique_ptr<Adapter> make_ia3(Options& o, const Arch& a) { return std::make_unique<Ia3>(o, a); }

}  // namespace graft
