// The gradient of attention on the device. Probabilities are computed again from the logarithms of
// their sums (Dao et al. 2022, algorithm 4): p = exp(scale q k + bias - lse), dv = (p m)^T dy,
// ds = p (m dy v^T - delta) with delta = sum(dy y), dq = scale ds k, dk = scale ds^T q, dbias = ds.
//
// Nothing is added up by two blocks: one kernel has a block for each tile of queries (dq), one for
// each tile of keys (dk, dv), one for each bias (dbias). That computes the scores three times, and
// every sum has one order.
#include "tensor/kernels/sdpa_device.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

// delta[row, head] = sum of dy y over the head's columns: a warp for each, whose lanes read side by
// side.
template <class T>
__global__ void delta_kernel(Compute<T>* delta, GradArrays<T> x, Index rows, int heads, int width) {
  using C = Compute<T>;
  const int lane = threadIdx.x % kWarp;
  for (Index i = thread_index() / kWarp; i < rows * heads; i += grid_step() / kWarp) {
    const T* const y = x.y + i / heads * x.y_step + i % heads * width;
    const T* const dy = x.dy + i / heads * x.dy_step + i % heads * width;
    C sum = 0;
    for (int c = lane; c < width; c += kWarp)
      sum = vmath::fma(static_cast<C>(dy[c]), static_cast<C>(y[c]), sum);
    for (int far = kWarp / 2; far > 0; far /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, far);
    if (lane == 0) delta[i] = sum;
  }
}

template <class T>
__device__ Pair<Compute<T>> pair_of(const GradArrays<T>& x, const DeviceAttention& a,
                                    const DeviceSequence& s, int head, int i, int j,
                                    const Compute<T>* q, const Compute<T>* k, const Compute<T>* v,
                                    const Compute<T>* dy) {
  if (!a.sees(s, i, j)) return {};
  return pair_of(x, a, s, head, i, j, dot(q, k, a.width), dot(dy, v, a.width));
}

// Consumer devices have 99 KB for a block: heads of width 128 fit.
template <class C>
std::size_t dq_shared(int width) {
  return sizeof(C) * (4 * kTile * (width + 1) + kTile * (kTile + 1));
}
template <class C>
std::size_t dkv_shared(int width) {
  return sizeof(C) * (4 * kTile * (width + 1) + 2 * kTile * (kTile + 1));
}

// Of the tile of dq, of dk and of dv a thread keeps the sums of so many elements, its `own`.
constexpr int kWidest = 256, kOwn = kTile * kWidest / kThreads;

template <class T, int own>
__global__ void dq_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  using C = Compute<T>;
  if (tile[2 * blockIdx.x] < 0) return;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], head = blockIdx.y, width = a.width, step = width + 1;
  const int kv_head = head / (a.heads / a.kv_heads), rows = min(kTile, s.queries - first);
  C* const q = dynamic_shared<C>();
  C* const k = q + kTile * step;
  C* const v = k + kTile * step;
  C* const dy = v + kTile * step;
  C* const ds = dy + kTile * step;
  load_tile(q, step, x.q + s.query * x.q_step + head * width, x.q_step, first, s.queries, width);
  load_tile(dy, step, x.dy + s.query * x.dy_step + head * width, x.dy_step, first, s.queries,
            width);
  C sum[own] = {};
  const int seen = a.visible(s, first + rows - 1);
  for (int from = 0; from < seen; from += kTile) {
    __syncthreads();
    load_tile(k, step, x.k + s.key * x.k_step + kv_head * width, x.k_step, from, s.keys, width);
    load_tile(v, step, x.v + s.key * x.v_step + kv_head * width, x.v_step, from, s.keys, width);
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kTile; i += blockDim.x) {
      const int r = i / kTile, c = i % kTile;
      ds[r * (kTile + 1) + c] = pair_of(x, a, s, head, first + r, from + c, q + r * step,
                                        k + c * step, v + c * step, dy + r * step)
                                    .ds;
    }
    __syncthreads();
    GRAFT_UNROLL
    for (int n = 0; n < own; ++n) {
      const int i = int(threadIdx.x) + n * kThreads, r = i / width, c = i % width;
      if (i >= kTile * width) continue;
      for (int j = 0; j < kTile; ++j)
        sum[n] = vmath::fma(ds[r * (kTile + 1) + j], k[j * step + c], sum[n]);
    }
  }
  GRAFT_UNROLL
  for (int n = 0; n < own; ++n) {
    const int i = int(threadIdx.x) + n * kThreads;
    if (i >= rows * width) continue;
    x.dq[(s.query + first + i / width) * x.dq_step + head * width + i % width] =
        static_cast<T>(static_cast<C>(a.scale) * sum[n]);
  }
}

