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

template <class T>
void rotate_row(T* y, const T* x, const T* cosine, const T* sine, int heads, int64_t half) {
  for (int h = 0; h < heads; ++h, x += 2 * half, y += 2 * half) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const T a = x[i], b = x[i + half];
      y[i] = vmath::fma(a, cosine[i], -(b * sine[i]));
      y[i + half] = vmath::fma(b, cosine[i], a * sine[i]);
    }
  }
}

// Cosines and sines of one position. In f64: an f32 angle of some thousands is off by 1e-4.
template <class T>
void turn(T* cosine, T* sine, std::int32_t position, const std::vector<double>& frequency,
          bool inverse) {
  for (std::size_t i = 0; i < frequency.size(); ++i) {
    const double angle = position * frequency[i];
    cosine[i] = static_cast<T>(std::cos(angle));
    sine[i] = static_cast<T>(inverse ? -std::sin(angle) : std::sin(angle));
  }
}

}  // namespace

void rotate(Array& y, const Array& x, const Array& position, const Array& frequency, int heads,
            bool inverse) {
  const int64_t rows = x.dim(0), columns = x.dim(1), half = columns / heads / 2;
  if (x.numel() == 0) return;
  const std::int32_t* at = position.data<std::int32_t>();
  const std::vector<double> turns = frequency.to_vector();
  const auto [low, high] = std::minmax_element(at, at + rows);
  // Sequences share their positions, so a table by position is much smaller than one by row.
  const bool by_position = *low >= 0 && *high < rows;
  const int64_t entries = by_position ? *high + 1 : rows;
  dispatch(x, [&]<class T>(T) {
    T* table = scratch<struct RotateScratch, T>(entries * 2 * half);
    parallel_for(entries, kSerialElements / 16 / half, [&](int64_t i) {
      T* entry = table + i * 2 * half;
      turn(entry, entry + half, by_position ? static_cast<std::int32_t>(i) : at[i], turns, inverse);
    });
    const T* from = x.data<T>();
    T* to = y.data<T>();
    parallel_for(rows, kSerialElements / columns, [&](int64_t r) {
      const T* entry = table + (by_position ? at[r] : r) * 2 * half;
      rotate_row(to + r * columns, from + r * columns, entry, entry + half, heads, half);
    });
  });
}

}  // namespace graft::cpu
