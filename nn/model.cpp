#include "nn/model.h"

#include <algorithm>
#include <cmath>

#include "nn/frozen_rows.h"
#include "tensor/hash.h"

namespace graft {

namespace {

// Before anything is built.
const Arch& checked(const Arch& a) {
  check(a.vocab > 0 && a.width > 0 && a.layers > 0 && a.heads > 0 && a.kv_heads > 0 && a.hidden > 0,
        "model: vocabulary {}, width {}, layers {}, heads {}, key heads {}, hidden {}; all must be "
        "> 0",
        a.vocab, a.width, a.layers, a.heads, a.kv_heads, a.hidden);
  check(a.encoder_layers >= 0 && a.head_size >= 0,
        "model: {} encoder layers, heads of width {}; need 0 or more", a.encoder_layers,
        a.head_size);
  check((a.head_size > 0 || a.width % a.heads == 0) && a.heads % a.kv_heads == 0,
        "model: width {} does not split into {} heads, or these over {} key heads", a.width,
        a.heads, a.kv_heads);
  check(a.rope_theta <= 0 || a.head_width() % 2 == 0,
        "model: heads of width {} cannot be rotated; need an even width", a.head_width());
  check(!a.learned_positions || a.positions > 0, "model: {} positions; need at least 1",
        a.positions);
  return a;
}

}  // namespace

std::vector<std::int32_t> labelled_rows(const Sequence& s, const Batch& batch) {
  check(static_cast<std::int64_t>(batch.token_label.size()) == batch.tokens(),
        "model: {} token labels for {} tokens", batch.token_label.size(), batch.tokens());
  const auto has_label = [&](std::size_t row) {
    return s.source[row] >= 0 && batch.token_label[s.source[row]] >= 0;
  };
  std::vector<std::int32_t> rows, others;
  for (std::size_t i = 0; i < s.source.size(); ++i)
    if (s.source[i] >= 0) (has_label(i) ? rows : others).push_back(static_cast<std::int32_t>(i));
  if (batch.filler == 0 || rows.empty()) return rows;
  // Of a batch that was filled up these rows are filled up as well, by the last without a label.
  const auto n = static_cast<std::int64_t>(rows.size()), step = filled_step(n);
  const auto more = std::min<std::int64_t>((step - n % step) % step, std::ssize(others));
  rows.insert(rows.end(), others.end() - more, others.end());
  std::ranges::sort(rows);
  return rows;
}

Model::Model(const Arch& a, const Build& build)
    : encoder(checked(a).crosses() ? std::make_unique<Model>(a.encoder(), build) : nullptr),
      embedding(build, a, encoder ? &encoder->embedding : nullptr),
      arch_(a),
      build_(build) {
  if (a.relative_buckets > 0) relative.emplace(build, a);
  for (int i = 0; i < a.layers; ++i) blocks.push_back(std::make_shared<Block>(build, a, i));
  if (a.final_norm)
    final_norm.emplace(build, Site{a.stack, -1, Part::norm_out}, a.width, a.norm_eps, a.rms);
  if (a.pooler) pooler.emplace(build, Site{a.stack, -1, Part::pooler}, a.width, a.width, true);
  if (a.lm_transform) {
    lm_dense.emplace(build, Site{a.stack, -1, Part::lm_dense}, a.width, a.width, true);
    lm_norm.emplace(build, Site{a.stack, -1, Part::lm_norm}, a.width, a.norm_eps, a.rms);
  }
  if (a.lm_bias)
    lm_bias.put(std::make_shared<Parameter>(
        Parameter{{a.stack, -1, Part::lm_head},
                  "bias",
                  initial(build, {Init::Kind::zeros, 0}, {a.vocab}, {}, ""),
                  false,
                  1}));
  if (!a.tied && a.lm)
    lm_head.emplace(build, Site{a.stack, -1, Part::lm_head}, a.width, a.vocab, false);
}

void Model::begin(const Batch& batch, Ctx& ctx) const {
  ctx.batch = &batch;
  if (!batch.adapter.empty()) ctx.adapter = batch.adapter;
}

Sequence Model::embed(const Batch& batch, Ctx& ctx) const {
  begin(batch, ctx);
  if (!encoder) return embedding(batch, ctx);
  std::shared_ptr<const Sequence> memory;
  if (!ctx.goes_on()) {
    check(batch.source != nullptr,
          "model: a batch without a source; an encoder-decoder reads one text and writes another");
    check(batch.source->sequences() == batch.sequences(),
          "model: {} sequences to write, {} to read", batch.sequences(), batch.source->sequences());
    Ctx reading = ctx;
    reading.cache = nullptr;
    memory = std::make_shared<const Sequence>(encoder->forward(*batch.source, reading));
  }
  Sequence s = embedding(batch, ctx);
  s.memory = std::move(memory);
  return s;
}

// Where attention needs its queries to be a sequence's last ones, all from the first row read on
// are picked, and of a batch that was filled up some before it, to make a common number. Nothing:
// all rows are read, or so many that leaving out the rest gains nothing.
std::optional<Picked> Model::rows_to_compute(const Sequence& s, const Ctx& ctx,
                                             std::vector<std::int32_t> read) const {
  for (std::size_t i = 0; i < read.size(); ++i)
    check((i == 0 ? 0 : read[i - 1] + 1) <= read[i] && read[i] < std::ssize(s.source),
          "model: a head reads row {} after {}; need ascending rows of 0..{}", read[i],
          i == 0 ? -1 : read[i - 1], std::ssize(s.source) - 1);
  if (ctx.cache || read.empty()) return std::nullopt;
  if (arch_.causal || relative) {
    struct Part {
      std::int32_t begin, first, end;
    };
    std::vector<Part> parts;
    std::size_t next = 0;
    std::int64_t n = 0;
    for (const int length : s.length) {
      const std::int32_t begin = parts.empty() ? 0 : parts.back().end, end = begin + length;
      parts.push_back({begin, next < read.size() && read[next] < end ? read[next] : end, end});
      while (next < read.size() && read[next] < end) ++next;
      n += end - parts.back().first;
    }
    const std::int64_t step = ctx.batch->filler > 0 ? filled_step(n) : 1;
    auto more = static_cast<std::int32_t>((step - n % step) % step);
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      const std::int32_t few = std::min(more, part->first - part->begin);
      part->first -= few, more -= few;
    }
    read.clear();
    for (const Part& part : parts)
      for (std::int32_t row = part.first; row < part.end; ++row) read.push_back(row);
  }
  if (8 * read.size() > 7 * s.source.size()) return std::nullopt;
  Sequence shape = s.picked(read);
  return Picked{Array::of(read), std::move(shape)};
}

