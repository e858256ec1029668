// Products, rows of ragged batches, losses.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/ops.h"
#include "autograd/vocabulary.h"

namespace graft {

static std::int64_t most_logits = 1 << 25;
std::int64_t logits_limit() { return most_logits; }
void set_logits_limit(std::int64_t numbers) { most_logits = numbers; }

namespace {

Array as_rows(const Array& x) {
  return x.as_contiguous().reshape({x.dim(-1) ? x.numel() / x.dim(-1) : 0, x.dim(-1)});
}

Shape with_last(Shape shape, std::int64_t last) {
  shape.back() = last;
  return shape;
}

// y = x[N, in] W[out, in]^T + b, begun from b: one chain of sums for each element.
void linear_rows(Array& y, const Array& x, const Array& w, const Array& b) {
  if (b.defined())
    kernels::gemm_from_row(y, x, w.transpose(), b.to(y.dtype()).as_contiguous());
  else
    kernels::gemm(y, x, w.transpose(), 1, 0);
}

// Adds alpha a b to a gradient, or begins it.
void add_product(Grads::Sum to, const Array& a, const Array& b, double alpha = 1) {
  kernels::gemm(to.array, a, b, alpha, to.beta);
}

struct Span {
  std::int64_t begin, end;
};

// A vocabulary product in runs of rows, of which the logits are logits_limit() at most; in one run
// where all logits have their room anyway. A row's bits do not depend on the cut.
template <class F>
void each_run(std::int64_t rows, std::int64_t vocab, bool whole, F&& f) {
  const std::int64_t most =
      std::max<std::int64_t>(1, whole ? rows : logits_limit() / std::max<std::int64_t>(1, vocab));
  const std::int64_t runs = (rows + most - 1) / most, run = runs ? (rows + runs - 1) / runs : 0;
  for (std::int64_t r = 0; r < rows; r += run) f(Span{r, std::min(rows, r + run)});
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b) {
  check(w.value().ndim() == 2 && x.dim(-1) == w.dim(1) &&
            (!b.defined() || b.shape() == Shape{w.dim(0)}),
        "linear: x {}, W {}, b {}; need x[..., in], W[out, in], b[out]", x.shape(), w.shape(),
        b.shape());
  const Array rows = as_rows(x.value());
  Array y = Array::empty({rows.dim(0), w.dim(0)}, rows.kind());
  linear_rows(y, rows, w.value(), b.value());
  return record("linear", y.reshape(with_last(x.shape(), w.dim(0))), {x, w, b},
                {keep(x, w), keep(w, x)}, [](const Array& dy, const Saved& s, Grads& g) {
                  const Array d = as_rows(dy);
                  if (g.needs(0)) {
                    const Array w = s[1].get();
                    Array dx = Array::empty({d.dim(0), w.dim(1)}, d.kind());
                    kernels::gemm(dx, d, w, 1, 0);
                    g.add(0, dx.reshape(with_last(dy.shape(), w.dim(1))));
                  }
                  if (g.needs(1)) add_product(g.sum(1), d.transpose(), as_rows(s[0].get()));
                  if (g.needs(2)) kernels::add_rows(g.into(2), d);
                });
}

Tensor add_linear(Tensor y, const Tensor& x, const Tensor& w, double s) {
  check(w.value().ndim() == 2 && x.dim(-1) == w.dim(1) && y.dim(-1) == w.dim(0) &&
            y.numel() / y.dim(-1) == x.numel() / x.dim(-1),
        "add_linear: y {}, x {}, W {}; need y[..., out], x[..., r], W[out, r]", y.shape(),
        x.shape(), w.shape());
  Array sum = y.value();
  y.value() = Array();  // let go of our own hold: what is left says whether anyone else looks on
  const bool ours = sum.contiguous() && sum.storage().use_count() == 1 && !y.recipe();
  if (!ours) sum = sum.clone();
  Array rows = sum.reshape({sum.numel() / sum.dim(-1), sum.dim(-1)});
  kernels::gemm(rows, as_rows(x.value().to(rows.dtype())), w.value().transpose(), s, 1);
  return record("add_linear", sum, {y, x, w}, {keep(x, w), keep(w, x)},
                [s](const Array& dy, const Saved& saved, Grads& g) {
                  const Array d = as_rows(dy);
                  if (g.needs(1)) {
                    const Array w = saved[1].get();
                    Array dx = Array::empty({d.dim(0), w.dim(1)}, d.kind());
                    kernels::gemm(dx, d, w, s, 0);
                    g.add(1, dx.reshape(with_last(dy.shape(), w.dim(1))));
                  }
                  if (g.needs(2)) add_product(g.sum(2), d.transpose(), as_rows(saved[0].get()), s);
                  g.add(0, dy);
                });
}

Tensor matmul(const Tensor& a, const Tensor& b) {
  check(a.value().ndim() == 2 && b.value().ndim() == 2 && a.dim(1) == b.dim(0),
        "matmul: {} with {}; need [M, K] and [K, N]", a.shape(), b.shape());
  const Dtype dtype = met("matmul", a.dtype(), b.dtype());
  Array y = Array::empty({a.dim(0), b.dim(1)}, {dtype, a.value().device()});
  kernels::gemm(y, a.value().to(dtype), b.value(), 1, 0);
  return record("matmul", y, {a, b}, {keep(a, b), keep(b, a)},
                [](const Array& dy, const Saved& s, Grads& g) {
                  if (g.needs(0)) add_product(g.sum(0), dy, s[1].get().transpose());
                  if (g.needs(1)) add_product(g.sum(1), s[0].get().to(dy.dtype()).transpose(), dy);
                });
}

Tensor transpose(const Tensor& x) {
  check(x.value().ndim() == 2, "transpose: {}; need a matrix", x.shape());
  return record("transpose", x.value().transpose().clone(), {x}, {},
                [](const Array& dy, const Saved&, Grads& g) { g.add(0, dy.transpose().clone()); });
}

Tensor gather(const Tensor& table, const Array& row) {
  check(table.value().ndim() == 2 && row.dtype() == Dtype::i32, "gather: table {}, row {} {}",
        table.shape(), name(row.dtype()), row.shape());
  const bool as_it_is = table.value().device() != Device::cpu;
  Array y =
      Array::empty({row.numel(), table.dim(1)}, as_it_is ? table.kind() : widened(table.kind()));
  kernels::gather(y, table.value().as_contiguous(), row);
  return record("gather", y, {table}, {keep(row)}, [](const Array& dy, const Saved& s, Grads& g) {
    kernels::scatter_add(g.into(0), dy.as_contiguous(), s[0].array);
  });
}

Tensor prepend(const Tensor& bank, const Tensor& x, const std::vector<int>& length) {
  check(bank.value().ndim() == 2 && x.value().ndim() == 2 && bank.dim(1) == x.dim(1),
        "prepend: bank {}, x {}; need [P, C] and [N, C]", bank.shape(), x.shape());
  const ArrayKind kind{met("prepend", bank.dtype(), x.dtype()), x.value().device()};
  const std::int64_t p = bank.dim(0), sequences = static_cast<std::int64_t>(length.size());
  const std::int64_t total = std::accumulate(length.begin(), length.end(), std::int64_t{0});
  check(total == x.dim(0), "prepend: lengths add up to {}, x has {} rows", total, x.dim(0));
  Array y = Array::empty({total + sequences * p, x.dim(1)}, kind);
  std::vector<std::int32_t> bank_row(y.dim(0), -1), x_at;  // of y's rows; of x's rows, in y
  std::int64_t at = 0, start = 0;
  const bool on_host = kind.device == Device::cpu;
  const auto put = [&y, &at, on_host](const Array& rows) {
    if (on_host) y.slice(0, at, at + rows.dim(0)).copy_from(rows);
    at += rows.dim(0);
  };
  for (int l : length) {
    for (int i = 0; i < p; ++i) bank_row[at + i] = i;
    put(bank.value());
    for (int i = 0; i < l; ++i) x_at.push_back(static_cast<std::int32_t>(at + i));
    put(x.value().slice(0, start, start + l));
    start += l;
  }
  const Array from_bank = Array::of(bank_row), from_x = Array::of(x_at);
  if (!on_host) {  // one kernel, not two copies for each sequence
    Array both = Array::empty({p + total, x.dim(1)}, kind);
    both.slice(0, 0, p).copy_from(bank.value());
    both.slice(0, p, p + total).copy_from(x.value());
    std::vector<std::int32_t> from = bank_row;
    for (std::size_t i = 0; i < x_at.size(); ++i)
      from[static_cast<std::size_t>(x_at[i])] = static_cast<std::int32_t>(p) + std::int32_t(i);
    kernels::gather(y, both, Array::of(from));
  }
  return record("prepend", y, {bank, x}, {keep(from_bank), keep(from_x)},
                [](const Array& dy, const Saved& s, Grads& g) {
                  const Array d = dy.as_contiguous();
                  if (g.needs(0)) kernels::scatter_add(g.into(0), d, s[0].array);
                  if (!g.needs(1)) return;
                  Array dx = Array::empty({s[1].array.numel(), d.dim(1)}, d.kind());
                  kernels::gather(dx, d, s[1].array);
                  g.add(1, dx);
                });
}

Tensor segment_mean(const Tensor& x, const std::vector<int>& length) {
  check(x.value().ndim() == 2 && std::accumulate(length.begin(), length.end(), 0l) == x.dim(0),
        "segment_mean: x {}, {} lengths that add up to {}", x.shape(), length.size(),
        std::accumulate(length.begin(), length.end(), 0l));
  Array y = Array::empty({static_cast<std::int64_t>(length.size()), x.dim(1)}, x.kind());
  kernels::segment_mean(y, x.value().as_contiguous(), length);
  const Shape shape = x.shape();
  return record("segment_mean", y, {x}, {}, [=](const Array& dy, const Saved&, Grads& g) {
    Array dx = Array::empty(shape, dy.kind());
    kernels::segment_mean_grad(dx, dy.as_contiguous(), length);
    g.add(0, dx);
  });
}

Tensor slice(const Tensor& x, int dim, std::int64_t begin, std::int64_t end) {
  const Shape shape = x.shape();
  return record("slice", x.value().slice(dim, begin, end), {x}, {},
                [=](const Array& dy, const Saved&, Grads& g) {
                  if (dim == 0) {
                    Array part = g.into(0).slice(0, begin, end);
                    kernels::axpy(part, dy.as_contiguous(), 1);
                    return;
                  }
                  Array dx = Array::zeros(shape, dy.kind());
                  Array part = dx.slice(dim, begin, end);
                  part.copy_from(dy);
                  g.add(0, dx);
                });
}

Tensor concat(const std::vector<Tensor>& parts, int dim) {
  check(!parts.empty(), "concat: nothing to join");
  Shape shape = parts[0].shape();
  ArrayKind kind = parts[0].kind();
  if (dim < 0) dim += static_cast<int>(shape.size());
  check(0 <= dim && dim < parts[0].value().ndim(), "concat: no dimension {} in {}", dim, shape);
  shape[dim] = 0;
  for (const Tensor& part : parts) {
    Shape other = part.shape();
    check(other.size() == shape.size(), "concat: {} with {}", parts[0].shape(), other);
    kind.dtype = met("concat", kind.dtype, part.dtype());
    shape[dim] += other[dim];
    other[dim] = parts[0].shape()[dim];
    check(other == parts[0].shape(), "concat: {} with {} along dimension {}", parts[0].shape(),
          part.shape(), dim);
  }
  Array y = Array::empty(shape, kind);
  std::vector<std::int64_t> starts{0};
  for (const Tensor& part : parts) {
    Array into = y.slice(dim, starts.back(), starts.back() + part.shape()[dim]);
    into.copy_from(part.value());
    starts.push_back(starts.back() + part.shape()[dim]);
  }
  return record("concat", y, parts, {}, [=](const Array& dy, const Saved&, Grads& g) {
    for (std::size_t i = 0; i + 1 < starts.size(); ++i)
      if (g.needs(static_cast<int>(i)))
        g.add(static_cast<int>(i), dy.slice(dim, starts[i], starts[i + 1]).as_contiguous());
  });
}

Tensor reshape(const Tensor& x, Shape shape) {
  const Shape before = x.shape();
  return record("reshape", x.value().as_contiguous().reshape(std::move(shape)), {x}, {},
                [before](const Array& dy, const Saved&, Grads& g) {
                  g.add(0, dy.as_contiguous().reshape(before));
                });
}

namespace {

// 1 / divisor: on a device a number that a kernel reads. Batches differ in it, and what a kernel is
// given must not (cuda::gathered).
Array share_of(double divisor, ArrayKind kind) {
  return Array::full({1}, 1 / divisor, kind.dtype).to(kind.device);
}

// dy / divisor, dy being one number, for each row. On a device nobody waits for it.
Array each_row(const Array& dy, std::int64_t rows, Dtype dtype, double divisor) {
  if (dy.device() == Device::cpu) return Array::full({rows}, dy.item() / divisor, dtype);
  const ArrayKind kind{dtype, dy.device()};
  Array each = Array::empty({rows}, kind);
  kernels::binary(Binary::mul, each, dy.to(dtype), share_of(divisor, kind));
  return each;
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Array& label, double divisor) {
  check(logits.value().ndim() == 2 && label.numel() == logits.dim(0) && label.dtype() == Dtype::i32,
        "cross_entropy: logits {}, label {} {}; need [R, V] and i32 [R]", logits.shape(),
        name(label.dtype()), label.shape());
  const Array in = logits.value().as_contiguous();
  const ArrayKind wide = widened(in.kind());
  Array loss = Array::empty({in.dim(0)}, wide), total = Array::empty({1}, wide);
  kernels::cross_entropy(loss, in, label);
  kernels::sum_all(total, loss);
  kernels::binary(Binary::mul, total, total, share_of(divisor, wide));
  return record("cross_entropy", total, {logits}, {keep(Tensor(in), logits), keep(label)},
                [divisor](const Array& dy, const Saved& s, Grads& g) {
                  const Array in = s[0].get(), label = s[1].array;
                  Array dx = Array::empty(in.shape(), in.kind());
                  kernels::cross_entropy_grad(
                      dx, in, label, each_row(dy, in.dim(0), widened(in.dtype()), divisor));
                  g.add(0, dx);
                });
}

namespace {

// The head of a vocabulary over rows x[R, C], and its loss.
struct Vocabulary {
  Array x, w, b, label, lse;
  double divisor;