template <class T, int own>
__global__ void dkv_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  using C = Compute<T>;
  if (tile[2 * blockIdx.x] < 0) return;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], kv_head = blockIdx.y, width = a.width;
  const int step = width + 1, group = a.heads / a.kv_heads, keys = min(kTile, s.keys - first);
  C* const q = dynamic_shared<C>();
  C* const k = q + kTile * step;
  C* const v = k + kTile * step;
  C* const dy = v + kTile * step;
  C* const p = dy + kTile * step;  // [query, key]
  C* const ds = p + kTile * (kTile + 1);
  load_tile(k, step, x.k + s.key * x.k_step + kv_head * width, x.k_step, first, s.keys, width);
  load_tile(v, step, x.v + s.key * x.v_step + kv_head * width, x.v_step, first, s.keys, width);
  C dk[own] = {}, dv[own] = {};
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int from = 0; from < s.queries; from += kTile) {
      if (a.visible(s, min(from + kTile, s.queries) - 1) <= first) continue;
      __syncthreads();
      load_tile(q, step, x.q + s.query * x.q_step + head * width, x.q_step, from, s.queries, width);
      load_tile(dy, step, x.dy + s.query * x.dy_step + head * width, x.dy_step, from, s.queries,
                width);
      __syncthreads();
      for (int i = threadIdx.x; i < kTile * kTile; i += blockDim.x) {
        const int r = i / kTile, c = i % kTile;
        const Pair<C> one = pair_of(x, a, s, head, from + r, first + c, q + r * step, k + c * step,
                                    v + c * step, dy + r * step);
        p[r * (kTile + 1) + c] = one.weight;
        ds[r * (kTile + 1) + c] = one.ds;
      }
      __syncthreads();
      GRAFT_UNROLL
      for (int n = 0; n < own; ++n) {
        const int i = int(threadIdx.x) + n * kThreads, j = i / width, c = i % width;
        if (i >= kTile * width) continue;
        for (int r = 0; r < kTile; ++r) {
          dk[n] = vmath::fma(ds[r * (kTile + 1) + j], q[r * step + c], dk[n]);
          dv[n] = vmath::fma(p[r * (kTile + 1) + j], dy[r * step + c], dv[n]);
        }
      }
    }
  GRAFT_UNROLL
  for (int n = 0; n < own; ++n) {
    const int i = int(threadIdx.x) + n * kThreads;
    if (i >= keys * width) continue;
    const Index row = s.key + first + i / width, column = kv_head * width + i % width;
    x.dk[row * x.dk_step + column] = static_cast<T>(static_cast<C>(a.scale) * dk[n]);
    x.dv[row * x.dv_step + column] = static_cast<T>(dv[n]);
  }
}

