// The inner tile of gemm: a few rows of c times two vectors of columns, held in registers while K
// runs. Each lane is one chain of fused multiply-adds, so the shape of the tile changes no bit.
#pragma once

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace graft::cpu {

// The widest vectors of the processor that this is compiled for, and as many rows as its registers
// hold beside two vectors of b and one of a.
#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kTileRows = 12;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32, kTileRows = 6;
#elif defined(__aarch64__)
inline constexpr int kVectorBytes = 16, kTileRows = 12;
#else
inline constexpr int kVectorBytes = 16, kTileRows = 6;
#endif
inline constexpr int kTileVectors = 2;
inline constexpr int kHalfBytes = kVectorBytes > 16 ? kVectorBytes / 2 : 16;

template <class T, int Bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <class T, int Bytes = kVectorBytes>
using Vec = typename VectorOf<T, Bytes>::type;
template <class T>
inline constexpr int kLanes = kVectorBytes / sizeof(T);
template <class T>
inline constexpr int kHalfLanes = kHalfBytes / sizeof(T);
template <class T>
inline constexpr int kPanel = kTileVectors* kLanes<T>;  // columns of b that a tile takes

// Any address will do: memory need not be aligned to the vector.
template <class V, class T>
[[gnu::always_inline]] inline V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}
template <class V, class T>
[[gnu::always_inline]] inline void store(T* to, V v) {
  std::memcpy(to, &v, sizeof(V));
}

// a b + c in every lane, rounded once. Spelled out, because the compiler fuses `a * b + c` in one
// loop and not in another.
template <class T, class V>
[[gnu::always_inline]] inline V multiply_add(V a, V b, V c) {
  [[maybe_unused]] constexpr bool kSingle = sizeof(T) == sizeof(float);
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    if constexpr (kSingle)
      return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
    else
      return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
  }
#endif
#if defined(__FMA__)
  if constexpr (sizeof(V) == 32) {
    if constexpr (kSingle)
      return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
    else
      return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
  } else if constexpr (sizeof(V) == 16) {
    if constexpr (kSingle)
      return (V)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
    else
      return (V)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)c);
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(V) == 16) {
    if constexpr (kSingle)
      return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
    else
      return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
  }
#endif
  return a * b + c;
}

// What the chains of a product begin from: the numbers of a matrix (of c itself, to add to them),
// one row for all rows, or zero.
template <class T>
struct Start {
  const T* data = nullptr;  // zero where there is none
  std::int64_t row = 0;     // in elements; 0: one row for all
  Start from(std::int64_t i, std::int64_t j) const {
    return data ? Start{data + i * row + j, row} : Start{};
  }
};

// c[Rows, W] = start + a[Rows, depth] b[depth, W], W being Vectors vectors of Bytes bytes. b is
// packed: its rows lie one after another. The lines of c that are written at the end, and those
// that the next tile begins from, are asked for ahead (beyond the last tile too: a prefetch reads
// nothing); without that, waiting for them takes a tenth of the time.
template <class T, int Bytes, int Vectors, int Rows>
void tile(const T* a, std::int64_t a_row, std::int64_t a_column, const T* b, T* c,
          std::int64_t c_row, std::int64_t depth, Start<T> start) {
  using V = Vec<T, Bytes>;
  constexpr int kWidth = Bytes / sizeof(T);
  V sum[Rows][Vectors];
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j)
      sum[i][j] = start.data ? load<V>(start.data + i * start.row + j * kWidth) : V{};
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) __builtin_prefetch(c + i * c_row + j * kWidth, 1);
  if (start.row != 0)
#pragma GCC unroll 12
    for (int i = Rows; i < 2 * Rows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) __builtin_prefetch(start.data + i * start.row + j * kWidth);
  for (std::int64_t k = 0; k < depth; ++k) {
    V row[Vectors];
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) row[j] = load<V>(b + (k * Vectors + j) * kWidth);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const V x = a[i * a_row + k * a_column] - V{};  // `+ V{}` would be an addition: -0
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) sum[i][j] = multiply_add<T>(x, row[j], sum[i][j]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) store(c + i * c_row + j * kWidth, sum[i][j]);
}