  Array part(const Array& all, Span r) const { return all.slice(0, r.begin, r.end); }
  Array room(Span r) const { return Array::empty({r.end - r.begin, w.dim(0)}, x.kind()); }
  void write_logits(Array& to, Span r) const { linear_rows(to, part(x, r), w, b); }
  // The rows' lse and, in `picked`, their label's logit. Words are taken in runs of 4096, which the
  // bits of lse depend on.
  void sum(const Array& logits, Span r, Array& picked) {
    Array sums = part(lse, r), found = part(picked, r);
    for (std::int64_t v = 0; v < w.dim(0); v += 4096)
      kernels::log_sum_exp_join(sums, found, logits.slice(1, v, std::min(w.dim(0), v + 4096)),
                                part(label, r), v);
  }
  // Turns logits into their gradient; dloss is that of each row's loss.
  void differentiate(Array& logits, Span r, const Array& dloss) const {
    kernels::cross_entropy_part_grad(logits, logits, part(lse, r), part(label, r), part(dloss, r),
                                     0);
  }
};

// What the derivative of linear_cross_entropy finds ready where the loss is what is differentiated:
// the gradient of x, and of the logits where the matrix learns and they are few.
struct Ready {
  Array dx, dlogits;
};

void add_gradients(const Vocabulary& head, const Ready& ready, const Array& dy, Grads& g) {
  const bool table = g.needs(1) || g.needs(2), made = ready.dlogits.defined();
  Array dx = ready.dx;
  const bool more = g.needs(0) && !dx.defined();
  if (more) dx = Array::empty(head.x.shape(), head.x.kind());
  Array dloss;
  if (!made && (more || table)) dloss = each_row(dy, head.x.dim(0), head.lse.dtype(), head.divisor);
  if (more || table)
    each_run(head.x.dim(0), head.w.dim(0), made, [&](Span r) {
      Array d = made ? head.part(ready.dlogits, r) : head.room(r);
      if (!made) head.write_logits(d, r), head.differentiate(d, r, dloss);
      Array to = more ? head.part(dx, r) : Array();
      if (more) kernels::gemm(to, d, head.w, 1, 0);
      if (g.needs(1)) add_product(g.sum(1), d.transpose(), head.part(head.x, r));
      if (g.needs(2)) kernels::add_rows(g.into(2), d);
    });
  if (g.needs(0)) g.add(0, dx);
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& b, const Array& label,
                            double divisor) {
  check(x.value().ndim() == 2 && w.value().ndim() == 2 && x.dim(1) == w.dim(1) &&
            (!b.defined() || b.shape() == Shape{w.dim(0)}) && label.numel() == x.dim(0) &&
            label.dtype() == Dtype::i32,
        "linear_cross_entropy: x {}, W {}, b {}, label {} {}; need x[R, C], W[V, C], b[V], i32 "
        "label[R]",
        x.shape(), w.shape(), b.shape(), name(label.dtype()), label.shape());
  for (std::int32_t l : std::span(label.data<std::int32_t>(), label.numel()))
    check(l >= -1 && l < w.dim(0), "linear_cross_entropy: label {} of a vocabulary of {}", l,
          w.dim(0));
  const std::int64_t rows = x.dim(0), vocab = w.dim(0);
  const ArrayKind wide = widened(x.kind());
  Vocabulary head{x.value().as_contiguous(),
                  w.value(),
                  b.value(),
                  label,
                  Array::full({rows}, -INFINITY, wide),
                  divisor};
  Array loss = Array::zeros({rows}, wide), total = Array::empty({1}, wide);
  const bool learns = x.needs_grad() || w.needs_grad() || b.needs_grad();
  // The logits are there now, and making them again would cost a third of all products with W. So
  // the gradient of x is made at once; that of W must run on from earlier ones, and waits.
  Ready ready;
  if (is_recording() && x.needs_grad()) ready.dx = Array::empty(x.shape(), x.kind());
  if (is_recording() && (w.needs_grad() || b.needs_grad()) && rows * vocab <= 2 * logits_limit())
    ready.dlogits = Array::empty({rows, vocab}, x.kind());
  const Array share = share_of(divisor, wide);
  const bool prepares = ready.dx.defined() || ready.dlogits.defined();
  const Array dloss = prepares ? share.expand({rows}).clone() : Array();
  each_run(rows, vocab, ready.dlogits.defined(), [&](Span r) {
    Array d = ready.dlogits.defined() ? head.part(ready.dlogits, r) : head.room(r);
    head.write_logits(d, r);
    head.sum(d, r, loss);
    if (!prepares) return;
    head.differentiate(d, r, dloss);
    if (ready.dx.defined()) {
      Array to = head.part(ready.dx, r);
      kernels::gemm(to, d, head.w, 1, 0);
    }
  });
  kernels::label_loss(loss, head.lse, loss, label);
  kernels::sum_all(total, loss);
  kernels::binary(Binary::mul, total, total, share);
  Saved saved;
  if (learns)  // x and W are read whoever learns, where the logits must be made again
    saved = {x.recipe() ? Kept{{}, x.recipe()} : keep(head.x),
             keep(head.w),
             keep(head.b),
             keep(label),
             keep(head.lse),
             keep(ready.dx),
             keep(ready.dlogits)};
  return record("linear_cross_entropy", total, {x, w, b}, std::move(saved),
                [divisor](const Array& dy, const Saved& s, Grads& g) {
                  add_gradients(
                      {s[0].get(), s[1].array, s[2].array, s[3].array, s[4].array, divisor},
                      g.is_one(dy) ? Ready{s[5].array, s[6].array} : Ready{}, dy, g);
                });
}

Tensor squared_error(const Tensor& x, const Array& target, double divisor) {
  return sum(square(x - Tensor(target.as_contiguous().reshape(x.shape())))) * (1 / divisor);
}

}  // namespace graft
