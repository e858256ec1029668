// Dropout by address on the device: the same masks as on the host. One thread draws for four
// channels, which share a counter.
#include "tensor/cuda/launch.h"
#include "tensor/kernels.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

template <class T>
__global__ void dropout_kernel(T* y, const T* x, float p, Compute<T> scale, std::uint32_t stream,
                               const std::int32_t* key_at, const std::int32_t* example,
                               const std::int32_t* position, Index rows, Index columns) {
  const Index fours = (columns + 3) / 4;
  const Key key = key_of(key_at);
  for (Index i = thread_index(); i < rows * fours; i += grid_step()) {
    const Index r = i / fours, four = i % fours;
    const Counter bits =
        philox(address(stream, static_cast<std::uint32_t>(example[r]),
                       static_cast<std::uint32_t>(position[r]), static_cast<std::uint32_t>(four)),
               key);
    for (int k = 0; k < 4 && 4 * four + k < columns; ++k) {
      const Index at = r * columns + 4 * four + k;
      const Compute<T> v = static_cast<Compute<T>>(x[at]);
      y[at] = static_cast<T>(uniform(bits[k]) >= p ? v * scale : Compute<T>{0});
    }
  }
}

}  // namespace

void dropout(Array& y, const Array& x, double p, Stream stream, const Array& example,
             const Array& position) {
  const Index columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  const DeviceInts e(example), at(position), key(as_ints(stream.key));
  dispatch_all(x, [&]<class T>(T) {
    const auto scale = p < 1 ? static_cast<Compute<T>>(1 / (1 - p)) : Compute<T>{0};
    launch("dropout", dropout_kernel<T>, grid_of(rows * ((columns + 3) / 4)), y.device_data<T>(),
           x.device_data<T>(), static_cast<float>(p), scale, stream.id, key.data(), e.data(),
           at.data(), rows, columns);
  });
}

}  // namespace graft::cuda
