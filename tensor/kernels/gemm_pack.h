// Packing for gemm: columns of b laid out in the order in which the tile reads them. What is stored
// in half precision is widened on the way: S is the type of storage, T that of the product.
#pragma once

#include <algorithm>

#include "tensor/half.h"
#include "tensor/kernels/gemm_tile.h"

namespace graft::cpu {

// A vector V of f32 from as many numbers of half precision. (A signalling NaN of a bf16 stays one:
// the product with alpha makes it quiet, as it does with one widened before.)
template <class V>
[[gnu::always_inline]] inline V load_widened(const BF16* from) {
  using Narrow = Vec<std::uint16_t, sizeof(V) / 2>;
  using Wide = Vec<std::uint32_t, sizeof(V)>;
  return (V)(__builtin_convertvector(load<Narrow>(from), Wide) << 16);
}
template <class V>
[[gnu::always_inline]] inline V load_widened(const F16* from) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64)
    return (V)_mm512_maskz_cvtph_ps(__mmask16(-1),  // without a mask GCC 12 sees an unset lane
                                    _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#endif
#if defined(__F16C__)
  if constexpr (sizeof(V) == 32)
    return (V)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  if constexpr (sizeof(V) == 16)
    return (V)_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
#endif
  V v;
  for (std::size_t i = 0; i < sizeof(V) / sizeof(float); ++i) v[i] = from[i];
  return v;
}
template <class V, class T>
[[gnu::always_inline]] inline V load_widened(const T* from) {
  return load<V>(from);
}

// One step of the transposition of a square of vectors: exchanges the off-diagonal blocks of size
// Step in each pair of rows (i, i + Step).
template <int Step, class V, std::size_t... I>
[[gnu::always_inline]] inline void exchange(V* r, std::index_sequence<I...>) {
  constexpr int kN = sizeof...(I);
#pragma GCC unroll 16
  for (int i = 0; i < kN; ++i) {
    if (i & Step) continue;
    const V a = r[i], b = r[i + Step];
    r[i] = __builtin_shufflevector(a, b, (I & Step ? kN + I - Step : I)...);
    r[i + Step] = __builtin_shufflevector(a, b, (I & Step ? kN + I : I + Step)...);
  }
}
template <class V, std::size_t... I>
[[gnu::always_inline]] inline void transpose_square(V* r, std::index_sequence<I...> lanes) {
  constexpr int kN = sizeof...(I);
  exchange<1>(r, lanes);
  if constexpr (kN > 2) exchange<2>(r, lanes);
  if constexpr (kN > 4) exchange<4>(r, lanes);
  if constexpr (kN > 8) exchange<8>(r, lanes);
}

// to[k, j] = alpha b[k, j] for j < columns, where b runs along k (a weight [out, in] seen
// transposed). Squares go through registers; the last one overlaps its neighbour. What comes a few
// squares later is asked for ahead: the streams are too many for the processor to foresee.
template <class T, class S>
void pack_along_depth(T* to, int width, const Matrix<const S>& b, std::int64_t depth,
                      std::int64_t columns, T alpha) {
  constexpr int kN = kHalfLanes<T>, kAhead = 64;
  using V = Vec<T, kHalfBytes>;
  const std::int64_t whole = columns < kN ? 0 : depth - depth % kN;
  for (std::int64_t k = 0; k < whole; k += kN)
    for (std::int64_t left = columns; left > 0; left -= kN) {
      const std::int64_t j = std::min(columns - left, columns - kN);
      V square[kN];
#pragma GCC unroll 8
      for (int i = 0; i < kN; ++i) {
        square[i] = load_widened<V>(b.at(k, j + i)) * alpha;
        __builtin_prefetch(b.at(k + kAhead, j + i));
      }
      transpose_square(square, std::make_index_sequence<kN>{});
#pragma GCC unroll 8
      for (int i = 0; i < kN; ++i) store(to + (k + i) * width + j, square[i]);
    }
  for (std::int64_t k = whole; k < depth; ++k)
    for (std::int64_t j = 0; j < columns; ++j) to[k * width + j] = *b.at(k, j) * alpha;
}

