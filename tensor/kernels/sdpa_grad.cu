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

template <class T>
struct GradArrays {
  const T *q, *k, *v, *bias, *y, *dy;  // bias null: none
  const Compute<T>* lse;
  const Compute<T>* delta;
  T *dq, *dk, *dv;
  Index q_step, k_step, v_step, y_step, dy_step, dq_step, dk_step, dv_step;
};

// delta[row, head] = sum of dy y over the head's columns.
template <class T>
__global__ void delta_kernel(Compute<T>* delta, GradArrays<T> x, Index rows, int heads, int width) {
  using C = Compute<T>;
  for (Index i = thread_index(); i < rows * heads; i += grid_step()) {
    const T* const y = x.y + i / heads * x.y_step + i % heads * width;
    const T* const dy = x.dy + i / heads * x.dy_step + i % heads * width;
    C sum = 0;
    for (int c = 0; c < width; ++c)
      sum = vmath::fma(static_cast<C>(dy[c]), static_cast<C>(y[c]), sum);
    delta[i] = sum;
  }
}

// Of one query and one key: the weight after dropout, and the gradient of the score.
template <class C>
struct Pair {
  C weight = 0, ds = 0;
};

template <class T>
__device__ Pair<Compute<T>> pair_of(const GradArrays<T>& x, const DeviceAttention& a,
                                    const DeviceSequence& s, int head, int i, int j,
                                    const Compute<T>* q, const Compute<T>* k, const Compute<T>* v,
                                    const Compute<T>* dy) {
  using C = Compute<T>;
  if (i >= s.queries || j >= a.visible(s, i)) return {};
  const Index row = Index{s.query + i} * a.heads + head;
  C score = static_cast<C>(a.scale) * dot(q, k, a.width);
  const int place = x.bias ? a.place(s, i, j) : -1;
  if (place >= 0) score += static_cast<C>(x.bias[Index{s.bias_row + head} * a.places + place]);
  const C p = vmath::exp(score - x.lse[row]);
  const C m = a.dropout > 0 ? a.factor<C>(s, head, i, j) : C{1};
  return {p * m, p * (m * dot(dy, v, a.width) - x.delta[row])};
}

template <class C>
std::size_t grad_shared(int width) {
  return sizeof(C) * (4 * kTile * (width + 1) + 2 * kTile * width + 2 * kTile * (kTile + 1));
}

template <class T>
__global__ void dq_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  using C = Compute<T>;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], head = blockIdx.y, width = a.width, step = width + 1;
  const int kv_head = head / (a.heads / a.kv_heads), rows = min(kTile, s.queries - first);
  C* const q = dynamic_shared<C>();
  C* const k = q + kTile * step;
  C* const v = k + kTile * step;
  C* const dy = v + kTile * step;
  C* const sum = dy + kTile * step;  // [kTile, width]
  C* const ds = sum + 2 * kTile * width;
  load_tile(q, step, x.q + s.query * x.q_step + head * width, x.q_step, first, s.queries, width);
  load_tile(dy, step, x.dy + s.query * x.dy_step + head * width, x.dy_step, first, s.queries,
            width);
  for (int i = threadIdx.x; i < kTile * width; i += blockDim.x) sum[i] = 0;
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
    for (int i = threadIdx.x; i < kTile * width; i += blockDim.x) {
      const int r = i / width, c = i % width;
      C total = sum[i];
      for (int j = 0; j < kTile; ++j)
        total = vmath::fma(ds[r * (kTile + 1) + j], k[j * step + c], total);
      sum[i] = total;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < rows * width; i += blockDim.x)
    x.dq[(s.query + first + i / width) * x.dq_step + head * width + i % width] =
        static_cast<T>(static_cast<C>(a.scale) * sum[i]);
}

template <class T>
__global__ void dkv_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  using C = Compute<T>;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], kv_head = blockIdx.y, width = a.width;
  const int step = width + 1, group = a.heads / a.kv_heads, keys = min(kTile, s.keys - first);
  C* const q = dynamic_shared<C>();
  C* const k = q + kTile * step;
  C* const v = k + kTile * step;
  C* const dy = v + kTile * step;
  C* const dk = dy + kTile * step;  // [kTile, width]
  C* const dv = dk + kTile * width;
  C* const p = dv + kTile * width;  // [query, key]
  C* const ds = p + kTile * (kTile + 1);
  load_tile(k, step, x.k + s.key * x.k_step + kv_head * width, x.k_step, first, s.keys, width);
  load_tile(v, step, x.v + s.key * x.v_step + kv_head * width, x.v_step, first, s.keys, width);
  for (int i = threadIdx.x; i < kTile * width; i += blockDim.x) dk[i] = 0, dv[i] = 0;
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
      for (int i = threadIdx.x; i < kTile * width; i += blockDim.x) {
        const int j = i / width, c = i % width;
        C to_key = dk[i], to_value = dv[i];
        for (int r = 0; r < kTile; ++r) {
          to_key = vmath::fma(ds[r * (kTile + 1) + j], q[r * step + c], to_key);
          to_value = vmath::fma(p[r * (kTile + 1) + j], dy[r * step + c], to_value);
        }
        dk[i] = to_key, dv[i] = to_value;
      }
    }
  __syncthreads();
  for (int i = threadIdx.x; i < keys * width; i += blockDim.x) {
    const Index row = s.key + first + i / width, column = kv_head * width + i % width;
    x.dk[row * x.dk_step + column] = static_cast<T>(static_cast<C>(a.scale) * dk[i]);
    x.dv[row * x.dv_step + column] = static_cast<T>(dv[i]);
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
  const auto queries = arguments.query_tiles(), keys = arguments.key_tiles();
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
    launch("sdpa delta", delta_kernel<T>, grid_of(q.dim(0) * heads), delta, x, q.dim(0), heads,
           a.width);
    const std::size_t shared = grad_shared<C>(a.width);
    launch("sdpa dq", dq_kernel<T>, Grid{queries.count, kThreads, unsigned(heads), shared}, x, a,
           queries.data());
    launch("sdpa dk dv", dkv_kernel<T>, Grid{keys.count, kThreads, unsigned(kv_heads), shared}, x,
           a, keys.data());
    if (!dbias.defined()) return;
    constexpr unsigned kRow = 32;
    launch("sdpa dbias", dbias_kernel<T>,
           Grid{unsigned(a.places), kRow, unsigned(dbias.dim(0)), sizeof(C) * kRow * 4 * a.width},
           dbias.device_data<T>(), x, a, int(arguments.sequences()), arguments.own_biases());
  });
}

}  // namespace graft::cuda
