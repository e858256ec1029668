// LoRA: a low-rank update beside a frozen matrix.
//
// Hu et al. 2021 (2106.09685), eq. 3:  h = W0 x + (alpha / r) B A x,  A [r, in], B [out, r].
//
//     x ──┬── W0 ────────────(+)── h        slot: Linear::out of the chosen matrices
//         └── dropout ─ A ─ B ─┘ alpha/r
//
// Trains: A and B.   Count: r (in + out) for each matrix.
// Start: B = 0, so the first output is the base's, bit for bit; A is Gaussian.
// Merge: W0 + (alpha / r) B A in W0's place, in f32 whatever W0 is stored in.
// Where sources disagree: the paper draws A from a Gaussian without naming its variance, the
// released code from U(-1/sqrt(in), 1/sqrt(in)). init=gaussian (default) has that uniform's
// variance, 1/(3 in): our choice; init=kaiming is the code's. scale=rs divides by sqrt(r)
// (Kalajdzievski 2023).
#include "peft/lora.h"

#include <cmath>

#include "peft/methods.h"

namespace graft {

LoraOptions::LoraOptions(Options& o, const Arch& arch)
    : where(o.where("q+v", arch)),
      r(o.integer("r", 8)),
      alpha(o.real("alpha", r)),
      dropout_rate(o.real("dropout", 0)),
      kaiming(o.choice("init", "gaussian", {"gaussian", "kaiming"}) == "kaiming"),
      rank_stabilised(o.choice("scale", "plain", {"plain", "rs"}) == "rs") {
  check(0 <= dropout_rate && dropout_rate < 1, "lora: dropout={}; need 0 <= dropout < 1",
        dropout_rate);
}

double LoraOptions::scale() const {
  return alpha / (rank_stabilised ? std::sqrt(double(r)) : double(r));
}

namespace {

struct Lora : Adapter, LoraOptions {
  Lora(Options& o, const Arch& arch) : Adapter("lora"), LoraOptions(o, arch) {}

  void attach(Model& m) override {
    for (Linear* l : m.linears(where)) {
      check(r <= std::min(l->in(), l->out_width()),
            "lora: r={} on {}, a {} x {} matrix; need r <= {}", r, to_string(l->site),
            l->out_width(), l->in(), std::min(l->in(), l->out_width()));
      const double k = l->in();
      const Init init = kaiming ? Init{Init::Kind::uniform, 1 / std::sqrt(k)}
                                : Init{Init::Kind::normal, 1 / std::sqrt(3 * k)};
      const Tensor a = param(m, l->site, "lora_A", {r, l->in()}, init);
      const Tensor b = param(m, l->site, "lora_B", {l->out_width(), r}, {Init::Kind::zeros, 0});
      const std::uint32_t noise = stream_id((to_string(l->site) + "/lora dropout").c_str());
      hold(l->site, l->out.add("lora", [=, p = dropout_rate, s = scale()](Tensor y, const Tensor& x,
                                                                          const Ctx& ctx) {
        const Tensor in = ctx.train ? dropout(x, p, {ctx.key, noise}, ctx.address) : x;
        return add_linear(std::move(y), linear(in, a), b, s);  // eq. 3
      }));
      pairs.push_back({l, a, b});
    }
  }

  std::int64_t formula(const Arch& a) const override {
    const std::int64_t d = a.width, f = a.hidden, kv = std::int64_t{a.kv_heads} * a.head_width(),
                       inner = std::int64_t{a.heads} * a.head_width();
    std::int64_t count = 0;
    for (const Arch& stack : a.stacks())
      for (Part part : where.parts) {
        const bool across =
            part == Part::xq || part == Part::xk || part == Part::xv || part == Part::xo;
        if (across && !stack.crosses()) continue;
        const bool key = part == Part::k || part == Part::v || part == Part::xk || part == Part::xv;
        const bool mlp = part == Part::up || part == Part::gate || part == Part::down;
        count += where.count(stack.layers) * r * (d + (key ? kv : mlp ? f : inner));
      }
    return count;
  }

  void merge() override {
    check(!merged_, "lora: it is merged already");
    for (auto& [l, a, b] : pairs) {
      auto p = std::make_shared<Parameter>(l->w.parameter());
      Array w = p->value.value().own_copy();  // f32, if the base has half precision
      kernels::gemm(w, b.value(), a.value(), scale(), 1);
      p->value = Tensor(w);
      in_place.emplace_back(l->w, std::move(p));
    }
    enable(where.first, where.last, false);
    merged_ = true;
  }

  void unmerge() override {
    check(merged_, "lora: it is not merged");
    while (!in_place.empty()) in_place.pop_back();
    enable(where.first, where.last, true);
    merged_ = false;
  }

  struct Pair {
    Linear* linear;
    Tensor a, b;
  };
  std::vector<Pair> pairs;
  std::vector<Owned> in_place;
};

}  // namespace

std::unique_ptr<Adapter> make_lora(Options& o, const Arch& a) {
  return std::make_unique<Lora>(o, a);
}

}  // namespace graft
