// Attention after projection: the cache, extra keys and values, the softmax.
#include <algorithm>
#include <map>

#include "nn/modules.h"

namespace graft {

// The rows of one call of sdpa and how they lie.
struct Attention::Attending {
  Tensor q, k, v, bias;
  AttentionShape shape;
};

namespace {

// Keys and values without the unused rows between a cache's sequences.
void close_up(Tensor& k, Tensor& v, AttentionShape& shape) {
  std::vector<std::int32_t> rows;
  for (std::size_t i = 0; i < shape.k_length.size(); ++i)
    for (int j = 0; j < shape.k_length[i]; ++j) rows.push_back(shape.k_start[i] + j);
  k = gather(k, Array::of(rows));
  v = gather(v, Array::of(rows));
  shape.k_start.clear();
}

// Rows of the sequences `of`, of which each has so many of its own, one after another.
std::vector<std::int32_t> rows_of(const std::vector<int>& of, const std::vector<int>& length) {
  std::vector<std::int32_t> start(length.size() + 1, 0), rows;
  for (std::size_t i = 0; i < length.size(); ++i) start[i + 1] = start[i] + length[i];
  for (const int i : of)
    for (int j = 0; j < length[static_cast<std::size_t>(i)]; ++j)
      rows.push_back(start[static_cast<std::size_t>(i)] + j);
  return rows;
}

std::vector<int> picked(const std::vector<int>& all, const std::vector<int>& of) {
  std::vector<int> some;
  for (const int i : of) some.push_back(all[static_cast<std::size_t>(i)]);
  return some;
}

Array picked(const Array& each, const Array& rows) {
  std::vector<std::int32_t> some;
  for (std::int64_t i = 0; i < rows.numel(); ++i)
    some.push_back(each.data<std::int32_t>()[rows.data<std::int32_t>()[i]]);
  return Array::of(some);
}

// The sequences that read the same banks, by their adapter, -1 for those that have none of their
// own.
std::map<int, std::vector<int>> by_banks(const std::vector<Bank>& banks,
                                         const std::vector<std::int32_t>& adapter,
                                         std::size_t sequences) {
  check(adapter.size() == sequences, "attention: adapters of {} sequences out of {}",
        adapter.size(), sequences);
  std::map<int, std::vector<int>> all;
  for (std::size_t i = 0; i < sequences; ++i) {
    const bool own =
        std::ranges::any_of(banks, [&](const Bank& b) { return b.of >= 0 && b.of == adapter[i]; });
    all[own ? adapter[i] : -1].push_back(static_cast<int>(i));
  }
  return all;
}

}  // namespace

// A cache never holds banks.
Tensor Attention::attend(const Attn& a, const Ctx& ctx, const std::vector<int>& keys) const {
  const Sequence& rows = *ctx.sequence;
  Attending all{a.q, a.k, a.v, {}, {causal_, a.scale, rows.length, keys, {}}};
  AttentionShape& shape = all.shape;
  if (to_ == To::across) {
    if (!ctx.cache) shape.k_length = rows.memory->length;
  } else {
    all.bias = ctx.bias.places, shape.bias_zero = ctx.bias.zero;
  }
  if (ctx.cache) {
    const KvCache::Layer& read =
        to_ == To::itself ? ctx.cache->extend(q.site.layer, a.k.value(), a.v.value(), rows.length)
        : a.k.defined()
            ? ctx.cache->keep_memory(q.site.layer, a.k.value(), a.v.value(), rows.memory->length)
            : ctx.cache->memory(q.site.layer);
    all.k = read.k, all.v = read.v;
    shape.k_length = read.length, shape.k_start = read.start;
  }
  if (ctx.train && weight_dropout_ > 0) {
    shape.dropout = weight_dropout_;
    shape.stream = {ctx.key, stream_id((to_string(q.site) + "/attention dropout").c_str())};
    shape.example = ctx.address.example, shape.position = ctx.address.position;
  }
  if (std::ranges::all_of(a.banks, [](const Bank& b) { return b.of < 0; }))
    return with_banks(std::move(all), a.banks);
  std::vector<Tensor> parts;
  std::vector<std::int32_t> back(static_cast<std::size_t>(a.q.dim(0)));
  std::int32_t next = 0;
  for (const auto& [which, sequences] : by_banks(a.banks, ctx.adapter, rows.length.size())) {
    std::vector<Bank> banks;
    for (const Bank& b : a.banks)
      if (b.of < 0 || b.of == which) banks.push_back(b);
    for (const std::int32_t row : rows_of(sequences, rows.length))
      back[static_cast<std::size_t>(row)] = next++;
    parts.push_back(with_banks(part_of(all, sequences), banks));
  }
  return gather(concat(parts, 0), Array::of(back));
}

// The same of some sequences alone.
Attention::Attending Attention::part_of(const Attending& all,
                                        const std::vector<int>& sequences) const {
  Attending part = all;
  AttentionShape& shape = part.shape;
  const Array rows = Array::of(rows_of(sequences, all.shape.q_length));
  part.q = gather(all.q, rows);
  shape.q_length = picked(all.shape.q_length, sequences);
  if (!all.shape.k_length.empty()) shape.k_length = picked(all.shape.k_length, sequences);
  if (!all.shape.k_start.empty()) {
    shape.k_start = picked(all.shape.k_start, sequences);
  } else {
    const Array keys = Array::of(
        rows_of(sequences, all.shape.k_length.empty() ? all.shape.q_length : all.shape.k_length));
    part.k = gather(all.k, keys), part.v = gather(all.v, keys);
  }
  if (all.bias.defined() && all.bias.dim(0) > heads_)
    part.bias =
        gather(all.bias,
               Array::of(rows_of(sequences, std::vector<int>(all.shape.q_length.size(), heads_))));
  if (shape.dropout > 0)
    shape.example = picked(shape.example, rows), shape.position = picked(shape.position, rows);
  return part;
}

// Ungated banks are prepended and share the softmax; a gated bank is a second attention over its
// own keys, times its gate, added, and has no dropout: a gate of zero leaves the output as it was.
Tensor Attention::with_banks(Attending a, const std::vector<Bank>& banks) const {
  const std::vector<int>& length = a.shape.q_length;
  for (const Bank& bank : banks) {
    if (bank.gate.defined()) continue;
    if (!a.shape.k_start.empty()) close_up(a.k, a.v, a.shape);
    const std::vector<int> before = a.shape.k_length.empty() ? length : a.shape.k_length;
    a.k = prepend(bank.k, a.k, before);
    a.v = prepend(bank.v, a.v, before);
    a.shape.k_length = before;
    for (int& l : a.shape.k_length) l += static_cast<int>(bank.k.dim(0));
    a.shape.unbiased += static_cast<int>(bank.k.dim(0));
  }
  Tensor y = sdpa(a.q, a.k, a.v, heads_, kv_heads_, a.shape, a.bias);
  for (const Bank& bank : banks) {
    if (!bank.gate.defined()) continue;
    const std::vector<int> none(length.size(), 0);
    const Tensor empty(Array::empty({0, bank.k.dim(1)}, bank.k.kind()));
    const AttentionShape own{false,
                             a.shape.scale,
                             length,
                             std::vector<int>(length.size(), static_cast<int>(bank.k.dim(0))),
                             {}};
    y = y + bank.gate * sdpa(a.q, prepend(bank.k, empty, none), prepend(bank.v, empty, none),
                             heads_, kv_heads_, own);
  }
  return y;
}

}  // namespace graft
