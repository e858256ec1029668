// Attention on the device without a queries x keys matrix (Dao et al. 2022, "FlashAttention",
// algorithm 1): a block has a tile of queries and goes over the keys that they see tile by tile,
// keeping each row's largest score, the sum of its exponentials and its weighted values so far.
#include "tensor/kernels/sdpa_device.h"

namespace graft::cuda {
namespace {

template <class C>
std::size_t forward_shared(int width) {
  return sizeof(C) * (3 * kTile * (width + 1) + kTile * width + kTile * (kTile + 1) + 3 * kTile);
}

template <class T>
__global__ void sdpa_kernel(ForwardArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  using C = Compute<T>;
  if (tile[2 * blockIdx.x] < 0) return;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], head = blockIdx.y, width = a.width;
  const int kv_head = head / (a.heads / a.kv_heads), step = width + 1;
  C* const q = dynamic_shared<C>();
  C* const k = q + kTile * step;
  C* const v = k + kTile * step;
  C* const out = v + kTile * step;   // [kTile, width]
  C* const p = out + kTile * width;  // [kTile, kTile + 1]
  C* const most = p + kTile * (kTile + 1);
  C* const sum = most + kTile;
  C* const turn = sum + kTile;  // what a row's sums so far are multiplied by
  const int rows = min(kTile, s.queries - first);
  load_tile(q, step, x.q + s.query * x.q_step + head * width, x.q_step, first, s.queries, width);
  for (int i = threadIdx.x; i < kTile * width; i += blockDim.x) out[i] = 0;
  for (int i = threadIdx.x; i < kTile; i += blockDim.x) most[i] = -INFINITY, sum[i] = 0;
  const int seen = a.visible(s, first + rows - 1);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int from = 0; from < seen; from += kTile) {
    __syncthreads();
    load_tile(k, step, x.k + s.key * x.k_step + kv_head * width, x.k_step, from, s.keys, width);
    load_tile(v, step, x.v + s.key * x.v_step + kv_head * width, x.v_step, from, s.keys, width);
    __syncthreads();
    for (int r = warp; r < kTile; r += warps) {  // a warp has a row, a lane a key
      const int i = first + r, j = from + lane;
      const bool sees = r < rows && j < a.visible(s, i);
      C score = -INFINITY;
      if (sees) {
        const C product = dot(q + r * step, k + lane * step, width);
        score = score_of(x.bias, a, s, head, i, j, product);
      }
      C high = score;
      for (int far = kWarp / 2; far > 0; far /= 2) {
        const C other = __shfl_xor_sync(0xffffffffu, high, far);
        high = other > high ? other : high;
      }
      const C before = most[r], now = high > before ? high : before;
      C weight = sees ? vmath::exp(score - now) : C{0};
      C total = weight;
      for (int far = kWarp / 2; far > 0; far /= 2)
        total += __shfl_xor_sync(0xffffffffu, total, far);
      if (sees && a.dropout > 0) weight *= a.factor<C>(s, head, i, j);
      p[r * (kTile + 1) + lane] = weight;
      __syncwarp();
      if (lane == 0) {
        turn[r] = now > -INFINITY ? vmath::exp(before - now) : C{1};
        sum[r] = sum[r] * turn[r] + total;
        most[r] = now;
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * width; i += blockDim.x) {
      const int r = i / width, c = i % width;
      C total = out[i] * turn[r];
      for (int j = 0; j < kTile; ++j)
        total = vmath::fma(p[r * (kTile + 1) + j], v[j * step + c], total);
      out[i] = total;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < rows * width; i += blockDim.x) {
    const int r = i / width, c = i % width;
    const C value = sum[r] == 0 ? C{0} : out[i] / sum[r];  // NaN stays
    x.y[(s.query + first + r) * x.y_step + head * width + c] = static_cast<T>(value);
  }
  for (int r = threadIdx.x; r < rows; r += blockDim.x)
    x.lse[std::int64_t{s.query + first + r} * a.heads + head] = most[r] + std::log(sum[r]);
}

}  // namespace

AttentionArguments::AttentionArguments(const AttentionShape& shape, const Array& q,
                                       const Array& bias, int heads, int kv_heads) {
  const std::vector<int>& keys = shape.k_length.empty() ? shape.q_length : shape.k_length;
  check(keys.size() == shape.q_length.size(), "sdpa: {} query lengths but {} key lengths",
        shape.q_length.size(), keys.size());
  own_biases_ = bias.defined() && bias.dim(0) > heads;
  DeviceSequence s{};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    s.queries = shape.q_length[i];
    s.keys = keys[i];
    if (!shape.k_start.empty()) s.key = shape.k_start[i];
    all_.push_back(s);
    s.query += s.queries;
    s.key += s.keys;
    if (own_biases_) s.bias_row += heads;
  }
  Array numbers = Array::empty({sequences(), 5}, Dtype::i32);
  auto* to = numbers.data<std::int32_t>();
  for (const DeviceSequence& one : all_)
    for (const std::int32_t n : {one.query, one.key, one.queries, one.keys, one.bias_row})
      *to++ = n;
  sequence_ = uploaded(numbers);
  get_.sequence = sequence_.device_data<std::int32_t>();
  get_.causal = shape.causal;
  get_.heads = heads, get_.kv_heads = kv_heads;
  get_.width = static_cast<int>(q.dim(1)) / heads;
  get_.unbiased = shape.unbiased, get_.bias_zero = shape.bias_zero;
  get_.places = bias.defined() ? static_cast<int>(bias.dim(1)) : 0;
  get_.scale = shape.scale;
  get_.dropout = static_cast<float>(shape.dropout);
  get_.kept = shape.dropout < 1 ? 1 / (1 - shape.dropout) : 0;
  get_.stream = shape.stream.id;
  if (shape.dropout <= 0) return;
  example_ = uploaded(shape.example), position_ = uploaded(shape.position);
  key_ = uploaded(as_ints(shape.stream.key));
  get_.example = example_.device_data<std::int32_t>();
  get_.position = position_.device_data<std::int32_t>();
  get_.key = key_.device_data<std::int32_t>();
}