Sequence Model::run_blocks(Sequence s, const Ctx& given, int from, int to,
                           const Reads& reads) const {
  Ctx ctx = given;
  Sequence shape = s;  // what blocks read of it; its rows are not looked at
  shape.rows = {};
  ctx.sequence = &shape;
  if (relative) ctx.bias = (*relative)(shape, ctx);
  for (int i = from; i < to; ++i) {
    const std::shared_ptr<Block> block = blocks[i];
    std::optional<Picked> some;
    if (reads && i + 1 == arch_.layers) some = rows_to_compute(shape, ctx, reads(shape));
    if (ctx.checkpoint == Checkpoint::none) {
      s.rows = (*block)(s.rows, ctx, some ? &*some : nullptr);
    } else {
      // Backward runs them again, maybe after the model is gone.
      struct Held {
        std::shared_ptr<Block> block;
        Sequence shape;
        std::optional<Picked> some;
      };
      const auto held = std::make_shared<const Held>(Held{block, shape, some});
      Ctx own = ctx;
      own.sequence = &held->shape, own.held = held;
      const auto run = [own, held](const Tensor& x) {
        return (*held->block)(x, own, held->some ? &*held->some : nullptr);
      };
      s.rows = ctx.checkpoint == Checkpoint::blocks ? checkpoint(run, s.rows) : run(s.rows);
    }
    if (!some) continue;
    some->shape.rows = s.rows;
    s = std::move(some->shape);
  }
  return s;
}

Sequence Model::run_blocks(Sequence s, const Ctx& ctx, int from, int to) const {
  return run_blocks(std::move(s), ctx, from, to, {});
}

Sequence Model::finish(Sequence s, const Ctx& ctx) const {
  if (final_norm) s.rows = (*final_norm)(s.rows, ctx);
  if (arch_.inner_dropout && ctx.train)
    s.rows =
        dropout(s.rows, arch_.dropout,
                {ctx.key, stream_id(arch_.stack == Stack::encoder ? "encoder norm_out/dropout"
                                                                  : "decoder norm_out/dropout")},
                ctx.address);
  return s;
}

Sequence Model::forward(const Batch& batch, Ctx& ctx) const { return forward(batch, ctx, {}); }

Sequence Model::forward(const Batch& batch, Ctx& ctx, const Reads& reads) const {
  int from = 0;
  Sequence s;
  if (ctx.frozen && ctx.frozen->of(*this)) {
    begin(batch, ctx);
    s = (*ctx.frozen)(batch, ctx);
    from = ctx.frozen->blocks();
  } else {
    s = embed(batch, ctx);
  }
  s = run_blocks(std::move(s), ctx, from, arch_.layers, reads);
  if (!s.place.empty()) ctx.address = s.address();
  return finish(std::move(s), ctx);
}

Tensor Model::scores(const Batch& batch, Ctx& ctx) const {
  const Sequence s =
      forward(batch, ctx, [&](const Sequence& rows) { return head().reads(*this, rows, batch); });
  return head().scores(*this, s, batch, ctx);
}

Tensor Model::vocabulary(const Ctx& ctx) const {
  check(arch_.lm, "model: a body of family {} without a head over the vocabulary", arch_.family);
  return lm_head ? lm_head->w(ctx) : embedding.table(ctx);
}

