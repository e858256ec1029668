#include "nn/head.h"

#include <cmath>

#include "nn/model.h"
#include "nn/pooling.h"

namespace graft {
namespace {

bool counts(std::int32_t source) { return source >= 0 || source == kPooledRow; }

// Virtual rows do not count: the mean is over rows that are tokens.
Tensor mean_of_tokens(const Sequence& s) {
  std::vector<std::int32_t> rows;
  std::vector<int> length;
  int start = 0;
  for (int l : s.length) {
    const std::size_t before = rows.size();
    for (int i = start; i < start + l; ++i)
      if (counts(s.source[i])) rows.push_back(i);
    check(rows.size() > before, "pool: a sequence of {} rows has no token", l);
    length.push_back(static_cast<int>(rows.size() - before));
    start += l;
  }
  if (rows.size() == s.source.size()) return segment_mean(s.rows, s.length);
  return segment_mean(gather(s.rows, Array::of(rows)), length);
}

// The first or the last token of each sequence, not counting virtual rows; `pad`: see pooling.h.
std::vector<std::int32_t> token_rows(const Sequence& s, Pool pool, const Batch* batch, int pad) {
  std::vector<std::int32_t> rows;
  int start = 0;
  for (int l : s.length) {
    int first = -1, last = -1;
    for (int i = start; i < start + l; ++i) {
      if (!counts(s.source[i])) continue;
      if (first < 0) first = last = i;
      if (pad < 0 || s.source[i] < 0 || batch->token[s.source[i]] != pad) last = i;
    }
    check(first >= 0, "pool: a sequence of {} rows has no token", l);
    rows.push_back(pool == Pool::cls ? first : last);
    start += l;
  }
  return rows;
}

// Where the label is read, of each sequence.
std::vector<std::int32_t> mask_rows(const Model& model, const Sequence& s, const Batch& batch) {
  const int mask = model.arch().mask;
  std::vector<std::int32_t> rows;
  int start = 0;
  for (int l : s.length) {
    int found = -1;
    for (int i = 0; i < l; ++i) {
      const std::int32_t source = s.source[start + i];
      if (source < 0) continue;
      if (model.arch().causal || batch.token[source] == mask) found = start + i;
    }
    check(found >= 0, "cloze: a sequence of {} rows has no mask token to read the label at", l);
    rows.push_back(found);
    start += l;
  }
  return rows;
}

Tensor class_loss(const Tensor& scores, const Batch& batch) {
  check(batch.label.size() == batch.length.size(), "head: {} labels for {} sequences",
        batch.label.size(), batch.length.size());
  const double divisor = batch.divisor > 0 ? batch.divisor : batch.sequences() - batch.filler;
  return cross_entropy(scores, Array::of(batch.label), divisor);
}

}  // namespace

Pool pool_named(const std::string& name) {
  if (name == "mean") return Pool::mean;
  if (name == "cls") return Pool::cls;
  if (name == "last") return Pool::last;
  fail("pool={}: there are mean, cls and last", name);
}

Tensor pooled(const Sequence& s, Pool pool, const Batch* batch, int pad) {
  if (pool == Pool::mean) return mean_of_tokens(s);
  return gather(s.rows, Array::of(token_rows(s, pool, batch, pad)));
}

std::int64_t Head::parameters() {
  std::int64_t n = 0;
  each([&](Weight& w) { n += w.value().numel(); });
  return n;
}

LinearHead::LinearHead(const Build& build, const Arch& a, int classes, const HeadForm& form)
    : out(build, {a.stack, -1, Part::head}, a.width, classes > 0 ? classes : 1, form.bias),
      classes_(classes),
      form_(form) {
  if (form.dense) dense.emplace(build, Site{a.stack, -1, Part::head_dense}, a.width, a.width, true);
}

Tensor LinearHead::scores(const Model& model, const Sequence& s, const Batch& batch,
                          const Ctx& ctx) const {
  const int pad = form_.skip_pad ? model.arch().pad : -1;
  // In f32 from here on, whatever the body computes in.
  Tensor x = cast(pooled(s, form_.pool, &batch, pad), widened(out.w.value().dtype()));
  std::vector<std::int32_t> example(batch.example.begin(), batch.example.end());
  const RowAddress rows{Array::of(example),
                        Array::zeros({static_cast<std::int64_t>(example.size())}, Dtype::i32)};
  if (dense)
    x = map(form_.activation, (*dense)(dropped(x, form_.dropout_in, ctx, rows, dense->site), ctx));
  return out(dropped(x, form_.dropout, ctx, rows, out.site), ctx);
}

std::vector<std::int32_t> LinearHead::reads(const Model& model, const Sequence& s,
                                            const Batch& batch) const {
  if (form_.pool == Pool::mean) return {};
  return token_rows(s, form_.pool, &batch, form_.skip_pad ? model.arch().pad : -1);
}

Tensor LinearHead::loss(const Tensor& scores, const Batch& batch) const {
  if (classes_ > 0) return class_loss(scores, batch);
  check(batch.target.size() == batch.length.size(), "head: {} targets for {} sequences",
        batch.target.size(), batch.length.size());
  const double divisor = batch.divisor > 0 ? batch.divisor : batch.sequences();
  return squared_error(scores, Array::of(batch.target).to(scores.kind()), divisor);
}

void LinearHead::each(const EachWeight& f) {
  if (dense) dense->each(f);
  out.each(f);
}

ClozeHead::ClozeHead(std::vector<std::vector<std::int32_t>> words) : words_(std::move(words)) {
  check(words_.size() >= 2, "cloze: {} label words; need at least two", words_.size());
  for (const auto& word : words_) check(!word.empty(), "cloze: a label word has no tokens");
}

Tensor ClozeHead::scores(const Model& model, const Sequence& s, const Batch& batch,
                         const Ctx& ctx) const {
  const Tensor logits = model.lm_logits(s, mask_rows(model, s, batch), ctx);
  // A class's score is the mean of its tokens' logits: one small fixed matrix [V, classes].
  const std::int64_t classes = static_cast<std::int64_t>(words_.size());
  Array pick = Array::zeros({classes, logits.dim(1)}, logits.dtype());
  dispatch(pick, [&]<class T>(T) {
    for (std::int64_t c = 0; c < classes; ++c)
      for (std::int32_t t : words_[c]) {
        check(0 <= t && t < logits.dim(1), "cloze: token {} of a vocabulary of {}", t,
              logits.dim(1));
        pick.data<T>()[c * logits.dim(1) + t] += static_cast<T>(1.0 / words_[c].size());
      }
  });
  return linear(logits, Tensor(pick.to(logits.value().device())));
}

std::vector<std::int32_t> ClozeHead::reads(const Model& model, const Sequence& s,
                                           const Batch& batch) const {
  return mask_rows(model, s, batch);
}

Tensor ClozeHead::loss(const Tensor& scores, const Batch& batch) const {
  return class_loss(scores, batch);
}

}  // namespace graft
