#include "peft/contract.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "peft/files.h"

namespace graft {
namespace {

Batch small_batch(const Arch& arch) {
  Batch b;
  b.length = {5, 1, 7, 3};
  for (int i = 0; i < 16; ++i) b.token.push_back((i * 7 + 3) % arch.vocab);
  b.example = {0, 1, 2, 3};
  b.label = {0, 2, 1, 2};
  if (arch.crosses()) {
    auto source = std::make_shared<Batch>(b);
    source->length = {2, 6, 1, 7};
    b.source = std::move(source);
  }
  return b;
}

// One small model with a head and, unless left bare, an adaptation.
struct Trial {
  Trial(const Methods& methods, const std::string& spec, Body kind, Dtype dtype = Dtype::f32)
      : model(contract_arch(kind), {dtype, true, 7}), batch(small_batch(model.arch())) {
    model.each([&](Weight& w) { jitter(w.parameter(), 0.3); });  // norms and biases not at 1 and 0
    model.set_head(std::make_unique<LinearHead>(model.build(), model.arch(), 3, Pool::mean));
    if (spec.empty()) return;
    adaptation.emplace(methods, spec, model);
    adaptation->calibrate(model, {batch});
  }

  static void jitter(Parameter& p, double by) {
    Array& value = p.value.value();
    const std::uint32_t stream = stream_id((p.label() + "/jitter").c_str());
    const Array noise = [&] {
      std::vector<double> z(value.numel());
      for (std::size_t i = 0; i < z.size(); ++i) z[i] = by * normal({11, 0}, stream, i);
      return Array::of(z, value.shape()).to(value.dtype());
    }();
    kernels::axpy(value, noise, 1);
  }

  Tensor scores() {
    Ctx ctx;
    const Sequence s = model.forward(batch, ctx);
    return model.head().scores(model, s, batch, ctx);
  }
  Tensor loss(bool checkpoint = false, bool train = false) {
    Ctx ctx{.train = train, .key = {5, 1}, .checkpoint = checkpoint};
    const Sequence s = model.forward(batch, ctx);
    Tensor l = model.head().loss(model.head().scores(model, s, batch, ctx), batch);
    const Tensor penalty = adaptation->penalty();
    return penalty.defined() ? l + penalty : l;
  }
  Parameters trained() const { return adaptation->parameters(); }

  Model model;
  Batch batch;
  std::optional<Adaptation> adaptation;
};

struct Contract {
  const Methods& methods;
  std::string spec;
  Body kind;
  bool starts_as_base, mergeable;
  std::vector<Clause> findings;

  void add(std::string clause, bool kept, std::string detail = "") {
    findings.push_back({std::move(clause), kept, std::move(detail)});
  }

  void start() {
    Trial bare(methods, "", kind), adapted(methods, spec, kind);
    const double difference = [&] {
      const auto a = bare.scores().value().to_vector(), b = adapted.scores().value().to_vector();
      double most = 0;
      for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
      return most;
    }();
    bool claims = starts_as_base;
    for (const auto& a : adapted.adaptation->adapters()) claims &= a->starts_as_base();
    if (claims)
      add("starts as the base, bit for bit",
          same_bits(bare.scores().value(), adapted.scores().value()),
          fmt::format("largest difference {}", difference));
    else
      add("starts as the base, bit for bit", true,
          fmt::format("not claimed; largest difference {:.2g}", difference));
    bool fired = true;
    std::size_t edits = 0;
    for (const auto& a : adapted.adaptation->adapters())
      for (const auto& f : a->fired()) fired &= f.calls > 0, ++edits;
    add("every edit fired", fired, fmt::format("{} edits", edits));
  }

  void count() {
    Trial t(methods, spec, kind);
    Model shapes(contract_arch(kind), {.dtype = Dtype::f32, .storage = false});
    const Adaptation unbuilt(methods, spec, shapes);
    add("trainable count = formula = what was allocated",
        t.adaptation->count() == t.adaptation->formula() &&
            unbuilt.count() == t.adaptation->count(),
        fmt::format("allocated {}, formula {}, from shapes alone {}", t.adaptation->count(),
                    t.adaptation->formula(), unbuilt.count()));
  }

