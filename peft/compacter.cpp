// Compacter: bottleneck adapters whose matrices are sums of Kronecker products.
//
// Mahabadi et al. 2021 (2106.04647), section 3:   y' = y + U f(D y + b_D) + b_U,   D, U each
//     W = sum_{i=1..n} A_i (x) (s_i t_i^T),       A_i [n, n], s_i [out / n], t_i [in / n]
//
//     sub-layer ── y ──┬─────────────(+)── residual      slots: Attention::out and Mlp::out
//                      └── D ─ f ─ U ──┘
//
// Trains: s, t and the biases of each adapter; A, one for the whole model (the paper's slow
// weights), D and U alike; and the base's norms, as the paper counts them (norms=no leaves them).
// Count: n^3 + 3 (d + m) for each adapter, two in a layer, m = d / 32. T5-base: 114,112, and 47,616
// of norms. on=mlp is Compacter++.
// Start: near the base, not at it, as in the released code's configurations: A from N(0, 1e-4^2)
// (phm_init_range; 0.01 is the option's default alone), s and t as Glorot and Bengio have it with
// gain sqrt(2), uniform in +-sqrt(12 / (1 + their length)).
// Otherwise than in the released code: in T5 the adapter stands behind the sub-layer's dropout.
// Merge: none; f is not linear.
// W is never built: W x is t, A and s in turn, which costs less.
#include <cmath>

#include "peft/methods.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

struct Compacter : Adapter {
  Compacter(Options& o, const Arch& arch)
      : Adapter("compacter"),
        where(o.where("attn+mlp", arch)),
        n(o.integer("n", 4)),
        m(o.integer("m", std::max(arch.width / 32 / n * n, n))),
        f(o.choice("f", "gelu_tanh", {"gelu_tanh", "gelu", "relu", "silu", "tanh"})),
        norms(o.flag("norms", true)) {
    starts_as_base_ = false;
    for (Part part : where.parts)
      check(part == Part::attn || part == Part::mlp || (part == Part::cross && arch.crosses()),
            "compacter: on={}; need attn, mlp{} or several", to_string(where.parts),
            arch.crosses() ? ", cross" : "");
    check(m % n == 0 && arch.width % n == 0 && m <= arch.width,
          "compacter: n={}, m={} in a model of width {}; need n to divide both, and m <= {}", n, m,
          arch.width, arch.width);
  }

  // x[N, in] W^T. t gives n numbers of each n-th of x; these are mixed by A_i for t_i's alone; s
  // spreads them.
  Tensor product(const Tensor& x, const Tensor& mixer, const Tensor& s, const Tensor& t) const {
    const std::int64_t rows = x.dim(0);
    Tensor z = linear(reshape(x, {rows * n, x.dim(1) / n}), t);
    z = linear(reshape(z, {rows, n * n}), mixer);
    return reshape(matmul(reshape(z, {rows * n, n}), s), {rows, n * s.dim(1)});
  }

  // [(p, i), (q, j)]: A_i[p, q] where i = j. A is kept as [p, i, q].
  Tensor mixer(const Tensor& a) const {
    std::vector<double> same(static_cast<std::size_t>(n) * n);
    for (int i = 0; i < n; ++i) same[static_cast<std::size_t>(i * n + i)] = 1;
    const Tensor delta(Array::of(same, {n, 1, n}).to(a.kind()));
    return reshape(reshape(a, {n, n, n, 1}) * delta, {n * n, n * n});
  }

  struct Factors {
    Tensor s, t, bias;
  };
  Factors factors(const Model& model, const Site& site, const std::string& name, int in, int out) {
    const auto glorot = [&](int size) {
      return Init{Init::Kind::uniform, std::sqrt(12.0 / (1 + size / n))};
    };
    return {param(model, site, name + ".s", {n, out / n}, glorot(out)),
            param(model, site, name + ".t", {n, in / n}, glorot(in)),
            param(model, site, name + ".bias", {out}, {}, {.decay = false})};
  }

  void attach(Model& model) override {
    const int d = model.arch().width;
    const Tensor a = param(model, {model.arch().stack, -1, Part::block}, "compacter_A", {n, n, n},
                           {Init::Kind::normal, 1e-4});
    const Map map_f = f == "gelu"   ? Map::gelu
                      : f == "relu" ? Map::relu
                      : f == "silu" ? Map::silu
                      : f == "tanh" ? Map::tanh
                                    : Map::gelu_tanh;
    const auto add = [&](const Site& site, auto& slot) {
      if (!where.has(site, site.layer + 1)) return;
      const Factors down = factors(model, site, "down", d, m),
                    up = factors(model, site, "up", m, d);
      hold(site, slot.add("compacter", [=, this](const Tensor& y, const Sub&, const Ctx&) {
        const Tensor mix = mixer(a);
        const Tensor h = map(map_f, product(y, mix, down.s, down.t) + down.bias);
        return y + product(h, mix, up.s, up.t) + up.bias;
      }));
    };
    for (Block* block : model.all_blocks()) {
      const auto [stack, layer, part] = block->norm1.site;
      add({stack, layer, Part::attn}, block->attention.out);
      if (block->cross) add({stack, layer, Part::cross}, block->cross->out);
      add({stack, layer, Part::mlp}, block->mlp.out);
    }
    if (norms)
      for (Norm* norm : model.norms()) norm->each([&](Weight& w) { own(w); });
  }

  std::int64_t formula(const Arch& arch) const override {
    std::int64_t count = std::int64_t{n} * n * n;
    for (const Arch& stack : arch.stacks()) {
      for (Part part : where.parts)
        count += count_of(where, stack, part) * 3 * (std::int64_t{arch.width} + m);
      if (norms) count += stack.norms() * norm_size(stack);
    }
    return count;
  }

  Where where;
  int n, m;
  std::string f;
  bool norms;
};

}  // namespace

std::unique_ptr<Adapter> make_compacter(Options& o, const Arch& a) {
  return std::make_unique<Compacter>(o, a);
}

}  // namespace graft
