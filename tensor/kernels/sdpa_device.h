// What the attention kernel of the device and its gradient share. A block has a tile of queries and
// a tile of keys of one head in shared memory, computed with in f32 (f64 for f64).
#pragma once

#include <algorithm>

#include "tensor/cuda/launch.h"
#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::cuda {

constexpr int kTile = 32;  // queries or keys: a lane of a warp for each key

struct DeviceSequence {
  std::int32_t query, key, queries, keys, bias_row;
};

// The shape as kernels read it; arrays are on the device.
struct DeviceAttention {
  const std::int32_t* sequence;  // DeviceSequence [n]
  bool causal;
  int heads, kv_heads, width, unbiased, bias_zero, places;
  double scale;
  float dropout;
  double kept;  // what a weight that stays is multiplied by
  Stream stream;
  const std::int32_t *example, *position;

  __device__ DeviceSequence at(int s) const {
    const std::int32_t* x = sequence + 5 * s;
    return {x[0], x[1], x[2], x[3], x[4]};
  }
  // Keys that query i sees: the first so many.
  __device__ int visible(const DeviceSequence& s, int i) const {
    if (!causal) return s.keys;
    const int n = s.keys - s.queries + i + 1;
    return n < 0 ? 0 : n > s.keys ? s.keys : n;
  }
  // Entry of a head's row of biases for query i and key j; negative: it has none.
  __device__ int place(const DeviceSequence& s, int i, int j) const {
    return j < unbiased ? -1 : bias_zero + j - (s.keys - s.queries + i);
  }
  // What the weight of query i and key j is multiplied by. The host draws the same.
  template <class C>
  __device__ C factor(const DeviceSequence& s, int head, int i, int j) const {
    const int number = j - unbiased, block = number >> 2, row = s.query + i;
    const std::uint32_t low = (1u << 22) - 1;
    const Counter bits = philox(
        address(stream.id, static_cast<std::uint32_t>(example[row]),
                static_cast<std::uint32_t>(position[row]),
                static_cast<std::uint32_t>(head) << 22 | (static_cast<std::uint32_t>(block) & low)),
        stream.key);
    if (uniform(bits[number - 4 * block]) < dropout) return C{0};
    return static_cast<C>(kept);
  }
};

// Rows [first, first + kTile) of a head, as far as there are `rows`, and zeros beyond; the rows of
// `to` are `step` apart.
template <class T, class C>
__device__ void load_tile(C* to, int step, const T* from, std::int64_t from_step, int first,
                          int rows, int width) {
  for (int i = threadIdx.x; i < kTile * width; i += blockDim.x) {
    const int r = i / width, c = i % width;
    to[r * step + c] = first + r < rows ? static_cast<C>(from[(first + r) * from_step + c]) : C{0};
  }
}

// x[r] . y[c] for one pair of rows.
template <class C>
__device__ C dot(const C* x, const C* y, int width) {
  C sum = 0;
  for (int i = 0; i < width; ++i) sum = vmath::fma(x[i], y[i], sum);
  return sum;
}

// What a launch needs of an AttentionShape, and what it keeps alive meanwhile.
class AttentionArguments {
 public:
  AttentionArguments(const AttentionShape&, const Array& q, const Array& bias, int heads,
                     int kv_heads);
  const DeviceAttention& get() const { return get_; }
  // One block for each (sequence, tile) of queries, or of keys.
  struct Tiles {
    Array on_device;  // i32 [n, 2]
    unsigned count;
    const std::int32_t* data() const {
      return count ? on_device.device_data<std::int32_t>() : nullptr;
    }
  };
  Tiles query_tiles() const { return tiles(0); }
  Tiles key_tiles() const { return tiles(1); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(all_.size()); }
  bool own_biases() const { return own_biases_; }

 private:
  Tiles tiles(int of_keys) const;
  std::vector<DeviceSequence> all_;
  bool own_biases_ = false;
  Array sequence_, example_, position_;
  DeviceAttention get_{};
};

}  // namespace graft::cuda