  // Central differences in f64 at up to 12 places of each parameter.
  void gradients() {
    Trial t(methods, spec, kind, Dtype::f64);
    for (const auto& p : t.trained()) Trial::jitter(*p, 0.2);
    if (t.trained().empty())
      return add("gradients agree with finite differences", true, "none train");
    const Gradients grads = backward(t.loss());
    double worst = 0;
    std::string where;
    for (const auto& p : t.trained()) {
      check(grads.has(p->value), "no gradient reached {}", p->label());
      const std::int64_t n = p->value.numel(), step = std::max<std::int64_t>(1, n / 12);
      double* w = p->value.value().data<double>();
      double scale = 1e-4;
      for (double g : grads[p->value].to_vector()) scale = std::max(scale, std::abs(g));
      for (std::int64_t i = 0; i < n; i += step) {
        const double before = w[i], h = 1e-5;
        w[i] = before + h;
        const double up = t.loss().item();
        w[i] = before - h;
        const double down = t.loss().item();
        w[i] = before;
        const double error = std::abs((up - down) / (2 * h) - grads[p->value].at(i)) / scale;
        if (error > worst) worst = error, where = p->label();
      }
    }
    add("gradients agree with finite differences", worst < 1e-5,
        fmt::format("largest error {:.1e} of the largest gradient{}", worst,
                    where.empty() ? "" : ", at " + where));
  }

  void training() {
    Trial t(methods, spec, kind);
    if (t.trained().empty()) {
      for (const char* clause : {"frozen weights keep their bits and get no gradient",
                                 "every trainable tensor moved", "the loss falls, the head frozen"})
        add(clause, true, "none train");
      return;
    }
    std::vector<Array> before;
    for (const auto& p : t.trained()) before.push_back(p->value.value().clone());
    Trial frozen(methods, "", kind);
    Optimizer optimizer(t.trained(), {.decay = 0});
    const double first = t.loss().item();
    bool no_gradient = true;
    for (int i = 0; i < 30; ++i) {
      Gradients grads = backward(t.loss());
      t.model.head().each([&](Weight& w) { no_gradient &= !grads.has(w.value()); });
      t.adaptation->after_backward(i);
      optimizer.step(grads, 0.01);
    }
    const double last = t.loss().item();
    bool moved = true;
    std::string still;
    for (std::size_t i = 0; i < before.size(); ++i)
      if (same_bits(before[i], t.trained()[i]->value.value())) {
        moved = false;
        still = t.trained()[i]->label();
      }
    add("every trainable tensor moved", moved, still);
    add("the loss falls, the head frozen", last < first - 1e-3,
        fmt::format("{:.4f} -> {:.4f}", first, last));
    t.adaptation.reset();
    add("frozen weights keep their bits and get no gradient",
        no_gradient && t.model.hash() == frozen.model.hash());
    add("detaching restores the bare model, bit for bit",
        same_bits(t.scores().value(), frozen.scores().value()));
  }

  void files() {
    Trial a(methods, spec, kind), b(methods, spec, kind);
    for (const auto& p : a.adaptation->stored()) Trial::jitter(*p, 0.2);
    const auto folder = std::filesystem::temp_directory_path() /
                        fmt::format("graft-contract-{}-{}", ::getpid(), name(kind));
    save_adapter(folder, spec, a.adaptation->stored(), {});
    load_adapter_values(folder, b.adaptation->stored());
    std::filesystem::remove_all(folder);
    add("a saved adapter loads to the same outputs",
        same_bits(a.scores().value(), b.scores().value()));
  }

