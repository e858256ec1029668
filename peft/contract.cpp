#include "peft/contract.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "peft/contract_trial.h"
#include "peft/files.h"

namespace graft {

namespace {

double difference(const Array& a, const Array& b) {
  const auto x = a.to_vector(), y = b.to_vector();
  double most = 0;
  for (std::size_t i = 0; i < x.size(); ++i) most = std::max(most, std::abs(x[i] - y[i]));
  return most;
}

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

}  // namespace

Trial::Trial(const Methods& methods, const std::string& spec, Body kind, ArrayKind numbers,
             std::uint32_t seed)
    : model(contract_arch(kind),
            {.dtype = widened(numbers.dtype), .seed = 7, .device = numbers.device}),
      batch(small_batch(model.arch())) {
  model.each([&](Weight& w) { jitter(w.parameter(), 0.3); });  // norms and biases not at 1 and 0
  model.set_head(std::make_unique<LinearHead>(model.build(), model.arch(), 3, Pool::mean));
  if (is_half(numbers.dtype))
    model.each([&](Weight& w) { w.parameter().value = Tensor(w.value().value().to(numbers)); });
  Build build = model.build();
  build.seed = seed;
  model.set_build(build);
  if (!spec.empty()) adapt(methods, spec);
}

void Trial::adapt(const Methods& methods, const std::string& spec) {
  adaptation.emplace(methods, spec, model);
  adaptation->calibrate(model, {batch});
}

void Trial::jitter(Parameter& p, double by) {
  Array& value = p.value.value();
  const std::uint32_t stream = stream_id((p.label() + "/jitter").c_str());
  const Array noise = [&] {
    std::vector<double> z(value.numel());
    for (std::size_t i = 0; i < z.size(); ++i) z[i] = by * normal({11, 0}, stream, i);
    return Array::of(z, value.shape()).to(value.kind());
  }();
  kernels::axpy(value, noise, 1);
}

bool Trial::owns(const Parameter& p) {
  bool found = false;
  model.each([&](Weight& w) { found |= w.value().node() == p.value.node(); });
  return found;
}

std::vector<std::string> Trial::names() {
  std::vector<std::string> all;
  model.each([&](Weight& w) { all.push_back(w.parameter().label()); });
  return all;
}

Tensor Trial::scores() {
  Ctx ctx;
  const Sequence s = model.forward(batch, ctx);
  return model.head().scores(model, s, batch, ctx);
}

Tensor Trial::loss(bool train, std::uint32_t step, Checkpoint checkpoint) {
  Ctx ctx{.train = train, .key = {5, step}, .checkpoint = checkpoint};
  const Sequence s = model.forward(batch, ctx);
  Tensor l = model.head().loss(model.head().scores(model, s, batch, ctx), batch);
  const Tensor penalty = adaptation->penalty();
  return penalty.defined() ? l + penalty : l;
}

void Contract::start() {
  Trial base = bare(), adapted = trial();
  const Array want = base.scores().value(), got = adapted.scores().value();
  bool claims = starts_as_base;
  for (const auto& a : adapted.adaptation->adapters()) claims &= a->starts_as_base();
  add("starts as the base, bit for bit", !claims || same_bits(want, got),
      fmt::format("{}largest difference {:.2g}", claims ? "" : "not claimed; ",
                  difference(want, got)));
  bool fired = true;
  std::size_t edits = 0;
  for (const auto& a : adapted.adaptation->adapters())
    for (const auto& f : a->fired()) fired &= f.calls > 0, ++edits;
  add("every edit fired", fired, fmt::format("{} edits", edits));
  const auto values = got.to_vector();
  add("its outputs are finite, and the base's parameters keep their names",
      std::ranges::all_of(values, [](double v) { return std::isfinite(v); }) &&
          base.names() == adapted.names());
  switching(base, adapted);
}

// Copies of base weights stand in their place and are not switched: here they are the base's bits.
void Contract::switching(Trial& base, Trial& t) {
  std::size_t own = 0;
  for (const auto& p : t.trained()) t.owns(*p) ? void(++own) : Trial::jitter(*p, 0.2);
  const Array on = t.scores().value(), want = base.scores().value();
  const auto turn = [&](bool to) { t.adaptation->enable(-1, t.model.arch().layers, to); };
  turn(false), turn(false);
  const bool off = same_bits(want, t.scores().value());
  turn(true);
  const bool back = same_bits(on, t.scores().value());
  const bool acts = own == t.trained().size() || !same_bits(on, want);
  add("switched off it is the base, bit for bit, and on again what it was", off && back && acts,
      fmt::format("it {} the outputs{}", acts ? "changes" : "DOES NOT change",
                  own ? fmt::format("; {} copies of base weights are not switched", own) : ""));
}

void Contract::count() {
  Trial t = trial();
  Model shapes(contract_arch(kind), {.dtype = Dtype::f32, .storage = false});
  const Adaptation unbuilt(methods, spec, shapes);
  add("trainable count = formula = what was allocated",
      t.adaptation->count() == t.adaptation->formula() && unbuilt.count() == t.adaptation->count(),
      fmt::format("allocated {}, formula {}, from shapes alone {}", t.adaptation->count(),
                  t.adaptation->formula(), unbuilt.count()));
}

// Random starts are addressed, not consumed: what was built before, or stands there, is nothing to
// them.
void Contract::seeds() {
  const auto same = [](const Trial& a, const Trial& b) {
    const Parameters x = a.trained(), y = b.trained();
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const auto& p, const auto& q) {
      return same_bits(p->value.value(), q->value.value());
    });
  };
  const Trial none = trial(Dtype::f32, 0), one = trial(Dtype::f32, 1);
  const Trial again = trial(Dtype::f32, 0);
  add("one seed gives one start, whatever was built before", same(none, again),
      same(none, one) ? "no start is drawn" : "another seed another");
}

