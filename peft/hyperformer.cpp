// HyperFormer and HyperFormer++: one generator writes the adapters of all tasks.
//
// Mahabadi et al. 2021 (2106.04489), equations 1 to 5. After both sub-layers of every block,
//     A(y) = y + LN(U gelu(D y + b_D) + b_U),   LN(u) = gamma (u - mean) / std + beta,
// where a code I of task, layer and place writes every tensor by one linear layer each:
//     U = W^U I + b  in R^{d x m},  D = W^D I + b  in R^{m x d},  gamma = W^gamma I + b, ...
//
//     z_task ─ h_I ─ I ─┬─ W^D ── D          sub-layer ── y ──┬──────────────────────(+)── residual
//     (layer, place)    ├─ W^U ── U                           └── D ─ gelu ─ U ─ LN ──┘
//                       └─ W^gamma, W^beta ── LN's            slots: Attention::out, Mlp::out
//
//   hyperformer     a set of these layers for each block and place; I = h_I(z_task)
//   hyperformer++   one set for all; I = LN(h_I([z_task; l_layer; p_place])), eq. 6
// h_I is linear(hidden) - ReLU - linear(i). An encoder-decoder's stacks have a generator each, and
// none stands after attention across (the counts of table 1 say both).
//
// Trains: generators, embeddings and, as in the paper, the base's norms (norms=no leaves them).
// Count of a set: (i + 1) (2 d m + m + 3 d). hyperformer: L sets for each place, tasks t, and h_I.
// hyperformer++, in each stack: one set, (L + 2) t, h_I of 3t, and its norm of 2 i.
// Start: near the base, not at it: hypernetworks N(0, 0.01^2), embeddings N(0, 1), biases 0, so
// gamma and beta are small. Merge: no; f is not linear.
//
// Where sources disagree: of HyperFormer, the released configuration sets unique_hyper_net: a set
// for each place shared over layers, I = LN(h_I([z; l])), 4.6 % of T5-base and not the paper's
// 54.9 %. sharing=code does that, sharing=paper (the standard) what the text and table 1 say.
// The code's activation is gelu_tanh (f=); h_I's part in table 1's share is too small to show.
//
// tasks=N: a batch says whose its texts are (Batch::task; rows of several tasks may stand in one),
// or use=K does. task=described has no z to learn: it is the frozen base's mean row, standardised,
// of `examples=` texts of the task, or of its description (tokens=; text= where a command takes
// it), and its width is the model's; files hold it. new=N, from a saved adapter: N further tasks,
// of which nothing but z trains, and of described ones nothing at all.
// Micro-batches add up to the same gradients within rounding, not to the same bits: what is written
// is no leaf.
#include "peft/hyperformer.h"

#include <cmath>

#include "nn/pooling.h"
#include "peft/bottleneck.h"
#include "peft/methods.h"
#include "peft/part_shapes.h"
#include "peft/virtual_rows.h"

