// Attention of halves on tensor cores (Dao 2023, 2307.08691, algorithm 1): as sdpa.cu has it, but
// that a warp has 16 queries of its own, whose scores, sums and weighted values stay in its
// registers. Weights are rounded to halves before they multiply values; everything else is f32.
#include "tensor/kernels/sdpa_mma.h"

namespace graft::cuda {
namespace {

constexpr int kKeys = 64;  // of a tile

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Larger {
  __device__ float operator()(float a, float b) const { return a > b ? a : b; }
};

// What a lane knows of its two queries: the largest score, and the sum of exponentials.
struct Rows {
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
};

// Turns products into weights; returns by turn[] what the rows' sums so far are multiplied by.
template <class T, int n>
__device__ void weigh(TileSum (&score)[n], Rows& rows, float (&turn)[2], const ForwardArrays<T>& x,
                      const DeviceAttention& a, const DeviceSequence& s, int head, int query,
                      int key) {
  float high[2] = {rows.most[0], rows.most[1]}, total[2] = {0, 0};
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e) {
      const int i = query + 8 * (e / 2), j = key + 8 * t + 2 * lane_pair() + e % 2;
      float& z = score[t].c[e];
      z = a.sees(s, i, j) ? score_of(x.bias, a, s, head, i, j, z) : -INFINITY;
      high[e / 2] = Larger{}(high[e / 2], z);
    }
  for (int h = 0; h < 2; ++h) {
    high[h] = over_row(high[h], Larger{});
    turn[h] = high[h] > -INFINITY ? vmath::exp(rows.most[h] - high[h]) : 1.f;
    rows.most[h] = high[h];
  }
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e) {
      const int i = query + 8 * (e / 2), j = key + 8 * t + 2 * lane_pair() + e % 2;
      float& z = score[t].c[e];
      const bool sees = a.sees(s, i, j);  // a NaN among the scores stays
      z = sees ? vmath::exp(z - high[e / 2]) : 0.f;
      total[e / 2] += z;
      if (sees && a.dropout > 0) z *= a.factor<float>(s, head, i, j);
    }
  for (int h = 0; h < 2; ++h) rows.sum[h] = rows.sum[h] * turn[h] + over_row(total[h], Add{});
}

template <class T, int w>
__global__ void __launch_bounds__(kMmaThreads)
    sdpa_mma_kernel(ForwardArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  constexpr int kStep = mma_step(w);
  if (tile[2 * blockIdx.x] < 0) return;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], head = blockIdx.y, width = a.width;
  const int kv_head = head / (a.heads / a.kv_heads), warp = static_cast<int>(threadIdx.x) / kWarp;
  T* const q = dynamic_shared<T>();
  T* const k = q + kMmaRows * kStep;
  T* const v = k + kKeys * kStep;
  const auto q_rows = head_rows(x.q, x.q_step, s.query, s.queries, head, width);
  const auto k_rows = head_rows(x.k, x.k_step, s.key, s.keys, kv_head, width);
  const auto v_rows = head_rows(x.v, x.v_step, s.key, s.keys, kv_head, width);
  load_halves<kMmaRows, w>(q, q_rows, first);
  const T* const own = q + 16 * warp * kStep;
  const int query = first + 16 * warp + lane_group();  // and the eighth after it
  const bool busy = first + 16 * warp < s.queries;     // else the warp only loads
  Rows rows;
  TileSum out[w / 8] = {};
  const int seen = a.visible(s, min(first + kMmaRows, s.queries) - 1);
  for (int from = 0; from < seen; from += kKeys) {
    __syncthreads();
    load_halves<kKeys, w>(k, k_rows, from);
    load_halves<kKeys, w>(v, v_rows, from);
    __syncthreads();
    if (!busy) continue;
    const int keys = seen - from;
    TileSum score[kKeys / 8] = {};
    GRAFT_UNROLL
    for (int c = 0; c < w; c += 16) {
      const TileA left = tile_a(own + c, kStep);
      GRAFT_UNROLL
      for (int t = 0; t < kKeys / 8; ++t)
        if (8 * t < keys) multiply<T>(score[t], left, tile_b_turned(k + 8 * t * kStep + c, kStep));
    }
    float turn[2];
    weigh(score, rows, turn, x, a, s, head, query, from);
    GRAFT_UNROLL
    for (int t = 0; t < w / 8; ++t)
      for (int e = 0; e < 4; ++e) out[t].c[e] *= turn[e / 2];
    GRAFT_UNROLL
    for (int j = 0; j < kKeys; j += 16) {
      if (j >= keys) continue;
      const TileA weights = tile_a<T>(score[j / 8], score[j / 8 + 1]);
      GRAFT_UNROLL
      for (int t = 0; t < w / 8; ++t)
        multiply<T>(out[t], weights, tile_b(v + j * kStep + 8 * t, kStep));
    }
  }
  GRAFT_UNROLL
  for (int t = 0; t < w / 8; ++t)
    for (int e = 0; e < 4; ++e) {
      const int h = e / 2, i = query + 8 * h, c = 8 * t + 2 * lane_pair() + e % 2;
      if (i >= s.queries || c >= width) continue;
      const float value = rows.sum[h] == 0 ? 0.f : out[t].c[e] / rows.sum[h];
      x.y[(s.query + i) * x.y_step + head * width + c] = static_cast<T>(value);
    }
  for (int h = 0; h < 2; ++h)
    if (lane_pair() == 0 && query + 8 * h < s.queries)
      x.lse[std::int64_t{s.query + query + 8 * h} * a.heads + head] =
          rows.most[h] + std::log(rows.sum[h]);
}

}  // namespace

template <class T>
void sdpa_on_tensor_cores(const ForwardArrays<T>& x, const AttentionArguments& arguments) {
  const DeviceAttention& a = arguments.get();
  const auto tiles = arguments.query_tiles(kMmaRows);
  with_tile_width(a.width, [&](auto w) {
    const std::size_t shared = sizeof(T) * (kMmaRows + 2 * kKeys) * mma_step(w);
    launch("sdpa on tensor cores", sdpa_mma_kernel<T, w>,
           Grid{tiles.count, kMmaThreads, unsigned(a.heads), shared}, x, a, tiles.data());
  });
}
template void sdpa_on_tensor_cores(const ForwardArrays<BF16>&, const AttentionArguments&);
template void sdpa_on_tensor_cores(const ForwardArrays<F16>&, const AttentionArguments&);

}  // namespace graft::cuda