// Block (place, row of dbias): the pairs of query and key at that place, in the sequences whose
// biases the row has.
template <class T>
__global__ void dbias_kernel(T* dbias, GradArrays<T> x, DeviceAttention a, int sequences,
                             bool own) {
  using C = Compute<T>;
  const int place = blockIdx.x, row = blockIdx.y, head = row % a.heads, width = a.width;
  const int kv_head = head / (a.heads / a.kv_heads);
  C* const near = dynamic_shared<C>() + threadIdx.x * 4 * width;
  C sum = 0;
  for (int n = own ? row / a.heads : 0; n < (own ? row / a.heads + 1 : sequences); ++n) {
    const DeviceSequence s = a.at(n);
    for (int i = threadIdx.x; i < s.queries; i += blockDim.x) {
      const int j = place - a.bias_zero + (s.keys - s.queries + i);
      if (j < a.unbiased || j >= a.visible(s, i)) continue;
      const T* const from[] = {x.q + Index{s.query + i} * x.q_step + head * width,
                               x.k + Index{s.key + j} * x.k_step + kv_head * width,
                               x.v + Index{s.key + j} * x.v_step + kv_head * width,
                               x.dy + Index{s.query + i} * x.dy_step + head * width};
      for (int part = 0; part < 4; ++part)
        for (int c = 0; c < width; ++c) near[part * width + c] = static_cast<C>(from[part][c]);
      sum +=
          pair_of(x, a, s, head, i, j, near, near + width, near + 2 * width, near + 3 * width).ds;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) dbias[Index{row} * a.places + place] = static_cast<T>(sum);
}

template <class T>
void gradients_of_rows(const GradArrays<T>& x, const AttentionArguments& arguments) {
  using C = Compute<T>;
  const DeviceAttention& a = arguments.get();
  const auto queries = arguments.query_tiles(), keys = arguments.key_tiles();
  check(a.width <= kWidest, "sdpa: heads of width {}; the device's gradient takes {}", a.width,
        kWidest);
  const bool narrow = a.width <= kWidest / 2;
  launch("sdpa dq", narrow ? dq_kernel<T, kOwn / 2> : dq_kernel<T, kOwn>,
         Grid{queries.count, kThreads, unsigned(a.heads), dq_shared<C>(a.width)}, x, a,
         queries.data());
  launch("sdpa dk dv", narrow ? dkv_kernel<T, kOwn / 2> : dkv_kernel<T, kOwn>,
         Grid{keys.count, kThreads, unsigned(a.kv_heads), dkv_shared<C>(a.width)}, x, a,
         keys.data());
}

}  // namespace

void sdpa_grad(Array& dq, Array& dk, Array& dv, Array& dbias, const Array& q, const Array& k,
               const Array& v, const Array& bias, const Array& y, const Array& lse, const Array& dy,
               int heads, int kv_heads, const AttentionShape& shape) {
  // Keys that no query of a sequence sees, and rows of no sequence, have no gradient.
  dk.fill(0), dv.fill(0);
  if (q.numel() == 0) {
    if (dbias.defined()) dbias.fill(0);
    return;
  }
  const AttentionArguments arguments(shape, q, bias, heads, kv_heads);
  const DeviceAttention& a = arguments.get();
  dispatch_all(q, [&]<class T>(T) {
    using C = Compute<T>;
    Array deltas = Array::empty({q.dim(0), heads}, {dtype_of<C>, Device::cuda});
    C* const delta = deltas.device_data<C>();
    const GradArrays<T> x{q.device_data<T>(),   k.device_data<T>(),
                          v.device_data<T>(),   bias.defined() ? bias.device_data<T>() : nullptr,
                          y.device_data<T>(),   dy.device_data<T>(),
                          lse.device_data<C>(), delta,
                          dq.device_data<T>(),  dk.device_data<T>(),
                          dv.device_data<T>(),  q.stride(0),
                          k.stride(0),          v.stride(0),
                          y.stride(0),          dy.stride(0),
                          dq.stride(0),         dk.stride(0),
                          dv.stride(0)};
    launch("sdpa delta", delta_kernel<T>, grid_of(q.dim(0) * heads * kWarp), delta, x, q.dim(0),
           heads, a.width);
    bool on_tensor_cores = false;
    if constexpr (is_half(dtype_of<T>)) {
      on_tensor_cores = a.width <= kWidestOnTensorCores;
      if (on_tensor_cores) sdpa_grad_on_tensor_cores(x, arguments);
    }
    if (!on_tensor_cores) gradients_of_rows(x, arguments);
    if (!dbias.defined()) return;
    constexpr unsigned kRow = 32;
    launch("sdpa dbias", dbias_kernel<T>,
           Grid{unsigned(a.places), kRow, unsigned(dbias.dim(0)), sizeof(C) * kRow * 4 * a.width},
           dbias.device_data<T>(), x, a, int(arguments.sequences()), arguments.own_biases());
  });
}

}  // namespace graft::cuda
