// Dropout (Srivastava et al. 2014) by address: the mask of a value is a function of its stream,
// example, position and channel, so the gradient draws it again and padding cannot move it.
#include "tensor/kernels.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"

namespace graft::cpu {
namespace {

constexpr int kCounters = 16;

// philox() of kCounters counters side by side, in a form that vectorises: word w of counter l is
// c[w][l]. The tests hold it against philox() itself.
[[gnu::always_inline]] inline void philox_lanes(std::uint32_t (&c)[4][kCounters], Key key) {
  std::uint32_t k0 = key.seed, k1 = key.step;
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int l = 0; l < kCounters; ++l) {
      const std::uint32_t x0 = c[0][l], x2 = c[2][l];
      const std::uint32_t high0 = static_cast<std::uint32_t>(std::uint64_t{0xD2511F53u} * x0 >> 32);
      const std::uint32_t high1 = static_cast<std::uint32_t>(std::uint64_t{0xCD9E8D57u} * x2 >> 32);
      c[0][l] = high1 ^ c[1][l] ^ k0;
      c[2][l] = high0 ^ c[3][l] ^ k1;
      c[1][l] = 0xCD9E8D57u * x2;
      c[3][l] = 0xD2511F53u * x0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// One row, kCounters blocks of four channels at a time.
template <class T>
void dropout_row(T* y, const T* x, std::int64_t columns, float p, T scale, const Stream& stream,
                 std::uint32_t example, std::uint32_t position) {
  constexpr std::int64_t kWidth = 4 * kCounters;
  std::uint32_t bits[4][kCounters];
  T factor[kWidth];
  for (std::int64_t begin = 0; begin < columns; begin += kWidth) {
    for (int l = 0; l < kCounters; ++l) {
      const Counter at =
          address(stream.id, example, position, static_cast<std::uint32_t>(begin / 4 + l));
      for (int w = 0; w < 4; ++w) bits[w][l] = at[w];
    }
    philox_lanes(bits, stream.key);
#pragma omp simd
    for (int l = 0; l < kCounters; ++l)
      for (int w = 0; w < 4; ++w) factor[4 * l + w] = uniform(bits[w][l]) >= p ? scale : T{0};
    const std::int64_t n = std::min(kWidth, columns - begin);
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c)
      y[begin + c] = factor[c] != 0 ? x[begin + c] * factor[c] : T{0};
  }
}

}  // namespace

void dropout(Array& y, const Array& x, double p, Stream stream, const Array& example,
             const Array& position) {
  const std::int64_t columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  const std::int32_t *e = example.data<std::int32_t>(), *at = position.data<std::int32_t>();
  dispatch(x, [&]<class T>(T) {
    const T scale = p < 1 ? static_cast<T>(1 / (1 - p)) : T{0};
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(rows, row_grain(8 * columns), [=](std::int64_t r) {
      dropout_row(out + r * columns, in + r * columns, columns, static_cast<float>(p), scale,
                  stream, static_cast<std::uint32_t>(e[r]), static_cast<std::uint32_t>(at[r]));
    });
  });
}

}  // namespace graft::cpu
