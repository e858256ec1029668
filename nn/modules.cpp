#include "nn/modules.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace graft {
namespace {

void put(Weight& place, const Build& build, const Init& init, Shape shape, const Site& site,
         const std::string& name, bool decay) {
  Array value = initial(build, init, std::move(shape), site, name);
  place.put(std::make_shared<Parameter>(Parameter{site, name, Tensor(std::move(value)), decay, 1}));
}

void visit(Weight& place, const EachWeight& f) {
  if (place) f(place);
}

Tensor dropped(const Tensor& x, double p, const Ctx& ctx, const Site& site) {
  return dropped(x, p, ctx, ctx.address, site);
}

// Rows [N, heads dh], each head's part of them by itself.
Tensor norm_heads(const Tensor& x, const Tensor& gain, double eps) {
  const std::int64_t dh = gain.dim(0);
  return reshape(rms_norm(reshape(x, {x.numel() / dh, dh}), gain, eps), x.shape());
}

// What is stored in half precision as edits get it; ops turn what they read into their rows' type.
Tensor wide(const Tensor& x) {
  return is_half(x.dtype()) ? Tensor(x.value().to(widened(x.dtype()))) : x;
}

}  // namespace

Tensor dropped(const Tensor& x, double p, const Ctx& ctx, const RowAddress& address,
               const Site& site) {
  if (!ctx.train || p == 0) return x;
  return dropout(x, p, {ctx.key, stream_id((to_string(site) + "/dropout").c_str())}, address);
}

Linear::Linear(const Build& build, const Site& at, int in, int out, bool bias, double scale)
    : site(at), in_(in), out_(out) {
  put(w, build, {Init::Kind::normal, scale / std::sqrt(3.0 * in)}, {out, in}, site, "weight", true);
  if (bias) put(b, build, {Init::Kind::zeros, 0}, {out}, site, "bias", false);
}

Tensor Linear::operator()(const Tensor& x, const Ctx& ctx) const {
  return out(linear(x, w(ctx), b(ctx)), x, ctx);
}

void Linear::each(const EachWeight& f) {
  visit(w, f);
  visit(b, f);
}

Norm::Norm(const Build& build, const Site& at, int width, double eps, bool rms)
    : site(at), eps_(eps), rms_(rms) {
  put(gain, build, {Init::Kind::ones, 1}, {width}, site, "weight", false);
  if (!rms) put(bias, build, {Init::Kind::zeros, 0}, {width}, site, "bias", false);
}

Tensor Norm::operator()(const Tensor& x, const Ctx& ctx) const {
  Affine a{gain(ctx), bias(ctx)};
  if (!affine.empty()) a = affine({wide(a.gain), wide(a.bias)}, ctx);
  return rms_ ? rms_norm(x, a.gain, eps_) : layer_norm(x, a.gain, a.bias, eps_);
}

void Norm::each(const EachWeight& f) {
  visit(gain, f);
  visit(bias, f);
}

