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
//
// As in the released code: on=embed adds (alpha / r) B a to a token's row, a its column of A, which
// starts at 0 and B at N(0, 1), without dropout; bias=all or lora_only trains the base's biases,
// and save= base modules whole, in private copies. ranks= and alphas= give parts, or parts of some
// layers, numbers of their own: `ranks=v:8;q.0-3:4`, of which the last that matches counts.
//
// share=qkv: those of q, k and v of one self-attention that are adapted read one A, through one
// mask of dropout, each with its own B; PEFT's LoRA on GPT-2's c_attn, where the paper has an A for
// each.
//
//     x ── dropout ─ A ─┬─ B_q ─ q     Count: r (in + sum of outs).  A lies at the first of them
//                       ├─ B_k ─ k     and starts as that one's own does; its gradient is the sum
//                       └─ B_v ─ v     of theirs. Ranks and alphas must agree. Cross-attention's
//                                      q reads other rows than its k and v: nothing is shared
//                                      there.
#include "peft/lora.h"

#include <cmath>
#include <map>
#include <set>

#include "peft/methods.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

struct Lora : Adapter, LoraOptions {
  Lora(Options& o, const Arch& arch) : Adapter("lora"), LoraOptions(o, arch) {
    if (embed && arch.tied && arch.lm)
      no_merge_ = "its matrix of embeddings is the vocabulary's, too, which is not adapted";
  }

  void attach(Model& m) override {
    const auto linears = where.parts.empty() ? std::vector<Linear*>() : m.linears(where);
    std::map<Site, int> out;  // rows of all Bs that read the A at a site
    for (const Linear* l : linears) out[a_site(l->site)] += l->out_width();
    std::map<Site, Tensor> as;
    for (Linear* l : linears) {
      const int r = rank(l->site);
      const Site at = a_site(l->site);
      check(r <= std::min(l->in(), out[at]), "lora: r={} on {}, a {} x {} matrix; need r <= {}", r,
            to_string(l->site), out[at], l->in(), std::min(l->in(), out[at]));
      const double k = l->in();
      const Init init = kaiming ? Init{Init::Kind::uniform, 1 / std::sqrt(k)}
                                : Init{Init::Kind::normal, 1 / std::sqrt(3 * k)};
      if (!as.contains(at)) as[at] = param(m, at, "lora_A", {r, l->in()}, init);
      const Tensor a = as[at];
      const Tensor b = param(m, l->site, "lora_B", {l->out_width(), r}, {Init::Kind::zeros, 0});
      const std::uint32_t noise = stream_id((to_string(at) + "/lora dropout").c_str());
      const EditBase* edit =
          hold(l->site, l->out.add("lora", [=, p = dropout_rate, s = scale(l->site)](
                                               Tensor y, const Tensor& x, const Ctx& ctx) {
            const Tensor in = ctx.train ? dropout(x, p, {ctx.key, noise}, ctx.address) : x;
            return add_linear(std::move(y), linear(in, a), b, s);  // eq. 3
          }));
      pairs.push_back({&l->w, l->site, a, b, edit});
    }
    if (embed) attach_embedding(m);
    train_base(m);
  }

  // A lies as [vocabulary, r], so that a token's column is a row.
  void attach_embedding(Model& m) {
    Weight& table = m.encoder ? m.encoder->embedding.token : m.embedding.token;
    const Site site = table.parameter().site;
    const int r = rank(site), vocab = m.arch().vocab, d = m.arch().width;
    check(r <= std::min(vocab, d), "lora: r={} on the embedding, a {} x {} matrix; need r <= {}", r,
          vocab, d, std::min(vocab, d));
    const Tensor a = param(m, site, "lora_embedding_A", {vocab, r}, {Init::Kind::zeros, 0});
    const Tensor b = param(m, site, "lora_embedding_B", {d, r}, {Init::Kind::normal, 1});
    const auto edit = [=, s = scale(site)](Sequence rows, const Ctx& ctx) {
      std::vector<std::int32_t> token;
      std::vector<double> real;  // rows that another edit inserted are no tokens
      for (const std::int32_t source : rows.source) {
        token.push_back(source < 0 ? 0 : ctx.batch->token[source]);
        real.push_back(source < 0 ? 0 : 1);
      }
      Tensor columns = gather(a, Array::of(token));
      if (std::ranges::count(real, 0) > 0)
        columns = columns * Tensor(Array::of(real, {columns.dim(0), 1}).to(columns.kind()));
      rows.rows = add_linear(std::move(rows.rows), columns, b, s);
      return rows;
    };
    if (m.encoder) hold(site, m.encoder->embedding.out.add("lora", edit));
    const EditBase* held = hold(site, m.embedding.out.add("lora", edit));
    pairs.push_back({&table, site, b, a, held});  // the table is transposed: A B^T
  }

  // save= and bias=.
  void train_base(Model& m) {
    const auto saved = [&](const Site& site) { return std::ranges::count(save, site.part) > 0; };
    if (!save.empty())
      m.each([&](Weight& w) {
        if (saved(w.parameter().site)) own(w);
      });
    if (biases == Biases::none) return;
    const int layers = std::max(m.arch().layers, m.arch().encoder_layers);
    m.each([&](Weight& w) {
      const auto& [site, name, value, decay, rate] = w.parameter();
      const bool chosen = biases == Biases::all ? is_linear(site.part) || is_norm(site.part)
                                                : where.has(site, layers);
      if (name == "bias" && chosen && !saved(site)) own(w);
    });
  }

  std::int64_t formula(const Arch& a) const override {
    std::int64_t count = saved(a);
    for (const Arch& stack : a.stacks())
      for (Part part : where.parts)
        for (int layer = where.first; layer <= std::min(where.last, stack.layers - 1); ++layer) {
          if ((is_across(part) && !stack.crosses()) || (part == Part::gate && !stack.gated))
            continue;
          const PartShape s = shape_of(stack, part);
          const Site site{stack.stack, layer, part};
          count += rank(site) * ((a_site(site) == site ? s.in : 0) + s.out);
        }
    if (embed) count += rank({a.stack, -1, Part::embed}) * (std::int64_t{a.vocab} + a.width);
    return count;
  }

  void merge() override {
    check(!merged_, "lora: it is merged already");
    check(no_merge_.empty(), "lora: it cannot be merged: {}", no_merge_);
    for (auto& [weight, site, a, b, edit] : pairs) {
      if (!edit->enabled) continue;
      Array w = weight->value().value().own_copy();  // f32, if the base has half precision
      const Array in = site.part == Part::embed ? a.value().transpose() : a.value();
      kernels::gemm(w, b.value(), in, scale(site), 1);
      cover(*weight, Tensor(w));
    }
    edits_off();
    merged_ = true;
  }

  Change change() const override { return Change::adds; }

  struct Pair {
    Weight* weight;
    Site site;
    Tensor a, b;
    const EditBase* edit;
  };
  std::vector<Pair> pairs;
};

}  // namespace

std::unique_ptr<Adapter> make_lora(Options& o, const Arch& a) {
  return std::make_unique<Lora>(o, a);
}

}  // namespace graft
