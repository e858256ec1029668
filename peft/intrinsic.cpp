// Intrinsic dimension: all of a model trained in a random subspace of d dimensions.
//
// Aghajanyan et al. 2020 (2012.13255), section 3:
//     DID   theta^D = theta_0^D + P(theta^d)
//     SAID  theta_i^D = theta_0,i^D + lambda_i P(theta^(d-m))_i      m layers, a lambda each
//
//     theta^d ── P (Fastfood) ──┬── (+)── W_1        slots: the edits of every parameter: matrices,
//                               ├── (+)── b_1        biases, norms, embeddings, relative places
//                               └── (+)── ...
//
// P is Fastfood (Le et al. 2013), drawn tensor by tensor from seed= alone, so that a file is the
// spec and d numbers; never a matrix, it takes 8 to 16 bytes for each number that moves.
//
// Trains: theta and the lambdas.
// Count: d. The m lambdas are taken from it, as in the paper.
// Start: theta = 0, lambda = 1: the base, bit for bit.
// Merge: theta^D in the base's place, which costs the model's size again.
//
// Where paper and released code disagree: scales=layer (default) is the paper's lambda of a layer,
// what is outside a stack's blocks counting as one more; scales=tensor the code's, of each weight
// tensor; scales=none is DID. (The code takes m + 1 numbers from d for m lambdas: a slip.)
// project=whole (default): E |P theta| = |theta| over all D numbers, as the paper's one P has it,
// and each tensor reads all of theta. project=tensor, the code's: so for every tensor by itself,
// large or small, and one of D_i numbers reads the first 2^ceil(log2 D_i) of theta.
//
// Deviations: P is a stack of independent blocks, one for each tensor (the paper's is of all D
// numbers at once; the code draws one for each, too). The code's backward is not its forward's
// transpose; here it is, exactly. The paper counts the task's head among the D numbers; here it
// trains whole, as with every method. Without vocabulary=yes a matrix over the vocabulary that is
// not the embeddings' stays frozen, as in `full`. As with any edit of a matrix, gradients depend in
// the last bits on how a batch is cut into micro-batches.
#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "peft/methods.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

struct Intrinsic : Adapter {
  enum class Scales { none, layer, tensor };

  Intrinsic(Options& o, const Arch& arch) : Adapter("intrinsic"), where(o.layers(arch)) {
    d = o.integer("d", 1000);
    seed = static_cast<std::uint32_t>(o.integer("seed", 0, 0));
    const std::string by = o.choice("scales", "layer", {"layer", "tensor", "none"});
    scales = by == "none" ? Scales::none : by == "layer" ? Scales::layer : Scales::tensor;
    whole = o.choice("project", "whole", {"whole", "tensor"}) == "whole";
    vocabulary = o.flag("vocabulary", false);
    const std::string on = o.text("on", "all");
    try {
      if (on != "all") where.parts = parts_named(on);
    } catch (const Error& e) {
      fail("intrinsic: on={}: {}", on, e.what());
    }
    layers = {arch.encoder_layers, arch.layers};
  }

  static bool over_vocabulary(Part part) {
    return part == Part::lm_dense || part == Part::lm_norm || part == Part::lm_head;
  }

  bool takes(const Site& site) const {
    if (site.part == Part::pooler) return false;  // heads alone read it
    if (where.parts.empty() && over_vocabulary(site.part)) return vocabulary;
    if (!where.parts.empty() && !where.has(site.part)) return false;
    if (site.layer >= 0) return site.layer >= where.first && site.layer <= where.last;
    const bool encoder = layers.first > 0 && site.stack == Stack::encoder;
    const bool above = site.part == Part::norm_out || over_vocabulary(site.part);
    return above ? where.last >= (encoder ? layers.first : layers.second) - 1 : where.first == 0;
  }

  // The parameters that move, and which lambda is whose.
  std::vector<Weight*> choose(Model& m) {
    std::vector<Weight*> chosen;
    std::set<Part> there, hit;
    m.each([&](Weight& w) {
      const Site& site = w.parameter().site;
      if (site.part != Part::pooler) there.insert(site.part);
      if (!takes(site)) return;
      hit.insert(site.part);
      chosen.push_back(&w);
    });
    for (Part part : where.parts)
      check(hit.contains(part), "intrinsic: no parameter of {} in layers {}..{}; there are {}",
            graft::name(part), where.first, where.last,
            to_string(std::vector<Part>(there.begin(), there.end())));
    return chosen;
  }