Array rope_frequencies(int head_width, double theta, const RopeScaling& scaling, Dtype dtype) {
  const auto lowered = [&](double frequency) {
    if (scaling.kind == RopeScaling::Kind::none) return frequency;
    if (scaling.kind == RopeScaling::Kind::linear) return frequency / scaling.factor;
    const double turns = scaling.original * frequency / (2 * std::numbers::pi);
    const double kept = std::clamp((turns - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0);
    return (1 - kept) * frequency / scaling.factor + kept * frequency;
  };
  Array frequency = Array::empty({head_width / 2}, dtype);
  dispatch(frequency, [&]<class T>(T) {
    for (int i = 0; i < head_width / 2; ++i)
      frequency.data<T>()[i] = static_cast<T>(lowered(std::pow(theta, -2.0 * i / head_width)));
  });
  return frequency;
}

Arch Arch::encoder() const {
  Arch a = *this;
  a.stack = Stack::encoder;
  a.layers = encoder_layers;
  a.encoder_layers = 0;
  a.causal = a.lm = false;
  a.tied = true;
  return a;
}

std::vector<Arch> Arch::stacks() const {
  if (!crosses()) return {*this};
  return {encoder(), *this};
}

Attention::Attention(const Build& build, const Arch& a, int layer, To to)
    : q(build, {a.stack, layer, to == To::itself ? Part::q : Part::xq}, a.width,
        a.heads * a.head_width(), a.biased(Part::q)),
      k(build, {a.stack, layer, to == To::itself ? Part::k : Part::xk}, a.width,
        a.kv_heads * a.head_width(), a.biased(Part::k)),
      v(build, {a.stack, layer, to == To::itself ? Part::v : Part::xv}, a.width,
        a.kv_heads * a.head_width(), a.biased(Part::v)),
      o(build, {a.stack, layer, to == To::itself ? Part::o : Part::xo}, a.heads * a.head_width(),
        a.width, a.biased(Part::o), 1 / std::sqrt(2.0 * a.layers)),
      to_(to),
      heads_(a.heads),
      kv_heads_(a.kv_heads),
      causal_(a.causal && to == To::itself),
      scaled_(a.scaled_scores),
      dropout_(a.attention_result_dropout ? a.dropout : 0),
      weight_dropout_(a.inner_dropout ? a.dropout : a.attention_dropout),
      norm_eps_(a.norm_eps) {
  if (a.head_norms && to == To::itself)
    for (const auto& [place, of] : {std::pair{&q_norm, &q}, std::pair{&k_norm, &k}})
      put(*place, build, {Init::Kind::ones, 1}, {a.head_width()}, of->site, "norm", false);
  if (a.rope_theta > 0 && build.storage && to == To::itself)
    frequency_ = rope_frequencies(a.head_width(), a.rope_theta, a.rope_scaling, build.dtype);
}

Attn Attention::project(const Tensor& x, const Ctx& ctx) const {
  const double scale = scaled_ ? 1 / std::sqrt(static_cast<double>(q.out_width() / heads_)) : 1.0;
  const Sequence& rows = *ctx.sequence;
  if (to_ == To::across) {
    // A cache that has the encoder's keys and values already needs the queries alone.
    if (!rows.memory) return {q(x, ctx), {}, {}, scale, {}, true};
    const Sequence& memory = *rows.memory;
    Ctx over = ctx;
    over.sequence = &memory, over.batch = ctx.batch ? ctx.batch->source.get() : nullptr;
    over.address = memory.address();
    return {q(x, ctx), k(memory.rows, over), v(memory.rows, over), scale, {}, true};
  }
  Attn a{q(x, ctx), k(x, ctx), v(x, ctx), scale, {}};
  if (q_norm) a.q = norm_heads(a.q, q_norm(ctx), norm_eps_);
  if (k_norm) a.k = norm_heads(a.k, k_norm(ctx), norm_eps_);
  if (frequency_.defined()) {
    const Array position = Array::of(rows.position);
    a.q = rotate(a.q, position, frequency_, heads_);
    a.k = rotate(a.k, position, frequency_, kv_heads_);
  }
  return a;
}

Tensor Attention::heads_of(const Tensor& x, const Ctx& ctx, const Picked* some,
                           const Ctx& after) const {
  Attn a = banks(project(x, ctx), ctx);
  if (some) a.q = some->of(a.q);
  return attend(a, after, some ? ctx.sequence->length : std::vector<int>{});
}

Tensor Attention::mixed(const Tensor& x, const Ctx& ctx, const Picked* some,
                        const Ctx& after) const {
  if (ctx.checkpoint != Checkpoint::inner) return heads_of(x, ctx, some, after);
  return checkpoint([=, this](const Tensor& in) { return heads_of(in, ctx, some, after); }, x);
}

Tensor Attention::rest(const Tensor& mixed, const Sub& sub, const Ctx& ctx) const {
  return out(dropped(o(mixed, ctx), dropout_, ctx, o.site), sub, ctx);
}

Tensor Attention::operator()(const Tensor& x, const Tensor& residual, const Ctx& ctx) const {
  return rest(mixed(x, ctx, nullptr, ctx), Sub{x, residual}, ctx);
}

void Attention::each(const EachWeight& f) {
  for (Linear* l : {&q, &k, &v, &o}) l->each(f);
  visit(q_norm, f);
  visit(k_norm, f);
}

Mlp::Mlp(const Build& build, const Arch& a, int layer)
    : up(build, {a.stack, layer, Part::up}, a.width, a.hidden, a.biased(Part::up)),
      down(build, {a.stack, layer, Part::down}, a.hidden, a.width, a.biased(Part::down),
           1 / std::sqrt(2.0 * a.layers)),
      activation_(a.activation),
      dropout_(a.dropout),
      inner_dropout_(a.inner_dropout ? a.dropout : 0) {
  if (a.gated)
    gate.emplace(build, Site{a.stack, layer, Part::gate}, a.width, a.hidden, a.biased(Part::gate));
}

// What enters `down`.
Tensor Mlp::expanded(const Tensor& x, const Ctx& ctx) const {
  Tensor h;
  if (gate)
    h = activation_ == Map::silu ? swiglu((*gate)(x, ctx), up(x, ctx))
                                 : map(activation_, (*gate)(x, ctx)) * up(x, ctx);
  else
    h = map(activation_, up(x, ctx));
  return hidden(dropped(h, inner_dropout_, ctx, up.site), ctx);
}

Tensor Mlp::operator()(const Tensor& x, const Tensor& residual, const Ctx& ctx) const {
  const bool forgets = ctx.checkpoint == Checkpoint::inner;
  const Tensor h = forgets
                       ? checkpoint([=, this](const Tensor& in) { return expanded(in, ctx); }, x)
                       : expanded(x, ctx);
  const Tensor y = down(h, ctx);
  return out(dropped(y, dropout_, ctx, down.site), Sub{x, residual}, ctx);
}

void Mlp::each(const EachWeight& f) {
  if (gate) gate->each(f);
  up.each(f);
  down.each(f);
}

Block::Block(const Build& build, const Arch& a, int layer)
    : norm1(build, {a.stack, layer, Part::norm1}, a.width, a.norm_eps, a.rms),
      attention(build, a, layer),
      norm2(build, {a.stack, layer, Part::norm2}, a.width, a.norm_eps, a.rms),
      mlp(build, a, layer),
      pre_norm_(a.pre_norm) {
  if (!a.crosses()) return;
  check(a.pre_norm, "model: an encoder-decoder with norms after its sub-layers");
  norm_x.emplace(build, Site{a.stack, layer, Part::norm_x}, a.width, a.norm_eps, a.rms);
  cross.emplace(build, a, layer, Attention::To::across);
}

// The skip is picked once, after attention has read all rows: gradients then come in the order, and
// with the bits, that they have where no row is left out.
Tensor Block::operator()(const Tensor& all, const Ctx& of_all, const Picked* some) const {
  std::optional<Ctx> own;
  if (some) {
    own = of_all;
    own->sequence = &some->shape, own->address = some->shape.address();
  }
  const Ctx& ctx = some ? *own : of_all;
  const auto picked = [&](const Tensor& t) { return some ? some->of(t) : t; };
  if (pre_norm_) {
    const Tensor read = norm1(all, of_all);
    const Tensor y = attention.mixed(read, of_all, some, ctx);
    const Tensor x = picked(all);
    const Sub sub{attention.out.empty() ? Tensor() : picked(read), x};
    Tensor h = x + attention.rest(y, sub, ctx);
    if (cross) h = h + (*cross)((*norm_x)(h, ctx), h, ctx);
    return out(h + mlp(norm2(h, ctx), h, ctx), ctx);
  }
  const Tensor y = attention.mixed(all, of_all, some, ctx);
  const Tensor x = picked(all);
  const Tensor h = norm1(x + attention.rest(y, Sub{x, x}, ctx), ctx);
  return out(norm2(h + mlp(h, h, ctx), ctx), ctx);
}

void Block::each(const EachWeight& f) {
  norm1.each(f);
  attention.each(f);
  if (norm_x) norm_x->each(f);
  if (cross) cross->each(f);
  norm2.each(f);
  mlp.each(f);
}

Embedding::Embedding(const Build& build, const Arch& a, const Embedding* shared)
    : rows(build.dtype),
      shared_(shared),
      stack_(a.crosses() ? a.stack : Stack::encoder),  // one name for all single stacks
      positions_(a.positions),
      offset_(a.position_offset),
      window_(a.window),
      dropout_(a.embed_dropout ? a.dropout : 0) {
  const Init init{Init::Kind::normal, 0.02};
  // Released T5 starts it at 1: divided by sqrt(width), smaller rows would tell tokens apart late.
  if (!shared)
    put(token, build, {Init::Kind::normal, a.scaled_lm ? 1 : 0.02}, {a.vocab, a.width},
        {a.stack, -1, Part::embed}, "weight", true);
  if (a.learned_positions)
    put(position, build, init, {a.positions + a.position_offset, a.width},
        {a.stack, -1, Part::position}, "weight", true);
  if (a.token_types > 0)
    put(type, build, {Init::Kind::zeros, 0}, {a.token_types, a.width}, {a.stack, -1, Part::embed},
        "type", true);
  if (a.embed_norm)
    norm.emplace(build, Site{a.stack, -1, Part::norm_embed}, a.width, a.norm_eps, a.rms);
}

Sequence Embedding::shape(const Batch& batch, Ctx& ctx) const {
  check(batch.example.size() == batch.length.size(), "embedding: {} sequences, {} example numbers",
        batch.length.size(), batch.example.size());
  check(!ctx.cache || ctx.cache->sequences() == batch.sequences(),
        "embedding: {} sequences, the cache holds {}", batch.sequences(),
        ctx.cache ? ctx.cache->sequences() : 0);
  Sequence s;
  s.length = batch.length;
  for (int i = 0, row = 0; i < batch.sequences(); ++i)
    for (int j = 0; j < batch.length[i]; ++j) {
      s.source.push_back(row++);
      s.position.push_back(j + (ctx.cache ? ctx.cache->position()[i] : 0));
      s.example.push_back(static_cast<std::int32_t>(batch.example[i]));
    }
  check(static_cast<std::int64_t>(s.source.size()) == batch.tokens(),
        "embedding: lengths add up to {}, the batch has {} tokens", s.source.size(),
        batch.tokens());
  ctx.address = s.address();
  return s;
}

Sequence Embedding::operator()(const Batch& batch, Ctx& ctx) const {
  Sequence s = shape(batch, ctx);
  const auto look_up = [this](const Tensor& all, const Array& which) {
    return cast(gather(all, which), rows);
  };
  s.rows = look_up(table(ctx), Array::of(batch.token));
  if (!out.empty()) {
    s = out(std::move(s), ctx);
    ctx.address = s.address();
  }
  if (ctx.cache) {
    std::vector<std::int32_t> next = ctx.cache->position();
    for (std::size_t i = 0, row = 0; i < s.length.size(); ++i)
      if (row += static_cast<std::size_t>(s.length[i]); s.length[i] > 0)
        next[i] = s.position[row - 1] + 1;
    ctx.cache->set_position(std::move(next));
  }
  for (const std::int32_t p : s.position)
    check(window_ == 0 || p < window_,
          "embedding: position {}; this model's attention has a window (sliding_window) of {} "
          "tokens, and no text may be longer here: shorten it",
          p, window_);
  if (position) {
    std::vector<std::int32_t> at = s.position;
    for (std::int32_t& p : at) {
      check(p < positions_, "embedding: position {}; the model has 0..{}: shorten the text", p,
            positions_ - 1);
      p += offset_;
    }
    s.rows = s.rows + look_up(position(ctx), Array::of(at));
  }
  if (type) s.rows = s.rows + look_up(type(ctx), types_of(batch, s));
  if (norm) s.rows = (*norm)(s.rows, ctx);
  s.rows = dropped(s.rows, dropout_, ctx, {stack_, -1, Part::embed});
  return s;
}

// A virtual row has type 0, and so has every token of a batch that says nothing.
Array Embedding::types_of(const Batch& batch, const Sequence& s) const {
  std::vector<std::int32_t> types(s.source.size(), 0);
  if (batch.token_type.empty()) return Array::of(types);
  check(batch.token_type.size() == batch.token.size(), "embedding: {} token types for {} tokens",
        batch.token_type.size(), batch.token.size());
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (s.source[i] >= 0) types[i] = batch.token_type[s.source[i]];
    check(types[i] >= 0 && types[i] < type.value().dim(0),
          "embedding: token type {}; the model has {}", types[i], type.value().dim(0));
  }
  return Array::of(types);
}

void Embedding::each(const EachWeight& f) {
  visit(token, f);
  visit(position, f);
  visit(type, f);
  if (norm) norm->each(f);
}

}  // namespace graft