Tensor Model::lm_hidden(const Tensor& rows, const Ctx& ctx) const {
  if (arch_.scaled_lm) return (1 / std::sqrt(static_cast<double>(arch_.width))) * rows;
  if (!lm_dense) return rows;
  return (*lm_norm)(map(arch_.activation, (*lm_dense)(rows, ctx)), ctx);
}

Tensor Model::lm_loss(const Batch& batch, Ctx& ctx) const {
  const Sequence s =
      forward(batch, ctx, [&](const Sequence& rows) { return labelled_rows(rows, batch); });
  return lm_loss(s, batch, ctx);
}

Tensor Model::lm_loss(const Sequence& s, const Batch& batch, const Ctx& ctx) const {
  const std::vector<std::int32_t> rows = labelled_rows(s, batch);
  check(!rows.empty(), "lm_loss: no token of the batch has a label");
  std::vector<std::int32_t> labels;
  for (const std::int32_t row : rows) labels.push_back(batch.token_label[s.source[row]]);
  const auto labelled = std::ranges::count_if(labels, [](std::int32_t l) { return l >= 0; });
  const double divisor = batch.divisor > 0 ? batch.divisor : static_cast<double>(labelled);
  const Tensor h = lm_hidden(gather(s.rows, Array::of(rows)), ctx);
  return linear_cross_entropy(h, vocabulary(ctx), lm_bias(ctx), Array::of(labels), divisor);
}

Tensor Model::lm_logits(const Sequence& s, const std::vector<std::int32_t>& rows,
                        const Ctx& ctx) const {
  const Tensor h = lm_hidden(gather(s.rows, Array::of(rows)), ctx);
  return cast(linear(h, vocabulary(ctx), lm_bias(ctx)), build_.dtype);
}

void Model::move_to(Device device) {
  const pool::Purpose purpose("weights");
  build_.device = device;
  const auto move = [&](Weight& w) {
    if (!w) return;
    check(!w.value().needs_grad(), "model: '{}' trains; move the model before methods are attached",
          w.parameter().label());
    w.parameter().value = Tensor(w.value().value().to(device));
  };
  each(move);
  if (head_) head_->each(move);
  if (encoder) encoder->build_.device = device;
}

Head& Model::head() const {
  check(head_ != nullptr, "model: it has no head; set one for the task first");
  return *head_;
}

std::vector<Block*> Model::all_blocks() {
  std::vector<Block*> all;
  if (encoder) all = encoder->all_blocks();
  for (auto& block : blocks) all.push_back(block.get());
  return all;
}

std::vector<Linear*> Model::linears(const Where& where) {
  std::vector<Linear*> found, all;
  for (Block* block : all_blocks()) {
    for (Attention* a : {&block->attention, block->cross ? &*block->cross : nullptr})
      if (a) all.insert(all.end(), {&a->q, &a->k, &a->v, &a->o});
    if (block->mlp.gate) all.push_back(&*block->mlp.gate);
    all.push_back(&block->mlp.up);
    all.push_back(&block->mlp.down);
  }
  for (Part part : where.parts) {
    bool any = false;
    for (Linear* l : all) any |= l->site.part == part;
    check(any, "no linear is called '{}' in this model; it has q k v o {}{}up down", name(part),
          encoder ? "xq xk xv xo " : "", arch_.gated ? "gate " : "");
  }
  for (Linear* l : all)
    if (where.has(l->site, std::max(arch_.layers, arch_.encoder_layers))) found.push_back(l);
  check(!found.empty(), "no linear matches {} in layers {}..{}; the model has layers 0..{}",
        to_string(where.parts), where.first, where.last,
        std::max(arch_.layers, arch_.encoder_layers) - 1);
  return found;
}

std::vector<Norm*> Model::norms() {
  std::vector<Norm*> all;
  if (encoder) all = encoder->norms();
  if (embedding.norm) all.push_back(&*embedding.norm);
  for (auto& block : blocks) {
    all.push_back(&block->norm1);
    if (block->norm_x) all.push_back(&*block->norm_x);
    all.push_back(&block->norm2);
  }
  if (final_norm) all.push_back(&*final_norm);
  return all;
}

void Model::each(const EachWeight& f) {
  if (encoder) encoder->each(f);
  embedding.each(f);
  if (relative) f(relative->table);
  for (auto& block : blocks) block->each(f);
  if (final_norm) final_norm->each(f);
  if (pooler && arch_.pooler) pooler->each(f);
  if (lm_dense) lm_dense->each(f);
  if (lm_norm) lm_norm->each(f);
  if (lm_bias) f(lm_bias);
  if (lm_head) lm_head->each(f);
}

std::int64_t Model::parameters() {
  std::int64_t n = 0;
  each([&](Weight& w) { n += w.value().numel(); });
  return n;
}

std::uint64_t Model::hash() {
  Hash h;
  each([&](Weight& w) { h.word(w.value().value().hash()); });
  return h.value();
}

}  // namespace graft
