#include "nn/frozen_rows.h"

#include <algorithm>

#include "nn/model.h"
#include "tensor/hash.h"

namespace graft {
namespace {

int frozen_blocks(const Model& model, bool train) {
  if (!model.embedding.fixed(train) || (model.relative && !fixed(model.relative->table))) return 0;
  int n = 0;
  for (const auto& block : model.blocks) {
    if (!block->fixed(train)) break;
    ++n;
  }
  return n;
}

// Rows of each sequence begin there.
std::vector<std::int64_t> begins(const Batch& batch) {
  std::vector<std::int64_t> first{0};
  for (const int length : batch.length) first.push_back(first.back() + length);
  return first;
}

// Those sequences of the batch, as far as the blocks read it.
Batch only(const Batch& batch, const std::vector<int>& sequences) {
  const std::vector<std::int64_t> first = begins(batch);
  Batch b;
  for (const int i : sequences) {
    const auto from = first[i], to = first[i + 1];
    b.token.insert(b.token.end(), batch.token.begin() + from, batch.token.begin() + to);
    if (!batch.token_type.empty())
      b.token_type.insert(b.token_type.end(), batch.token_type.begin() + from,
                          batch.token_type.begin() + to);
    b.length.push_back(batch.length[i]);
    b.example.push_back(batch.example[i]);
  }
  return b;
}

bool same(const std::vector<std::int32_t>& kept, const std::vector<std::int32_t>& all,
          std::int64_t first, int length) {
  if (all.empty()) return kept.empty();
  return kept.size() == static_cast<std::size_t>(length) &&
         std::equal(kept.begin(), kept.end(), all.begin() + first);
}

}  // namespace

bool fixed(const Weight& w) { return w.edits.empty() && !(w && w.value().needs_grad()); }

bool Linear::fixed() const { return out.empty() && graft::fixed(w) && graft::fixed(b); }

bool Norm::fixed() const { return affine.empty() && graft::fixed(gain) && graft::fixed(bias); }

bool Attention::fixed(bool train) const {
  return q.fixed() && k.fixed() && v.fixed() && o.fixed() && graft::fixed(q_norm) &&
         graft::fixed(k_norm) && banks.empty() && out.empty() &&
         !(train && (dropout_ > 0 || weight_dropout_ > 0));
}

bool Mlp::fixed(bool train) const {
  return (!gate || gate->fixed()) && up.fixed() && down.fixed() && hidden.empty() && out.empty() &&
         !(train && (dropout_ > 0 || inner_dropout_ > 0));
}

bool Block::fixed(bool train) const {
  return norm1.fixed() && attention.fixed(train) && (!norm_x || norm_x->fixed()) &&
         (!cross || cross->fixed(train)) && norm2.fixed() && mlp.fixed(train) && out.empty();
}

bool Embedding::fixed(bool train) const {
  return out.empty() && (!shared_ || shared_->fixed(train)) && graft::fixed(token) &&
         graft::fixed(position) && graft::fixed(type) && (!norm || norm->fixed()) &&
         !(train && dropout_ > 0);
}

FrozenRows::FrozenRows(Model& model, std::size_t most_bytes)
    : model_(model.encoder ? *model.encoder : model), most_bytes_(most_bytes) {
  if (most_bytes_ == 0) return;
  blocks_ = frozen_blocks(model_, true);
  drawing_ = frozen_blocks(model_, false) - blocks_;
  weights_ = weights();
}

std::uint64_t FrozenRows::weights() const {
  Hash h;
  const auto add = [&](const Weight& w) {
    if (w) h.word(reinterpret_cast<std::uintptr_t>(w.value().value().storage().get()));
  };
  model_.embedding.each(add);
  if (model_.relative) add(model_.relative->table);
  for (int i = 0; i < blocks_; ++i) model_.blocks[static_cast<std::size_t>(i)]->each(add);
  return h.value();
}

void FrozenRows::check_unchanged(bool train) const {
  check(frozen_blocks(model_, train) >= blocks_ && weights() == weights_,
        "model: rows of its lowest {} blocks were kept as frozen; since then one of these was "
        "edited or got other weights",
        blocks_);
}

const FrozenRows::Kept* FrozenRows::find(const Batch& batch, int i, std::int64_t first) const {
  const auto at = kept_.find(batch.example[i]);
  if (at == kept_.end()) return nullptr;
  const Kept& kept = at->second;
  const bool it = same(kept.token, batch.token, first, batch.length[i]) &&
                  same(kept.type, batch.token_type, first, batch.length[i]);
  return it ? &kept : nullptr;
}

void FrozenRows::keep(const Batch& batch, const Array& rows) {
  const std::vector<std::int64_t> first = begins(batch);
  for (int i = 0; i < batch.sequences(); ++i) {
    const Array own = rows.slice(0, first[i], first[i + 1]);
    if (bytes_ + own.bytes() > most_bytes_ || kept_.contains(batch.example[i])) continue;
    const auto copy = [&](const std::vector<std::int32_t>& all) {
      if (all.empty()) return std::vector<std::int32_t>{};
      return std::vector<std::int32_t>(all.begin() + first[i], all.begin() + first[i + 1]);
    };
    bytes_ += own.bytes();
    const pool::Purpose purpose("kept rows");
    kept_[batch.example[i]] = {copy(batch.token), copy(batch.token_type), own.clone()};
  }
}

Sequence FrozenRows::operator()(const Batch& batch, Ctx& ctx) {
  check_unchanged(ctx.train);
  Sequence s = model_.embedding.shape(batch, ctx);
  const std::vector<std::int64_t> first = begins(batch);
  std::vector<const Kept*> found;
  std::vector<int> missing;
  for (int i = 0; i < batch.sequences(); ++i) {
    found.push_back(find(batch, i, first[i]));
    if (!found.back()) missing.push_back(i);
  }
  Array computed;
  if (!missing.empty()) {
    const Batch part = only(batch, missing);
    Ctx own{.train = ctx.train, .key = ctx.key};
    computed = model_.run_blocks(model_.embed(part, own), own, 0, blocks_).rows.value();
    keep(part, computed);
  }
  Array rows = Array::empty({batch.tokens(), model_.arch().width},
                            {model_.embedding.rows, model_.build().device});
  std::int64_t next = 0;
  for (int i = 0; i < batch.sequences(); ++i) {
    Array to = rows.slice(0, first[i], first[i + 1]);
    to.copy_from(found[i] ? found[i]->rows : computed.slice(0, next, next + batch.length[i]));
    if (!found[i]) next += batch.length[i];
  }
  s.rows = rows;
  return s;
}

}  // namespace graft
