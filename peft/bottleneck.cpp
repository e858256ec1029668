#include "peft/bottleneck.h"

#include <algorithm>
#include <cmath>

#include "peft/part_shapes.h"

namespace graft {
namespace {

using Place = BottleneckOptions::Place;
using Start = BottleneckOptions::Start;
using Norms = BottleneckOptions::Norms;

// As long as the names are in the enumeration's order.
template <class T>
T chosen(Options& o, const char* key, const char* standard, const std::vector<std::string>& names) {
  const std::string value = o.choice(key, standard, names);
  return static_cast<T>(std::find(names.begin(), names.end(), value) - names.begin());
}

constexpr double kNormEps = 1e-5;

// One adapter's parameters and what they compute.
struct Unit {
  Tensor down, down_b, up, up_b, gain, shift, scale;
  Map f;
  Norms norm;
  double s, dropout_rate;
  std::uint32_t noise;

  Tensor operator()(Tensor z, const Ctx& ctx) const {
    if (norm == Norms::before) z = layer_norm(z, gain, shift, kNormEps);
    Tensor u = linear(map(f, linear(z, down, down_b)), up, up_b);
    if (scale.defined())
      u = scale * u;
    else if (s != 1)
      u = s * u;
    if (ctx.train) u = dropout(u, dropout_rate, {ctx.key, noise}, ctx.address);
    return norm == Norms::after ? layer_norm(u, gain, shift, kNormEps) : u;
  }
};

struct Bottleneck : Adapter, BottleneckOptions {
  Bottleneck(Options& o, const Arch& arch, const BottleneckForm& form)
      : Adapter(form.method), BottleneckOptions(o, arch, form) {
    starts_as_base_ = start == Start::mam || (norm == Norms::after && !gamma);
  }

  void attach(Model& model) override {
    const int d = model.arch().width;
    check(m <= d, "{}: m={} in a model of width {}; need m <= {}", name(), m, d, d);
    for (Block* block : model.all_blocks()) {
      const auto [stack, layer, part] = block->norm1.site;
      if (layer < where.first || layer > where.last) continue;
      const auto add = [&, stack = stack, layer = layer](Part at, auto& module, const Norm* after) {
        if (where.has(at)) add_to(model, {stack, layer, at}, module.out, after);
      };
      add(Part::attn, block->attention, &block->norm1);
      if (block->cross) add(Part::cross, *block->cross, &*block->norm_x);
      add(Part::mlp, block->mlp, &block->norm2);
    }
    Where linears = where;
    std::erase_if(linears.parts, [](Part p) { return !is_linear(p); });
    if (!linears.parts.empty())
      for (Linear* l : model.linears(linears)) add_to(model, *l);
    if (norms)
      for (Norm* norm : model.norms()) norm->each([&](Weight& w) { own(w); });
  }

  Unit unit(const Model& model, const Site& site, std::int64_t in, std::int64_t out) {
    const Init zeros{};
    Init down{start == Start::truncated ? Init::Kind::truncated : Init::Kind::normal, std},
        up = down;
    if (start == Start::mam) down = {Init::Kind::uniform, 1 / std::sqrt(double(in))}, up = zeros;
    const Like small{.decay = false};
    Unit u;
    u.f = f, u.norm = norm, u.s = s, u.dropout_rate = dropout_rate;
    u.noise = stream_id((to_string(site) + "/" + name() + " dropout").c_str());
    u.down = param(model, site, "down.weight", {m, in}, down);
    if (bias) u.down_b = param(model, site, "down.bias", {m}, zeros, small);
    u.up = param(model, site, "up.weight", {out, m}, up);
    if (bias) u.up_b = param(model, site, "up.bias", {out}, zeros, small);
    if (norm != Norms::none) {
      const std::int64_t width = norm == Norms::before ? in : out;
      const Init gain{gamma ? Init::Kind::ones : Init::Kind::zeros, 1};
      u.gain = param(model, site, "norm.weight", {width}, gain, small);
      u.shift = param(model, site, "norm.bias", {width}, zeros, small);
    }
    if (learned) u.scale = param(model, site, "scale", {1}, {Init::Kind::ones, 1}, small);
    return u;
  }

  void add_to(const Model& model, const Site& site, Slot<Tensor, Sub, Ctx>& slot,
              const Norm* after) {
    const int d = model.arch().width;
    if (model.arch().pre_norm) after = nullptr;
    hold(site, slot.add(name(), [u = unit(model, site, d, d), after, at = place](
                                    Tensor y, const Sub& sub, const Ctx& ctx) {
      if (at == Place::serial) return y + u(y, ctx);
      if (at == Place::parallel) return y + u(sub.x, ctx);
      if (at == Place::residual) return y + u(sub.residual, ctx);
      const Tensor joined = y + sub.residual;
      return y + u(after ? (*after)(joined, ctx) : joined, ctx);
    }));
  }

