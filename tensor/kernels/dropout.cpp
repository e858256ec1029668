// Dropout (Srivastava et al. 2014) by address: the mask of a value is a function of its stream,
// example, position and channel, so the gradient draws it again and padding cannot move it.
#include "tensor/kernels.h"
#include "tensor/kernels/dropout_factors.h"
#include "tensor/kernels/lanes.h"
#include "tensor/parallel.h"

namespace graft::cpu {
namespace {

template <class T>
void dropout_row(T* y, const T* x, std::int64_t columns, T scale, const DropoutRow& row) {
  T factor[kFactors];
  for (std::int64_t begin = 0; begin < columns; begin += kFactors) {
    draw_factors(factor, scale, row,
                 [=](int l) { return static_cast<std::uint32_t>(begin / 4 + l); });
    const std::int64_t n = std::min(kFactors, columns - begin);
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
      dropout_row(out + r * columns, in + r * columns, columns, scale,
                  {stream, static_cast<std::uint32_t>(e[r]), static_cast<std::uint32_t>(at[r]),
                   static_cast<float>(p)});
    });
  });
}

}  // namespace graft::cpu
