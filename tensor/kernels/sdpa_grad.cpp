// The gradient of attention. The probabilities are computed again from the logarithms of their sums
// (Dao et al. 2022, algorithm 4): p = exp(scale q k - lse), dv = (p m)^T dy,
// ds = p (m dy v^T - delta) with delta = sum(dy y), dq = scale ds k, dk = scale ds^T q; m are the
// factors of dropout, drawn again.
//
// One task owns one head of keys of one sequence and runs over blocks of keys, the query heads that
// share them, and blocks of queries in a fixed order, so that no sum depends on the threads.
#include <cmath>

#include "tensor/kernels/sdpa_tile.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {
namespace {

using std::int64_t;

// Queries go in large blocks, since the gradients of a block's keys and values are read and written
// once for each; their scores must stay in the second-level cache.
constexpr int64_t kKeyBlock = 256, kQueryBlock = 8 * kTileRows;
constexpr int64_t kSerialWork = 1 << 17;  // multiply-adds of one product, of which there are five

// Turns scores into probabilities and dp into ds; zeros from `visible` to `width`.
template <class T>
void row_grad(T* p, T* dp, int64_t visible, int64_t width, T lse, T delta) {
#pragma omp simd
  for (int64_t j = 0; j < width; ++j) {
    const T x = j < visible ? vmath::exp(p[j] - lse) : T{0};
    p[j] = x;
    dp[j] = j < visible ? x * (dp[j] - delta) : T{0};
  }
}

template <class T>
void multiply(T* x, const T* by, int64_t count) {
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) x[j] *= by[j];
}

template <class T>
struct Packed {
  T *keys_across, *values_across, *keys, *query, *dy, *delta;
  Matrix<T> p, ds;
  T* factors;  // of dropout
};

template <class T>
struct AttentionGrad {
  Matrix<const T> q, k, v, bias, y, lse, dy;  // bias may be without data
  Matrix<T> dq, dk, dv;
  int64_t heads, kv_heads, width;
  T scale;
  WeightDropout<T> dropout;

  int64_t group() const { return heads / kv_heads; }

  Packed<T> memory(int64_t keys, int64_t queries) const {
    const int64_t block = std::min(keys, kKeyBlock), row = round_to_panel<T>(block);
    const int64_t across = packed_size<T>(width, block), along = packed_size<T>(block, width);
    const int64_t query = packed_size<T>(kQueryBlock, width);
    const int64_t drawn = dropout.on() ? dropout.room(block) : 0;
    const int64_t total = 2 * across + along + 2 * query + 2 * kQueryBlock * row +
                          group() * queries + drawn + 9 * kPanel<T>;
    Pieces<T> pieces(scratch<struct AttentionGradScratch, T>(total));
    Packed<T> m;
    m.keys_across = pieces.next(across);
    m.values_across = pieces.next(across);
    m.keys = pieces.next(along);
    m.query = pieces.next(query);
    m.dy = pieces.next(query);
    m.p = {pieces.next(kQueryBlock * row), row, 1};
    m.ds = {pieces.next(kQueryBlock * row), row, 1};
    m.delta = pieces.next(group() * queries);
    m.factors = pieces.next(drawn);
    return m;
  }

  void clear(Matrix<T> x, int64_t row, int64_t rows, int64_t head, int64_t count) const {
    for (int64_t i = row; i < row + rows; ++i)
      std::fill_n(x.at(i, head * width), count * width, T{0});
  }