namespace graft {
namespace {

constexpr double kNormEps = 1e-5;  // of an adapter's norm
constexpr double kCodeEps = 1e-6;  // of the code's, in the released code's controllers
using Sharing = HyperOptions::Sharing;

Sharing sharing_of(Options& o, bool plus) {
  if (plus) return Sharing::all;
  return o.choice("sharing", "paper", {"paper", "code"}) == "code" ? Sharing::layers
                                                                   : Sharing::none;
}

}  // namespace

HyperOptions::HyperOptions(Options& o, const Arch& arch, bool plus)
    : where(o.where("attn+mlp", arch)),
      sharing(sharing_of(o, plus)),
      tasks(o.integer("tasks", 1)),
      fresh(o.integer("new", 0, 0)),
      described(o.choice("task", "learned", {"learned", "described"}) == "described"),
      described_by(0),
      t(described ? arch.width : o.integer("t", 64)),
      hidden(o.integer("hidden", 128)),
      i(o.integer("i", 64)),
      m(o.integer("m", std::max(1, arch.width / 32))),
      f(map_named(o, "gelu")),
      std(o.real("std", 0.01)),
      conditional(o.choice("norm", "conditional", {"conditional", "none"}) == "conditional"),
      norms(o.flag("norms", true)) {
  const std::string& method = o.method();
  if (described) {
    for (const auto& ids : tokens_of(o, arch))
      description.insert(description.end(), ids.begin(), ids.end());
    if (description.empty()) described_by = o.integer("examples", 16);
    check(
        description.empty() || (fresh > 0 ? fresh : tasks) == 1,
        "{}: tokens= describes one task; there are {}: leave it out, and each is told by examples",
        method, fresh > 0 ? fresh : tasks);
  }
  if (o.has("use")) use = o.integer("use", 0, 0);
  if (!use && (fresh > 0 || tasks == 1)) use = fresh > 0 ? tasks : 0;
  check(!use || *use < tasks + fresh, "{}: use={}; the tasks are 0..{}", method, use.value_or(0),
        tasks + fresh - 1);
  check(m <= arch.width, "{}: m={} in a model of width {}; need m <= {}", method, m, arch.width,
        arch.width);
  check(std >= 0, "{}: std={}; need at least 0", method, std);
  std::int64_t placed = 0;
  for (Part part : where.parts) {
    check(part == Part::attn || part == Part::mlp || (part == Part::cross && arch.crosses()),
          "{}: on={}; need attn, mlp or attn+mlp{}", method, to_string(where.parts),
          arch.crosses() ? ", or cross" : "");
    for (const Arch& stack : arch.stacks()) placed += count_of(where, stack, part);
  }
  check(placed > 0, "{}: on={} in layers {}..{} is nowhere in this model", method,
        to_string(where.parts), where.first, where.last);
}

std::vector<Part> HyperOptions::parts_of(const Arch& stack) const {
  std::vector<Part> parts;
  for (Part part : where.parts)
    if (count_of(where, stack, part) > 0) parts.push_back(part);
  return parts;
}

Tensor HyperSet::operator()(const Tensor& y, const Tensor& code, const HyperOptions& o,
                            int d) const {
  const Tensor inner = linear(y, down.write(code, {o.m, d}), down_b.write(code, {o.m}));
  Tensor u = linear(map(o.f, inner), up.write(code, {d, o.m}), up_b.write(code, {d}));
  if (o.conditional) u = layer_norm(u, gain.write(code, {d}), bias.write(code, {d}), kNormEps);
  return y + u;
}

Tensor Projector::operator()(const Tensor& known) const {
  const Tensor code = out(relu(in(known)));
  return gain.defined() ? layer_norm(code, gain, bias, kCodeEps) : code;
}

namespace {

// f(task, rows) of each task's rows of y, in the rows' order.
template <class F>
Tensor of_each_task(const Tensor& y, const Ctx& ctx, int standard, const F& f) {
  static const std::vector<std::int32_t> kNone;
  const auto& of = ctx.batch ? ctx.batch->task : kNone;  // of each sequence
  if (ctx.task >= 0 || of.empty()) return f(ctx.task >= 0 ? ctx.task : standard, y);
  const std::vector<int>& length = ctx.sequence->length;
  check(of.size() == length.size(), "hyperformer: {} sequences, the batch says {} tasks",
        length.size(), of.size());
  std::map<std::int32_t, std::vector<std::int32_t>> rows;
  std::int32_t row = 0;
  for (std::size_t s = 0; s < length.size(); ++s)
    for (int i = 0; i < length[s]; ++i) rows[of[s]].push_back(row++);
  check(row == y.dim(0), "hyperformer: {} rows of sequences of {} in all", y.dim(0), row);
  if (rows.size() == 1) return f(rows.begin()->first, y);
  std::vector<Tensor> parts;
  std::vector<std::int32_t> back(static_cast<std::size_t>(row));
  std::int32_t at = 0;
  for (const auto& [task, mine] : rows) {
    parts.push_back(f(task, gather(y, Array::of(mine))));
    for (std::int32_t r : mine) back[static_cast<std::size_t>(r)] = at++;
  }
  return gather(concat(parts, 0), Array::of(back));
}

struct Hyperformer : Adapter, HyperOptions {
  Hyperformer(Options& o, const Arch& arch, bool plus)
      : Adapter(o.method()), HyperOptions(o, arch, plus), width(arch.width) {}

  // A stack's generator: what its places share.
  struct Generator {
    Projector project;
    Tensor layer, place;  // embeddings [L, t] and [places, t], of those that have them
    std::map<Part, HyperSet> sets;
  };

  void attach(Model& m) override {
    const Site root{m.arch().stack, -1, Part::embed};
    const Init normal{Init::Kind::normal, 1};
    const std::string start = described ? "the tasks' descriptions" : "";
    const Like rows{.decay = false, .trains = !frozen() && !described, .start = start};
    z = param(m, root, "task", {tasks, t}, normal, rows);
    if (fresh > 0)
      z_new = param(m, root, "new.task", {fresh, t}, normal,
                    {.decay = false, .trains = !described, .start = start});
    if (described && m.build().storage)  // none of them is, until calibrate() or a file says
      for (Tensor* all : {&z, &z_new})
        if (all->defined()) all->value().fill(0);
    if (sharing == Sharing::none) shared = projector(m, root);
    for (const Arch& stack : m.arch().stacks()) add_stack(m, stack);
    if (norms)
      for (Norm* norm : m.norms()) norm->each([&](Weight& w) { own(w, !frozen()); });
  }