  void merging() {
    Trial t(methods, spec, kind);
    for (const auto& p : t.trained()) Trial::jitter(*p, 0.2);
    for (const auto& a : t.adaptation->adapters()) mergeable &= a->no_merge().empty();
    const Array before = t.scores().value();
    try {
      t.adaptation->merge();
    } catch (const Error& e) {
      add("merged = unmerged within rounding, or a reason", !mergeable, e.what());
      return;
    }
    const auto a = before.to_vector(), b = t.scores().value().to_vector();
    double most = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      most = std::max(most, std::abs(a[i] - b[i])), size = std::max(size, std::abs(a[i]));
    t.adaptation->unmerge();
    add("merged = unmerged within rounding, or a reason",
        mergeable && most <= 1e-5 * size && same_bits(before, t.scores().value()),
        fmt::format("largest difference {:.1e} of the largest output; unmerged again: same bits",
                    most / size));
  }

  void checkpointing() {
    Trial t(methods, spec, kind);
    for (const auto& p : t.trained()) Trial::jitter(*p, 0.2);
    if (t.trained().empty()) return add("checkpointed = plain, bit for bit", true, "none train");
    const Tensor plain = t.loss(false, true), again = t.loss(true, true);
    bool same = same_bits(plain.value(), again.value());
    const Gradients a = backward(plain), b = backward(again);
    for (const auto& p : t.trained())
      same &= a.has(p->value) && b.has(p->value) && same_bits(a[p->value], b[p->value]);
    add("checkpointed = plain, bit for bit", same);
  }
};

}  // namespace

const char* name(Body kind) {
  return kind == Body::encoder ? "encoder" : kind == Body::decoder ? "decoder" : "encoder-decoder";
}

Arch contract_arch(Body kind) {
  const bool encoder = kind == Body::encoder;
  Arch a;
  a.family = encoder ? "roberta-prelayernorm" : kind == Body::decoder ? "gpt2" : "t5";
  a.stack = encoder ? Stack::encoder : Stack::decoder;
  a.vocab = 23, a.width = 12, a.layers = 3, a.heads = 3, a.kv_heads = 3, a.hidden = 20;
  a.positions = 16;
  a.causal = !encoder;
  a.embed_norm = encoder;
  a.mask = 4;
  if (kind == Body::both) {  // with biases, which T5 has not
    a.encoder_layers = 2, a.head_size = 5, a.start = 0;
    a.learned_positions = a.scaled_scores = false;
    a.relative_buckets = 4, a.relative_distance = 6;
    a.gated = a.inner_dropout = a.scaled_lm = true;
  }
  return a;
}

std::vector<Clause> run_contract(const Methods& methods, const std::string& spec, Body kind) {
  Contract c{methods, spec, kind, true, true, {}};
  for (const Options& o : parse_spec(spec)) {
    const auto row = std::find_if(methods.begin(), methods.end(),
                                  [&](const Method& m) { return m.name == o.method(); });
    if (row == methods.end()) continue;  // attaching says so, with the list of names
    c.starts_as_base &= row->starts_as_base;
    c.mergeable &= row->mergeable;
  }
  using Group = void (Contract::*)();
  const std::pair<Group, const char*> groups[] = {
      {&Contract::start, "it can be attached and run"},
      {&Contract::count, "its parameters can be counted"},
      {&Contract::gradients, "gradients agree with finite differences"},
      {&Contract::training, "it can be trained and detached"},
      {&Contract::files, "a saved adapter loads to the same outputs"},
      {&Contract::merging, "merged = unmerged within rounding, or a reason"},
      {&Contract::checkpointing, "checkpointed = plain, bit for bit"}};
  for (const auto& [group, text] : groups) {
    try {
      (c.*group)();
    } catch (const Error& e) {
      if (group == &Contract::start) throw;  // the spec itself is wrong
      c.add(text, false, e.what());
    }
  }
  return c.findings;
}

std::string text_of(const std::vector<Clause>& findings) {
  std::string out;
  for (const Clause& f : findings)
    out += fmt::format("{}  {}{}\n", f.kept ? "kept  " : "BROKEN", f.text,
                       f.detail.empty() ? "" : ": " + f.detail);
  return out;
}

bool all_kept(const std::vector<Clause>& findings) {
  return std::all_of(findings.begin(), findings.end(), [](const Clause& f) { return f.kept; });
}

}  // namespace graft