  void attach(Model& m) override {
    const std::vector<Weight*> chosen = choose(m);
    std::vector<std::pair<Stack, int>> groups;
    std::vector<std::int64_t> scale_of;
    std::int64_t numbers = 0;
    for (Weight* w : chosen) {
      const Site& site = w->parameter().site;
      const std::pair group{site.stack, site.layer};
      const auto known = std::ranges::find(groups, group);
      scale_of.push_back(scales == Scales::tensor ? std::ssize(scale_of) : known - groups.begin());
      if (known == groups.end()) groups.push_back(group);
      numbers += w->value().numel();
    }
    const std::int64_t m_scales = scales == Scales::none    ? 0
                                  : scales == Scales::layer ? std::ssize(groups)
                                                            : std::ssize(chosen);
    check(d > m_scales, "intrinsic: d={}, of which scales={} takes {}; need d > {}, or scales=none",
          d, scales == Scales::layer ? "layer" : "tensor", m_scales, m_scales);
    check(d <= numbers, "intrinsic: d={}; what it moves has {} numbers", d, numbers);
    const Site site{m.arch().stack, -1, Part::embed};
    const Tensor theta = param(m, site, "intrinsic_theta", {d - m_scales}, {Init::Kind::zeros, 0});
    const Tensor lambda = m_scales == 0 ? Tensor()
                                        : param(m, site, "intrinsic_lambda", {m_scales},
                                                {Init::Kind::ones, 1}, {.decay = false});
    for (std::size_t i = 0; i < chosen.size(); ++i)
      move(m, *chosen[i], theta, lambda, scale_of[i], numbers);
  }

  struct Move {
    Weight* weight;
    Tensor theta, lambda;
    std::int64_t i;  // of lambda
    Fastfood p;
    const EditBase* edit = nullptr;

    // W + lambda_i P theta, written W + P (lambda_i theta): d products instead of D.
    Tensor operator()(const Tensor& w) const {
      Tensor x = p.in < theta.numel() ? slice(theta, 0, 0, p.in) : theta;
      if (lambda.defined()) x = slice(lambda, 0, i, i + 1) * x;
      return w + reshape(fastfood(x, p), w.shape());
    }
  };

  void move(const Model& m, Weight& w, const Tensor& theta, const Tensor& lambda, std::int64_t i,
            std::int64_t numbers) {
    const Parameter& base = w.parameter();
    const std::int64_t size = base.value.numel(), all = theta.numel();
    const auto padded = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(size)));
    const double norm = whole ? std::sqrt(static_cast<double>(size) / double(numbers)) : 1;
    Move move{&w, theta, lambda, i, {}, nullptr};
    if (m.build().storage)
      move.p = draw_fastfood(whole ? all : std::min(all, padded), size, norm, {seed, 0},
                             stream_id((base.label() + "/intrinsic").c_str()));
    move.edit = hold(base.site, w.edits.add("intrinsic", [move](const Tensor& value, const Ctx&) {
      return move(value);
    }));
    moves.push_back(std::move(move));
  }

  void merge() override {
    check(!merged_, "intrinsic: it is merged already");
    const NoRecord no_graph;
    for (const Move& move : moves)  // f32, if the base is half
      if (move.edit->enabled)
        cover(*move.weight, move(Tensor(move.weight->value().value().own_copy())).detach());
    edits_off();
    merged_ = true;
  }

  std::int64_t formula(const Arch&) const override { return d; }
  bool edits_weights() const override { return true; }
  Change change() const override { return Change::adds; }

  Where where;
  int d = 0;
  std::uint32_t seed = 0;
  Scales scales = Scales::layer;
  bool whole = true, vocabulary = false;
  std::pair<int, int> layers;
  std::vector<Move> moves;
};

}  // namespace

std::unique_ptr<Adapter> make_intrinsic(Options& o, const Arch& a) {
  return std::make_unique<Intrinsic>(o, a);
}

}  // namespace graft