  void add_stack(Model& m, const Arch& stack) {
    const std::vector<Part> parts = parts_of(stack);
    if (parts.empty()) return;
    Generator& g = generators[stack.stack];
    const Site site{stack.stack, -1, Part::embed};
    const Init normal{Init::Kind::normal, 1};
    const Like rows{.decay = false, .trains = !frozen()};
    if (sharing != Sharing::none) {
      g.project = projector(m, site);
      g.layer = param(m, site, "layer", {where.count(stack.layers), t}, normal, rows);
    }
    if (sharing == Sharing::all)
      g.place = param(m, site, "place", {int(parts.size()), t}, normal, rows);
    for (Block* block : m.all_blocks()) {
      const auto [at, layer, part] = block->norm1.site;
      if (at != stack.stack || layer < where.first || layer > where.last) continue;
      for (std::size_t p = 0; p < parts.size(); ++p) {
        const Site here{at, layer, parts[p]};
        Slot<Tensor, Sub, Ctx>& slot = parts[p] == Part::mlp    ? block->mlp.out
                                       : parts[p] == Part::attn ? block->attention.out
                                                                : block->cross->out;
        add_to(m, slot, here, set_for(m, g, here), static_cast<std::int32_t>(p));
      }
    }
  }

  void add_to(const Model&, Slot<Tensor, Sub, Ctx>& slot, const Site& site, const HyperSet& set,
              std::int32_t place) {
    hold(site,
         slot.add(name(), [this, set, place, g = &generators.at(site.stack),
                           layer = site.layer - where.first](Tensor y, const Sub&, const Ctx& ctx) {
           return of_each_task(y, ctx, use.value_or(-1), [&](int task, const Tensor& rows) {
             return set(rows, code(*g, task, layer, place), *this, width);
           });
         }));
  }

  // I of a task at a place.
  Tensor code(const Generator& g, int task, int layer, std::int32_t place) const {
    Tensor known = embedding(task);
    if (sharing == Sharing::none) return shared(known);
    known = concat({known, gather(g.layer, Array::of(std::vector<std::int32_t>{layer}))}, 1);
    if (sharing == Sharing::all)
      known = concat({known, gather(g.place, Array::of(std::vector<std::int32_t>{place}))}, 1);
    return g.project(known);
  }

  Tensor embedding(int task) const {
    check(task != -1,
          "{}: tasks={}, and the batch does not say whose its texts are; give use=0..{}, or train "
          "with graft multitask",
          name(), tasks, tasks - 1);
    check(task >= 0 && task < tasks + fresh, "{}: a text of task {}; the tasks are 0..{}", name(),
          task, tasks + fresh - 1);
    const bool is_new = task >= tasks;
    const Tensor one = gather(is_new ? z_new : z,
                              Array::of(std::vector<std::int32_t>{is_new ? task - tasks : task}));
    if (described) {
      const auto values = one.value().to_vector();
      check(std::ranges::any_of(values, [](double v) { return v != 0; }),
            "{}: task=described, but nothing has described task {} yet", name(), task);
    }
    return one;
  }

  // --- the generator's tensors -------------------------------------------------------------------

  HyperLayer layer(const Model& m, const Site& site, const std::string& what, std::int64_t in,
                   std::int64_t out) {
    const Like weight{.trains = !frozen()}, bias{.decay = false, .trains = !frozen()};
    return {param(m, site, what + ".weight", {out, in}, {Init::Kind::normal, std}, weight),
            param(m, site, what + ".bias", {out}, {Init::Kind::zeros, 0}, bias)};
  }

  Projector projector(const Model& m, const Site& site) {
    const int known = t * (1 + (sharing != Sharing::none) + (sharing == Sharing::all));
    Projector p{layer(m, site, "project.in", known, hidden),
                layer(m, site, "project.out", hidden, i),
                {},
                {}};
    if (sharing == Sharing::none) return p;
    const Like small{.decay = false, .trains = !frozen()};
    p.gain = param(m, site, "project.norm.weight", {i}, {Init::Kind::ones, 1}, small);
    p.bias = param(m, site, "project.norm.bias", {i}, {Init::Kind::zeros, 0}, small);
    return p;
  }