std::int64_t AttentionArguments::rows(bool of_keys) const {
  std::int64_t total = 0;
  for (const DeviceSequence& s : all_) total += of_keys ? s.keys : s.queries;
  return total;
}

AttentionArguments::Tiles AttentionArguments::tiles(bool of_keys, int rows) const {
  std::vector<std::int32_t> all;
  int longest = 0;
  for (const DeviceSequence& s : all_) longest = std::max(longest, of_keys ? s.keys : s.queries);
  const int most = (longest + rows - 1) / rows;
  for (int tile = 0; tile < most; ++tile) {
    const int first = (of_keys ? tile : most - 1 - tile) * rows;
    for (std::size_t s = 0; s < all_.size(); ++s)
      if (first < (of_keys ? all_[s].keys : all_[s].queries))
        all.push_back(static_cast<std::int32_t>(s)), all.push_back(first);
  }
  // Each sequence's last tile may be short.
  const std::int64_t count = this->rows(of_keys) / rows + sequences();
  all.resize(static_cast<std::size_t>(2 * count), -1);
  return {uploaded(Array::of(all, {count, 2})), static_cast<unsigned>(count)};
}

void sdpa(Array& y, Array& lse, const Array& q, const Array& k, const Array& v, const Array& bias,
          int heads, int kv_heads, const AttentionShape& shape) {
  if (q.numel() == 0) return;
  const AttentionArguments arguments(shape, q, bias, heads, kv_heads);
  dispatch_all(q, [&]<class T>(T) {
    using C = Compute<T>;
    const ForwardArrays<T> x{q.device_data<T>(), k.device_data<T>(),
                             v.device_data<T>(), bias.defined() ? bias.device_data<T>() : nullptr,
                             y.device_data<T>(), lse.device_data<C>(),
                             q.stride(0),        k.stride(0),
                             v.stride(0),        y.stride(0)};
    if constexpr (is_half(dtype_of<T>))
      if (arguments.get().width <= kWidestOnTensorCores) return sdpa_on_tensor_cores(x, arguments);
    const auto tiles = arguments.query_tiles();
    launch("sdpa", sdpa_kernel<T>,
           Grid{tiles.count, kThreads, unsigned(heads), forward_shared<C>(arguments.get().width)},
           x, arguments.get(), tiles.data());
  });
}

}  // namespace graft::cuda
