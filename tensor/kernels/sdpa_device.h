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
  const std::int32_t* sequence;                  // DeviceSequence [n]
  const std::int32_t *example, *position, *key;  // of the draws
  double scale;
  double kept;  // what a weight that stays is multiplied by
  float dropout;
  std::uint32_t stream;
  std::int32_t causal, heads, kv_heads, width, unbiased, bias_zero, places;
  std::int32_t unused;  // else there was a gap
  static constexpr bool kWhole = true;

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
  __device__ bool sees(const DeviceSequence& s, int i, int j) const {
    return i < s.queries && j < visible(s, i);
  }
  // Entry of a head's row of biases for query i and key j; negative: it has none.
  __device__ int place(const DeviceSequence& s, int i, int j) const {
    return j < unbiased ? -1 : bias_zero + j - (s.keys - s.queries + i);
  }
  // The draws of query i and the four keys whose numbers among those with a place are 4 block to
  // 4 block + 3. The host draws the same.
  __device__ Counter draws(const DeviceSequence& s, int head, int i, int block) const {
    const int row = s.query + i;
    const std::uint32_t low = (1u << 22) - 1;
    return philox(
        address(stream, static_cast<std::uint32_t>(example[row]),
                static_cast<std::uint32_t>(position[row]),
                static_cast<std::uint32_t>(head) << 22 | (static_cast<std::uint32_t>(block) & low)),
        key_of(key));
  }
  __device__ bool keeps(std::uint32_t bits) const { return !(uniform(bits) < dropout); }
  // What the weight of query i and key j is multiplied by.
  template <class C>
  __device__ C factor(const DeviceSequence& s, int head, int i, int j) const {
    const int number = j - unbiased, block = number >> 2;
    return keeps(draws(s, head, i, block)[number - 4 * block]) ? static_cast<C>(kept) : C{0};
  }
  // Which of four weights stay, a bit for each.
  __device__ std::uint32_t kept_of_four(const DeviceSequence& s, int head, int i, int block) const {
    const Counter bits = draws(s, head, i, block);
    std::uint32_t four = 0;
    for (int e = 0; e < 4; ++e) four |= static_cast<std::uint32_t>(keeps(bits[e])) << e;
    return four;
  }
};
static_assert(sizeof(DeviceAttention) == 4 * sizeof(void*) + 2 * 8 + 10 * 4);

template <class T>
struct ForwardArrays {
  const T *q, *k, *v;
  const T* bias;  // null: none
  T* y;
  Compute<T>* lse;
  std::int64_t q_step, k_step, v_step, y_step;
};

template <class T>
struct GradArrays {
  const T *q, *k, *v, *bias, *y, *dy;  // bias null: none
  const Compute<T>* lse;
  const Compute<T>* delta;
  T *dq, *dk, *dv;
  std::int64_t q_step, k_step, v_step, y_step, dy_step, dq_step, dk_step, dv_step;
};

// The score of a query and a key that it sees, of which q.k is `product`.
template <class T>
__device__ Compute<T> score_of(const T* bias, const DeviceAttention& a, const DeviceSequence& s,
                               int head, int i, int j, Compute<T> product) {
  using C = Compute<T>;
  const C score = static_cast<C>(a.scale) * product;
  const int place = bias ? a.place(s, i, j) : -1;
  if (place < 0) return score;
  return score + static_cast<C>(bias[std::int64_t{s.bias_row + head} * a.places + place]);
}

// Of a query and a key that it sees: the weight after dropout, and the gradient of the score.
// `product` is q.k, and `dweight` dy.v.
template <class C>
struct Pair {
  C weight = 0, ds = 0;
};
template <class T>
__device__ Pair<Compute<T>> pair_of(const GradArrays<T>& x, const DeviceAttention& a,
                                    const DeviceSequence& s, int head, int i, int j,
                                    Compute<T> product, Compute<T> dweight) {
  using C = Compute<T>;
  const std::int64_t row = std::int64_t{s.query + i} * a.heads + head;
  const C p = vmath::exp(score_of(x.bias, a, s, head, i, j, product) - x.lse[row]);
  const C m = a.dropout > 0 ? a.factor<C>(s, head, i, j) : C{1};
  return {p * m, p * (m * dweight - x.delta[row])};
}

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
  // One block for each (sequence, tile) of queries, or of keys; and blocks with nothing to do,
  // sequence -1, up to what any sequences of so many rows could take: a step's grids are then those
  // of another one's with as many rows. Of causal sequences those come first that have the most to
  // do, the last queries and the first keys: what begins last is then soon done.
  struct Tiles {
    Array on_device;  // i32 [n, 2]
    unsigned count;
    const std::int32_t* data() const {
      return count ? on_device.device_data<std::int32_t>() : nullptr;
    }
  };
  Tiles query_tiles(int rows = kTile) const { return tiles(false, rows); }
  Tiles key_tiles(int rows = kTile) const { return tiles(true, rows); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(all_.size()); }
  // Rows of all sequences.
  std::int64_t queries() const { return rows(false); }
  std::int64_t keys() const { return rows(true); }
  bool own_biases() const { return own_biases_; }

 private:
  Tiles tiles(bool of_keys, int rows) const;
  std::int64_t rows(bool of_keys) const;
  std::vector<DeviceSequence> all_;
  bool own_biases_ = false;
  Array sequence_, example_, position_, key_;
  DeviceAttention get_{};
};

// The same of halves on tensor cores, where heads are no wider than kWidestOnTensorCores: y and
// lse; dq, dk and dv, for which lse and delta are there.
constexpr int kWidestOnTensorCores = 128;
template <class T>
void sdpa_on_tensor_cores(const ForwardArrays<T>&, const AttentionArguments&);
template <class T>
void sdpa_grad_on_tensor_cores(const GradArrays<T>&, const AttentionArguments&);

}  // namespace graft::cuda