  void add_to(const Model& model, Linear& l) {
    const std::int64_t in = place == Place::serial ? l.out_width() : l.in();
    const std::int64_t out = place == Place::before ? l.in() : l.out_width();
    hold(l.site, l.out.add(name(), [u = unit(model, l.site, in, out), at = place, to = &l](
                                       Tensor y, const Tensor& x, const Ctx& ctx) {
      if (at == Place::serial) return y + u(y, ctx);
      if (at == Place::parallel) return y + u(x, ctx);
      const Tensor& w = to->w.value();  // W (x + u) + b
      return y + linear(u(x, ctx), to->weight.empty() ? w : to->weight(w, ctx));
    }));
  }

  std::int64_t formula(const Arch& arch) const override {
    std::int64_t count = 0;
    for (const Arch& stack : arch.stacks()) {
      if (norms) count += stack.norms() * std::int64_t{arch.width} * (arch.rms ? 1 : 2);
      for (Part part : where.parts) {
        const PartShape s = shape_of(arch, part);
        const std::int64_t in = is_linear(part) && place == Place::serial ? s.out : s.in;
        const std::int64_t out = place == Place::before ? s.in : s.out;
        std::int64_t one = m * (in + out) + (bias ? m + out : 0) + learned;
        if (norm != Norms::none) one += 2 * (norm == Norms::before ? in : out);
        count += count_of(where, stack, part) * one;
      }
    }
    return count;
  }
};

}  // namespace

Map map_named(Options& o, const char* standard) {
  const std::string f =
      o.choice("f", standard, {"gelu", "relu", "tanh", "gelu_tanh", "silu", "swish"});
  return f == "gelu"        ? Map::gelu
         : f == "relu"      ? Map::relu
         : f == "tanh"      ? Map::tanh
         : f == "gelu_tanh" ? Map::gelu_tanh
                            : Map::silu;
}

BottleneckOptions::BottleneckOptions(Options& o, const Arch& arch, const BottleneckForm& form)
    : where(o.where(form.on, arch)),
      m(o.integer("m", form.reduction > 0 ? std::max(1, arch.width / form.reduction) : form.m)),
      f(map_named(o, form.f)),
      place(chosen<Place>(o, "place", form.place,
                          {"serial", "parallel", "residual", "joined", "before"})),
      start(chosen<Start>(o, "init", form.init, {"truncated", "normal", "mam"})),
      std(start == Start::mam ? 0 : o.real("std", start == Start::normal ? 0.02 : 0.01)),
      learned(o.text("s", fmt::format("{}", form.s)) == "learned"),
      s(learned ? 1 : o.real("s", form.s)),
      dropout_rate(o.real("dropout", 0)),
      norm(chosen<Norms>(o, "norm", "none", {"none", "before", "after"})),
      gamma(norm == Norms::none || o.choice("gamma", "1", {"1", "0"}) == "1"),
      bias(o.flag("bias", form.bias)),
      norms(o.flag("norms", form.norms)) {
  const std::string& method = o.method();
  check(std >= 0, "{}: std={}; need at least 0", method, std);
  check(0 <= dropout_rate && dropout_rate < 1, "{}: dropout={}; need 0 <= dropout < 1", method,
        dropout_rate);
  check(start != Start::mam || norm != Norms::after || gamma,
        "{}: init=mam with norm=after,gamma=0: W_up and the norm's gain would both start at 0, and "
        "then only a bias ever trains; need gamma=1, init=truncated or init=normal",
        method);
  std::int64_t placed = 0;
  for (Part part : where.parts) {
    const bool linear = form.linears && is_linear(part);
    check(linear || part == Part::attn || part == Part::mlp ||
              (part == Part::cross && arch.crosses()),
          "{}: on={}; need attn, mlp or attn+mlp{}{}", method, to_string(where.parts),
          arch.crosses() ? ", or cross" : "", form.linears ? ", or linears such as up" : "");
    check(linear ? place != Place::residual && place != Place::joined : place != Place::before,
          "{}: on={} with place={}; {}", method, to_string(where.parts), o.text("place", ""),
          linear ? "beside a linear there are serial, parallel and before"
                 : "before is of linears such as up; sub-layers have the others");
    for (const Arch& stack : arch.stacks()) placed += count_of(where, stack, part);
  }
  check(placed > 0, "{}: on={} in layers {}..{} is nowhere in this model", method,
        to_string(where.parts), where.first, where.last);
}

std::unique_ptr<Adapter> make_bottleneck(Options& o, const Arch& arch, const BottleneckForm& form) {
  return std::make_unique<Bottleneck>(o, arch, form);
}

}  // namespace graft