  HyperSet set_for(const Model& m, Generator& g, const Site& here) {
    const Site site = sharing == Sharing::none     ? here
                      : sharing == Sharing::layers ? Site{here.stack, -1, here.part}
                                                   : Site{here.stack, -1, Part::block};
    if (sharing != Sharing::none && g.sets.contains(site.part)) return g.sets.at(site.part);
    const std::int64_t d = width, dm = d * this->m;
    HyperSet s{layer(m, site, "down", i, dm),
               layer(m, site, "down_bias", i, this->m),
               layer(m, site, "up", i, dm),
               layer(m, site, "up_bias", i, d),
               {},
               {}};
    if (conditional) s.gain = layer(m, site, "gain", i, d), s.bias = layer(m, site, "shift", i, d);
    if (sharing != Sharing::none) g.sets.emplace(site.part, s);
    return s;
  }

  // --- tasks that are described ------------------------------------------------------------------

  int examples() const override { return described_by; }

  void calibrate(const Model& model, const std::vector<Batch>& of_tasks) override {
    if (!described) return;
    Tensor& rows = fresh > 0 ? z_new : z;
    std::vector<Batch> given = of_tasks;
    if (!description.empty()) {
      Batch words;
      words.token = description, words.length = {int(description.size())}, words.example = {0};
      words.source = std::make_shared<const Batch>(words);
      given = {words};
    }
    check(std::int64_t(given.size()) == rows.dim(0),
          "{}: {} tasks are to be described, and there are examples of {}", name(), rows.dim(0),
          given.size());
    std::vector<double> all;
    for (const Batch& batch : given) {
      const Model& reader = model.encoder ? *model.encoder : model;
      Ctx ctx;
      const Batch& text = model.encoder ? *batch.source : batch;
      const Sequence s = reader.forward(text, ctx);
      const std::vector<double> one = standardised(pooled(s, Pool::mean).value());
      all.insert(all.end(), one.begin(), one.end());
    }
    rows.value().copy_from(Array::of(all, rows.shape()).to(rows.kind()));
  }

  // The mean of rows [S, d], shifted and scaled to mean 0 and deviation 1, as N(0, 1) has them.
  static std::vector<double> standardised(const Array& rows) {
    const auto n = static_cast<std::size_t>(rows.dim(0)), d = static_cast<std::size_t>(rows.dim(1));
    const std::vector<double> values = rows.to_vector();
    std::vector<double> x(d, 0);
    double mean = 0, square = 0;
    for (std::size_t k = 0; k < values.size(); ++k) x[k % d] += values[k] / double(n);
    for (double v : x) mean += v / double(d);
    for (double& v : x) v -= mean, square += v * v / double(d);
    for (double& v : x) v /= std::sqrt(square + 1e-12);
    return x;
  }

  std::int64_t formula(const Arch& a) const override {
    const std::int64_t learned = std::int64_t{fresh > 0 ? fresh : tasks} * t;
    if (frozen()) return described ? 0 : learned;
    const std::int64_t d = a.width, set = (i + 1) * (2 * d * m + m + d * (conditional ? 3 : 1));
    const auto h = [&](std::int64_t known) {
      return hidden * (known + 1) + std::int64_t{i} * (hidden + 1);
    };
    std::int64_t count = described ? 0 : learned;
    if (sharing == Sharing::none) count += h(t);
    for (const Arch& stack : a.stacks()) {
      if (norms) count += stack.norms() * norm_size(a);
      const auto places = static_cast<std::int64_t>(parts_of(stack).size());
      const std::int64_t layers = where.count(stack.layers);
      if (places == 0) continue;
      if (sharing == Sharing::none) count += places * layers * set;
      if (sharing == Sharing::layers) count += places * set + layers * t + h(2 * t) + 2 * i;
      if (sharing == Sharing::all) count += set + (layers + places) * t + h(3 * t) + 2 * i;
    }
    return count;
  }

  int width;
  Tensor z, z_new;
  Projector shared;
  std::map<Stack, Generator> generators;  // nodes stay where they are: edits point at them
};

}  // namespace

std::unique_ptr<Adapter> make_hyperformer(Options& o, const Arch& a) {
  return std::make_unique<Hyperformer>(o, a, false);
}
std::unique_ptr<Adapter> make_hyperformer_plus(Options& o, const Arch& a) {
  return std::make_unique<Hyperformer>(o, a, true);
}

}  // namespace graft
