// Rotary position embeddings (Su et al. 2021): the pair (i, i + dh/2) of every head is turned by
// the angle position * frequency[i].
#include <algorithm>
#include <cmath>

#include "tensor/kernels.h"
#include "tensor/kernels/scratch.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {
namespace {

using std::int64_t;

constexpr int64_t kSerialElements = 1 << 15;
constexpr std::int32_t kKeptPositions = 1 << 16;  // beyond, turns are worked out row by row

// Turns each pair by its angle; `way` is -1 for the other way round.
template <class T>
void rotate_row(T* y, const T* x, const T* cosine, const T* sine, T way, int heads, int64_t half) {
  for (int h = 0; h < heads; ++h, x += 2 * half, y += 2 * half) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const T a = x[i], b = x[i + half], s = way * sine[i];
      y[i] = vmath::fma(a, cosine[i], -(b * s));
      y[i + half] = vmath::fma(b, cosine[i], a * s);
    }
  }
}

// Cosines and sines of one position. In f64: an f32 angle of some thousands is off by 1e-4.
template <class T>
void turn(T* entry, std::int32_t position, const std::vector<double>& frequency) {
  const std::size_t half = frequency.size();
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = position * frequency[i];
    entry[i] = static_cast<T>(std::cos(angle));
    entry[half + i] = static_cast<T>(std::sin(angle));
  }
}

// The turns of positions 0, 1, ..., which all layers of a model share: kept by each thread for the
// frequencies that it asked for last.
template <class T>
const T* turns_of_positions(int64_t positions, const std::vector<double>& frequency) {
  static thread_local std::vector<double> of;
  static thread_local std::vector<T> table;
  const auto entry = static_cast<int64_t>(2 * frequency.size());
  if (of != frequency) table.clear(), of = frequency;
  const auto have = static_cast<int64_t>(table.size()) / entry;
  if (have >= positions) return table.data();
  table.resize(static_cast<std::size_t>(positions * entry));
  T* const to = table.data();
  parallel_for(positions - have, kSerialElements / 8 / entry,
               [&](int64_t i) { turn(to + (have + i) * entry, have + i, frequency); });
  return to;
}

}  // namespace

void rotate(Array& y, const Array& x, const Array& position, const Array& frequency, int heads,
            bool inverse) {
  const int64_t rows = x.dim(0), columns = x.dim(1), half = columns / heads / 2;
  if (x.numel() == 0) return;
  const std::int32_t* at = position.data<std::int32_t>();
  const std::vector<double> turns = frequency.to_vector();
  const auto range = std::minmax_element(at, at + rows);
  const bool by_position = *range.first >= 0 && *range.second < kKeptPositions;
  dispatch(x, [&]<class T>(T) {
    const T* table = by_position ? turns_of_positions<T>(*range.second + 1, turns) : nullptr;
    if (!by_position) {
      T* own = scratch<struct RotateScratch, T>(rows * 2 * half);
      parallel_for(rows, kSerialElements / 16 / half,
                   [&](int64_t r) { turn(own + r * 2 * half, at[r], turns); });
      table = own;
    }
    const T* from = x.data<T>();
    T* to = y.data<T>();
    const T way = inverse ? -1 : 1;
    parallel_for(rows, kSerialElements / columns, [&](int64_t r) {
      const T* entry = table + (by_position ? at[r] : r) * 2 * half;
      rotate_row(to + r * columns, from + r * columns, entry, entry + half, way, heads, half);
    });
  });
}

}  // namespace graft::cpu
