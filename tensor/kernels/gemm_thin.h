// A product with a few rows, as a token that is generated has one: b is read once where it lies,
// since packing it would cost more than the product. The chains are gemm's, and so are the bits.
#pragma once

#include "tensor/kernels/gemm_pack.h"
#include "tensor/parallel.h"

namespace graft::cpu {

inline constexpr int kThinRows = 4;  // from there on packing pays

// Columns that one call takes: b that runs along its depth is transposed in squares of a vector's
// width; of one that runs along its columns a few rows side by side are read in long runs.
template <class T, bool along_depth>
inline constexpr int kThinColumns = along_depth ? kLanes<T> : 32 * kLanes<T>;

// sum[r] += a[r, k] row, in every lane.
template <int Rows, class T, class V>
[[gnu::always_inline]] inline void thin_step(V* sum, const Matrix<const T>& a, std::int64_t k,
                                             V row) {
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) sum[r] = multiply_add<T>(*a.at(r, k) - V{}, row, sum[r]);
}

// c[Rows, kLanes] = start + a b alpha, where b runs along its depth.
template <int Rows, class T, class S>
void thin_along_depth(Matrix<T> c, const Matrix<const T>& a, const Matrix<const S>& b,
                      std::int64_t depth, T alpha, Start<T> start) {
  constexpr int kN = kLanes<T>;
  using V = Vec<T>;
  V sum[Rows];
  for (int r = 0; r < Rows; ++r) sum[r] = start.data ? load<V>(start.from(r, 0).data) : V{};
  std::int64_t k = 0;
  for (; k + kN <= depth; k += kN) {
    V square[kN];
#pragma GCC unroll 16
    for (int i = 0; i < kN; ++i) square[i] = load_widened<V>(b.at(k, i)) * alpha;
    transpose_square(square, std::make_index_sequence<kN>{});
#pragma GCC unroll 16
    for (int i = 0; i < kN; ++i) thin_step<Rows>(sum, a, k + i, square[i]);
  }
  for (; k < depth; ++k) {
    V row;
    for (int i = 0; i < kN; ++i) row[i] = *b.at(k, i) * alpha;
    thin_step<Rows>(sum, a, k, row);
  }
  for (int r = 0; r < Rows; ++r) store(c.at(r, 0), sum[r]);
}

// c[Rows, kThinColumns] = start + a b alpha over `Depth` steps from k on, where b runs along its
// columns.
template <int Rows, int Depth, class T, class S>
void thin_steps(const Matrix<T>& c, const Matrix<const T>& a, const Matrix<const S>& b,
                std::int64_t k, T alpha, Start<T> start) {
  using V = Vec<T>;
  for (int j = 0; j < kThinColumns<T, false>; j += kLanes<T>) {
    V sum[Rows];
    for (int r = 0; r < Rows; ++r) sum[r] = start.data ? load<V>(start.from(r, j).data) : V{};
#pragma GCC unroll 8
    for (int i = 0; i < Depth; ++i)
      thin_step<Rows>(sum, a, k + i, load_widened<V>(b.at(k + i, j)) * alpha);
    for (int r = 0; r < Rows; ++r) store(c.at(r, j), sum[r]);
  }
}

// All steps: between them the chains wait in c, which stays in the first-level cache.
template <int Rows, class T, class S>
void thin_along_columns(const Matrix<T>& c, const Matrix<const T>& a, const Matrix<const S>& b,
                        std::int64_t depth, T alpha, Start<T> start) {
  const auto from = [&](std::int64_t k) { return k == 0 ? start : Start<T>{c.data, c.row}; };
  std::int64_t k = 0;
  for (; k + 8 <= depth; k += 8) thin_steps<Rows, 8>(c, a, b, k, alpha, from(k));
  for (; k < depth; ++k) thin_steps<Rows, 1>(c, a, b, k, alpha, from(k));
}

// As many columns of c[Rows, columns] as fill whole vectors; returns how many these are.
template <int Rows, bool along_depth, class T, class S>
std::int64_t thin_columns(const Matrix<T>& c, const Matrix<const T>& a, const Matrix<const S>& b,
                          std::int64_t columns, std::int64_t depth, T alpha, Start<T> start,
                          std::int64_t serial_flops) {
  constexpr std::int64_t kWidth = kThinColumns<T, along_depth>;
  const std::int64_t panels = columns / kWidth;
  parallel_for(panels, serial_flops / (2 * Rows * kWidth * depth), [&](std::int64_t panel) {
    const std::int64_t from = panel * kWidth;
    if constexpr (along_depth)
      thin_along_depth<Rows>(c.from(0, from), a, b.from(0, from), depth, alpha,
                             start.from(0, from));
    else
      thin_along_columns<Rows>(c.from(0, from), a, b.from(0, from), depth, alpha,
                               start.from(0, from));
  });
  return panels * kWidth;
}

}  // namespace graft::cpu