  // dbias: a row for each head, this sequence's share; without data where nobody wants it.
  void run(const Sequence& s, int64_t kv_head, Matrix<T> dbias) const {
    clear(dq, s.query, s.queries, kv_head * group(), group());
    clear(dk, s.key, s.keys, kv_head, 1);
    clear(dv, s.key, s.keys, kv_head, 1);
    const Packed<T> m = memory(s.keys, s.queries);
    for (int64_t g = 0; g < group(); ++g)
      for (int64_t i = 0; i < s.queries; ++i)
        m.delta[g * s.queries + i] = delta(s.query + i, (kv_head * group() + g) * width);
    for (int64_t j = 0; j < s.keys; j += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, s.keys - j);
      const auto key = k.from(s.key + j, kv_head * width),
                 value = v.from(s.key + j, kv_head * width);
      pack_panels(m.keys_across, key.transpose(), width, keys, scale);
      pack_panels(m.values_across, value.transpose(), width, keys, T{1});
      pack_panels(m.keys, key, keys, width, scale);
      for (int64_t g = 0; g < group(); ++g)
        for (int64_t i = 0; i < s.queries; i += kQueryBlock)
          block(s, kv_head, g, i, std::min(kQueryBlock, s.queries - i), j, keys, m, dbias);
    }
  }

  T delta(int64_t row, int64_t column) const {
    const T *a = dy.at(row, column), *b = y.at(row, column);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
    return sum;
  }

  void block(const Sequence& s, int64_t kv_head, int64_t g, int64_t i, int64_t rows, int64_t j,
             int64_t keys, const Packed<T>& m, Matrix<T> dbias) const {
    const int64_t seen = std::min(keys, s.visible(i + rows - 1) - j);
    if (seen <= 0) return;
    const int64_t head = kv_head * group() + g, row = s.query + i, column = head * width;
    const int64_t whole = columns_for<T>(seen, keys);
    multiply_panels(m.p, q.from(row, column), m.keys_across, rows, whole, width, width, true);
    multiply_panels(m.ds, dy.from(row, column), m.values_across, rows, whole, width, width, true);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t visible = std::min(keys, s.visible(i + r) - j);
      if (bias.data) add_bias(m.p.at(r, 0), bias, s, head, i + r, j, j + visible);
      const T* factor = nullptr;
      if (dropout.on() && visible > 0)
        factor = dropout.factors(m.factors, row + r, head, j, j + visible);
      if (factor) multiply(m.ds.at(r, 0), factor, visible);
      row_grad(m.p.at(r, 0), m.ds.at(r, 0), visible, round_to_lanes<T>(seen),
               *lse.at(row + r, head), m.delta[g * s.queries + i + r]);
      if (factor) multiply(m.p.at(r, 0), factor, visible);
      const int64_t first = std::max(j, s.unbiased);
      if (!dbias.data || first >= j + visible) continue;
      T* to = dbias.at(head, s.place(i + r, first));
      const T* from = m.ds.at(r, first - j);
#pragma omp simd
      for (int64_t c = 0; c < j + visible - first; ++c) to[c] += from[c];
    }
    const Matrix<const T> p{m.p.data, 1, m.p.row}, ds{m.ds.data, 1, m.ds.row};
    multiply_panels(dq.from(row, column), ds.transpose(), m.keys, rows, width, seen, keys, false);
    pack_panels(m.query, q.from(row, column), rows, width, scale);
    pack_panels(m.dy, dy.from(row, column), rows, width, T{1});
    const auto to_key = dk.from(s.key + j, kv_head * width);
    const auto to_value = dv.from(s.key + j, kv_head * width);
    multiply_panels(to_key, ds, m.query, seen, width, rows, rows, false);
    multiply_panels(to_value, p, m.dy, seen, width, rows, rows, false);
  }
};

}  // namespace

void sdpa_grad(Array& dq, Array& dk, Array& dv, Array& dbias, const Array& q, const Array& k,
               const Array& v, const Array& bias, const Array& y, const Array& lse, const Array& dy,
               int heads, int kv_heads, const AttentionShape& shape) {
  const std::vector<Sequence> all = sequences(shape, bias, heads);
  int64_t work = 0;
  for (const Sequence& s : all) work += s.queries * s.keys * q.dim(1);
  const int64_t count = static_cast<int64_t>(all.size()) * kv_heads;
  dispatch(q, [&]<class T>(T) {
    const AttentionGrad<T> grad{rows_of<T>(q),
                                rows_of<T>(k),
                                rows_of<T>(v),
                                bias.defined() ? rows_of<T>(bias) : Matrix<const T>{},
                                rows_of<T>(y),
                                rows_of<T>(lse),
                                rows_of<T>(dy),
                                rows_of<T>(dq),
                                rows_of<T>(dk),
                                rows_of<T>(dv),
                                heads,
                                kv_heads,
                                q.dim(1) / heads,
                                static_cast<T>(shape.scale),
                                {shape}};
    // Each sequence has sums of its own, which are added up in their order where biases are shared.
    const int64_t places = dbias.defined() ? dbias.dim(1) : 0, row = heads * places;
    const bool own = own_biases(dbias, heads);
    Array shares = own ? dbias : Array::empty({static_cast<int64_t>(all.size()), row}, q.dtype());
    shares.fill(0);
    const auto share = [&](int64_t s) {
      return places ? Matrix<T>{shares.data<T>() + s * row, places, 1} : Matrix<T>{};
    };
    parallel_for_dynamic(count, work < kSerialWork ? count : 1, [&](int64_t i) {
      grad.run(all[i / kv_heads], i % kv_heads, share(i / kv_heads));
    });
    if (places == 0 || own) return;
    dbias.fill(0);
    T* to = dbias.data<T>();
    for (std::size_t s = 0; s < all.size(); ++s)
      for (int64_t c = 0; c < row; ++c)
        to[c] += shares.data<T>()[static_cast<int64_t>(s) * row + c];
  });
}

}  // namespace graft::cpu