template <class T>
using TileFunction = void (*)(const T*, std::int64_t, std::int64_t, const T*, T*, std::int64_t,
                              std::int64_t, Start<T>);

// The tiles of 1 .. kTileRows rows.
template <class T, int Bytes, int Vectors, std::size_t... I>
constexpr std::array<TileFunction<T>, sizeof...(I)> tiles_of(std::index_sequence<I...>) {
  return {tile<T, Bytes, Vectors, static_cast<int>(I) + 1>...};
}

// Panels of b come in three widths, so that a narrow matrix (a LoRA factor of rank 8) does not pay
// for columns it does not have.
template <class T>
int panel_width(std::int64_t columns) {
  return columns <= kHalfLanes<T> ? kHalfLanes<T> : columns <= kLanes<T> ? kLanes<T> : kPanel<T>;
}
template <class T>
TileFunction<T> tile_for(int rows, int width) {
  using Rows = std::make_index_sequence<kTileRows>;
  static constexpr auto kFull = tiles_of<T, kVectorBytes, kTileVectors>(Rows{});
  static constexpr auto kOne = tiles_of<T, kVectorBytes, 1>(Rows{});
  static constexpr auto kHalf = tiles_of<T, kHalfBytes, 1>(Rows{});
  const auto& tiles = width > kLanes<T> ? kFull : width == kLanes<T> ? kOne : kHalf;
  return tiles[rows - 1];
}

// Rows of the next tile when `left` are left: two even tiles at the end rather than a whole one
// and a crumb.
inline int tile_rows(std::int64_t left) {
  return static_cast<int>(left <= kTileRows       ? left
                          : left >= 2 * kTileRows ? kTileRows
                                                  : (left + 1) / 2);
}

// A matrix inside an array: strides are in elements.
template <class T>
struct Matrix {
  T* data;
  std::int64_t row, column;
  T* at(std::int64_t i, std::int64_t j) const { return data + i * row + j * column; }
  Matrix from(std::int64_t i, std::int64_t j) const { return {at(i, j), row, column}; }
  Matrix transpose() const { return {data, column, row}; }
};

// One tile at the right edge, where a vector would reach beyond the row of c.
template <class T>
void edge_tile(Matrix<T> c, const Matrix<const T>& a, const T* b, int rows, int columns,
               std::int64_t depth, Start<T> start) {
  alignas(64) T local[kTileRows * kPanel<T>];
  const int width = panel_width<T>(columns);
  if (start.data) {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < width; ++j)
        local[i * width + j] = j < columns ? *start.from(i, j).data : T{0};
    start = {local, width};
  }
  tile_for<T>(rows, width)(a.data, a.row, a.column, b, local, width, depth, start);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) *c.at(i, j) = local[i * width + j];
}

// Rows of a, where they lie or packed: then a tile's n rows, beginning with row i, are n columns of
// an array at data + i * depth.
template <class T>
struct Left {
  Matrix<const T> matrix;
  bool packed = false;
  Matrix<const T> tile(std::int64_t i, int n, std::int64_t depth) const {
    return packed ? Matrix<const T>{matrix.data + i * depth, 1, n} : matrix.from(i, 0);
  }
};

// c[rows, columns] = start + a[rows, depth] b[depth, columns], where b is one packed panel of
// panel_width(columns).
template <class T>
void multiply_panel(Matrix<T> c, const Left<T>& a, const T* b, std::int64_t rows, int columns,
                    std::int64_t depth, Start<T> start) {
  const int width = panel_width<T>(columns);
  for (std::int64_t i = 0; i < rows;) {
    const int n = tile_rows(rows - i);
    const Matrix<const T> left = a.tile(i, n, depth);
    if (columns == width)
      tile_for<T>(n, width)(left.data, left.row, left.column, b, c.at(i, 0), c.row, depth,
                            start.from(i, 0));
    else
      edge_tile(c.from(i, 0), left, b, n, columns, depth, start.from(i, 0));
    i += n;
  }
}

}  // namespace graft::cpu