void Contract::files() {
  Trial a = trial();
  for (const auto& p : a.adaptation->stored()) Trial::jitter(*p, 0.2);
  const auto folder = std::filesystem::temp_directory_path() /
                      fmt::format("graft-contract-{}-{}", ::getpid(), name(kind));
  save_adapter(folder, spec, a.adaptation->stored(), {});
  const auto entries = std::distance(std::filesystem::directory_iterator(folder), {});
  Trial b{methods, read_adapter_config(folder).spec, kind, {Dtype::f32, device}, 8};
  load_adapter_values(folder, b.adaptation->stored());
  std::filesystem::remove_all(folder);
  add("a saved adapter loads to the same outputs, under another seed, too",
      entries == 2 && same_bits(a.scores().value(), b.scores().value()));
}

void Contract::merging() {
  constexpr const char* kMerges = "merged = unmerged within rounding, or a reason";
  Trial t = trial();
  t.jitter_all();
  for (const auto& a : t.adaptation->adapters()) mergeable &= a->no_merge().empty();
  const Array before = t.scores().value();
  try {
    t.adaptation->merge();
  } catch (const Error& e) {
    add(kMerges, !mergeable && same_bits(before, t.scores().value()), e.what());
    return;
  }
  const Array merged = t.scores().value();
  double size = 0;
  for (const double v : before.to_vector()) size = std::max(size, std::abs(v));
  const double most = difference(before, merged);
  const auto refused = [](auto&& f) {
    try {
      f();
    } catch (const Error&) {
      return true;
    }
    return false;
  };
  const bool once = refused([&] { t.adaptation->merge(); }) &&
                    refused([&] { t.adaptation->enable(-1, t.model.arch().layers, false); });
  t.adaptation->unmerge();
  add(kMerges, mergeable && most <= 1e-5 * size && same_bits(before, t.scores().value()),
      fmt::format("largest difference {:.1e} of the largest output; unmerged again: same bits",
                  most / size));
  add("merged, it is neither merged again nor switched; a value that is not a number stays out",
      once && spoilt(t));
}

// The base's bits are its own whatever was merged into their place, if merging did not refuse.
bool Contract::spoilt(Trial& t) const {
  for (const auto& p : t.trained()) p->value.value().fill(std::numeric_limits<double>::quiet_NaN());
  try {
    t.adaptation->merge();
    t.adaptation->unmerge();
  } catch (const Error&) {
    for (const auto& a : t.adaptation->adapters())
      if (a->merged()) return false;
  }
  t.adaptation.reset();
  return t.model.hash() == bare().model.hash();
}

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

std::vector<Clause> run_contract(const Methods& methods, const std::string& spec, Body kind,
                                 Device device) {
  Contract c{methods, spec, kind, true, true, device, {}};
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
      {&Contract::seeds, "one seed gives one start, whatever was built before"},
      {&Contract::gradients, "gradients agree with finite differences"},
      {&Contract::training, "it can be trained and detached"},
      {&Contract::resuming, "training goes on from a file, bit for bit"},
      {&Contract::few_rows, "the last block can compute the rows alone that are read"},
      {&Contract::files, "a saved adapter loads to the same outputs, under another seed, too"},
      {&Contract::merging, "merged = unmerged within rounding, or a reason"},
      {&Contract::checkpointing, "checkpointed = plain, bit for bit"},
      {&Contract::half_base, "on a base of half precision it trains in f32"},
      {&Contract::in_half_precision,
       "computed in half precision, its gradients are close to f32's"},
      {&Contract::writing, "it writes with a cache as without, and with beams"},
      {&Contract::other_order, "the other order composes, or is refused with a reason"}};
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