// The same where b runs along its columns; Columns is their number when it is known, else 0. Rows
// of a panel are asked for ahead: where they lie pages apart that takes a quarter of the time off.
template <int Columns, class T, class S>
void pack_along_columns(T* to, int width, const Matrix<const S>& b, std::int64_t depth,
                        std::int64_t columns, T alpha) {
  if constexpr (Columns != 0) columns = Columns;
  constexpr int kN = kHalfLanes<T>;
  constexpr int kAhead = 16;
  const std::int64_t vectors = std::is_same_v<S, T> ? 0 : columns - columns % kN;
  for (std::int64_t k = 0; k < depth; ++k) {
    const S* from = b.at(k, 0);
    if constexpr (Columns == kPanel<T>) {
      __builtin_prefetch(b.at(k + kAhead, 0));
      __builtin_prefetch(b.at(k + kAhead, Columns - 1));
    }
    for (std::int64_t j = 0; j < vectors; j += kN)
      store(to + k * width + j, load_widened<Vec<T, kHalfBytes>>(from + j) * alpha);
    for (std::int64_t j = vectors; j < columns; ++j) to[k * width + j] = from[j] * alpha;
  }
}

// Packs b[depth, columns] times alpha into rows of `width` numbers, zeros behind the last column.
template <class T, class S>
void pack_panel(T* to, int width, const Matrix<const S>& b, std::int64_t depth,
                std::int64_t columns, T alpha) {
  if (b.column == 1 && columns == kPanel<T>) {
    pack_along_columns<kPanel<T>>(to, width, b, depth, columns, alpha);
  } else if (b.column == 1 && columns == kTileRows) {
    pack_along_columns<kTileRows>(to, width, b, depth, columns, alpha);
  } else if (b.column == 1) {
    pack_along_columns<0>(to, width, b, depth, columns, alpha);
  } else if (b.row == 1) {
    pack_along_depth(to, width, b, depth, columns, alpha);
  } else {
    for (std::int64_t k = 0; k < depth; ++k)
      for (std::int64_t j = 0; j < columns; ++j) to[k * width + j] = *b.at(k, j) * alpha;
  }
  for (std::int64_t j = columns; j < width; ++j)  // by columns: short fills become calls
    for (std::int64_t k = 0; k < depth; ++k) to[k * width + j] = T{0};
}

// Rows of a as the tile takes them: to[k * rows + i] = a[i, k], rows <= kTileRows. Writes up to a
// vector beyond the last number.
template <class T>
void pack_rows(T* to, const Matrix<const T>& a, std::int64_t depth, int rows) {
  constexpr int kN = kLanes<T>;
  std::int64_t k = 0;
  if constexpr (kTileRows <= kN) {
    using V = Vec<T>;
    for (; a.column == 1 && k + kN <= depth; k += kN) {
      V square[kN];
#pragma GCC unroll 16
      for (int i = 0; i < kN; ++i) square[i] = i < rows ? load<V>(a.at(i, k)) : V{};
      transpose_square(square, std::make_index_sequence<kN>{});
      // Each vector's end is overwritten by the next one's beginning.
#pragma GCC unroll 16
      for (int i = 0; i < kN; ++i) store(to + (k + i) * rows, square[i]);
    }
  }
  pack_panel(to + k * rows, rows, a.from(0, k).transpose(), depth - k, rows, T{1});
}

// All panels of a small b, one after another: panel p begins at p * kPanel * depth.
template <class T>
void pack_panels(T* to, const Matrix<const T>& b, std::int64_t depth, std::int64_t columns,
                 T alpha) {
  for (std::int64_t j = 0; j < columns; j += kPanel<T>) {
    const std::int64_t n = std::min<std::int64_t>(kPanel<T>, columns - j);
    pack_panel(to + j * depth, panel_width<T>(n), b.from(0, j), depth, n, alpha);
  }
}
// Columns including the zeros behind the last one.
template <class T>
std::int64_t padded_columns(std::int64_t columns) {
  const std::int64_t rest = columns % kPanel<T>;
  return columns - rest + (rest ? panel_width<T>(rest) : 0);
}
// Numbers that pack_panels writes.
template <class T>
std::int64_t packed_size(std::int64_t depth, std::int64_t columns) {
  return padded_columns<T>(columns) * depth;
}

// c[rows, columns] = (from_zero ? 0 : c) + a b, b packed by pack_panels(depth = packed_depth), of
// which the first `depth` rows are used.
template <class T>
void multiply_panels(Matrix<T> c, Matrix<const T> a, const T* b, std::int64_t rows,
                     std::int64_t columns, std::int64_t depth, std::int64_t packed_depth,
                     bool from_zero) {
  for (std::int64_t j = 0; j < columns; j += kPanel<T>)
    multiply_panel<T>(c.from(0, j), {a}, b + j * packed_depth, rows,
                      static_cast<int>(std::min<std::int64_t>(kPanel<T>, columns - j)), depth,
                      from_zero ? Start<T>{} : Start<T>{c.at(0, j), c.row});
}

}  // namespace graft::cpu
