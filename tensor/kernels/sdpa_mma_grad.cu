// The gradient of attention of halves on tensor cores: as sdpa_grad.cu has it, with the same blocks
// and the same one order of every sum. Weights and the gradients of scores are rounded to halves
// before they multiply rows.
#include "tensor/kernels/sdpa_mma.h"

namespace graft::cuda {
namespace {

constexpr int kOthers = 32;  // keys of a tile that queries go over, and queries that keys go over

// weight and ds of every element of a warp's tile: of `product` and `dweight` in their places.
// Rows are queries, columns keys, or the other way round.
template <bool rows_are_queries, class T, int n>
__device__ void differentiate(TileSum (&product)[n], TileSum (&dweight)[n], const GradArrays<T>& x,
                              const DeviceAttention& a, const DeviceSequence& s, int head, int row,
                              int column) {
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e) {
      const int r = row + 8 * (e / 2), c = column + 8 * t + 2 * lane_pair() + e % 2;
      const int i = rows_are_queries ? r : c, j = rows_are_queries ? c : r;
      Pair<float> pair;
      if (a.sees(s, i, j)) pair = pair_of(x, a, s, head, i, j, product[t].c[e], dweight[t].c[e]);
      product[t].c[e] = pair.weight, dweight[t].c[e] = pair.ds;
    }
}

// product = left right^T and dweight = left2 right2^T, of tiles of w columns: a warp's 16 rows with
// the rows of the other side that there are.
template <int w, class T, int n>
__device__ void both_products(TileSum (&product)[n], TileSum (&dweight)[n], const T* left,
                              const T* right, const T* left2, const T* right2, int there) {
  constexpr int kStep = mma_step(w);
  GRAFT_UNROLL
  for (int c = 0; c < w; c += 16) {
    const TileA one = tile_a(left + c, kStep), two = tile_a(left2 + c, kStep);
    GRAFT_UNROLL
    for (int t = 0; t < n; ++t) {
      if (8 * t >= there) continue;
      multiply<T>(product[t], one, tile_b_turned(right + 8 * t * kStep + c, kStep));
      multiply<T>(dweight[t], two, tile_b_turned(right2 + 8 * t * kStep + c, kStep));
    }
  }
}

// sum += part rows, of a tile of w columns with the rows that there are.
template <int w, class T, int n>
__device__ void add_products(TileSum (&sum)[w / 8], const TileSum (&part)[n], const T* rows,
                             int there) {
  constexpr int kStep = mma_step(w);
  GRAFT_UNROLL
  for (int r = 0; r < 8 * n; r += 16) {
    if (r >= there) continue;
    const TileA left = tile_a<T>(part[r / 8], part[r / 8 + 1]);
    GRAFT_UNROLL
    for (int t = 0; t < w / 8; ++t)
      multiply<T>(sum[t], left, tile_b(rows + r * kStep + 8 * t, kStep));
  }
}

// A warp's 16 rows times `by`, as far as there are rows and columns.
template <int w, class T>
__device__ void write(const HeadRows<T>& to, const TileSum (&sum)[w / 8], float by, int first) {
  GRAFT_UNROLL
  for (int t = 0; t < w / 8; ++t)
    for (int e = 0; e < 4; ++e) {
      const int r = first + 8 * (e / 2), c = 8 * t + 2 * lane_pair() + e % 2;
      if (r < to.rows && c < to.width) to.at[r * to.step + c] = static_cast<T>(by * sum[t].c[e]);
    }
}

template <class T, int w>
__global__ void __launch_bounds__(kMmaThreads)
    dq_mma_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  constexpr int kStep = mma_step(w);
  if (tile[2 * blockIdx.x] < 0) return;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], head = blockIdx.y, width = a.width;
  const int kv_head = head / (a.heads / a.kv_heads), warp = static_cast<int>(threadIdx.x) / kWarp;
  T* const q = dynamic_shared<T>();
  T* const dy = q + kMmaRows * kStep;
  T* const k = dy + kMmaRows * kStep;
  T* const v = k + kOthers * kStep;
  const auto q_rows = head_rows(x.q, x.q_step, s.query, s.queries, head, width);
  const auto dy_rows = head_rows(x.dy, x.dy_step, s.query, s.queries, head, width);
  const auto k_rows = head_rows(x.k, x.k_step, s.key, s.keys, kv_head, width);
  const auto v_rows = head_rows(x.v, x.v_step, s.key, s.keys, kv_head, width);
  load_halves<kMmaRows, w>(q, q_rows, first);
  load_halves<kMmaRows, w>(dy, dy_rows, first);
  const int own = 16 * warp * kStep, query = first + 16 * warp + lane_group();
  const bool busy = first + 16 * warp < s.queries;  // else the warp only loads
  TileSum dq[w / 8] = {};
  const int seen = a.visible(s, min(first + kMmaRows, s.queries) - 1);
  for (int from = 0; from < seen; from += kOthers) {
    __syncthreads();
    load_halves<kOthers, w>(k, k_rows, from);
    load_halves<kOthers, w>(v, v_rows, from);
    __syncthreads();
    TileSum product[kOthers / 8] = {}, ds[kOthers / 8] = {};
    if (!busy) continue;
    both_products<w>(product, ds, q + own, k, dy + own, v, seen - from);
    differentiate<true>(product, ds, x, a, s, head, query, from);
    add_products<w>(dq, ds, k, seen - from);
  }
  write<w>(head_rows(x.dq, x.dq_step, s.query, s.queries, head, width), dq,
           static_cast<float>(a.scale), query);
}

template <class T, int w>
__global__ void __launch_bounds__(kMmaThreads)
    dkv_mma_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  constexpr int kStep = mma_step(w);
  if (tile[2 * blockIdx.x] < 0) return;
  const DeviceSequence s = a.at(tile[2 * blockIdx.x]);
  const int first = tile[2 * blockIdx.x + 1], kv_head = blockIdx.y, width = a.width;
  const int group = a.heads / a.kv_heads, warp = static_cast<int>(threadIdx.x) / kWarp;
  T* const k = dynamic_shared<T>();
  T* const v = k + kMmaRows * kStep;
  T* const q = v + kMmaRows * kStep;
  T* const dy = q + kOthers * kStep;
  const auto k_rows = head_rows(x.k, x.k_step, s.key, s.keys, kv_head, width);
  const auto v_rows = head_rows(x.v, x.v_step, s.key, s.keys, kv_head, width);
  load_halves<kMmaRows, w>(k, k_rows, first);
  load_halves<kMmaRows, w>(v, v_rows, first);
  const int own = 16 * warp * kStep, key = first + 16 * warp + lane_group();
  const bool busy = first + 16 * warp < s.keys;
  TileSum dk[w / 8] = {}, dv[w / 8] = {};
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const auto q_rows = head_rows(x.q, x.q_step, s.query, s.queries, head, width);
    const auto dy_rows = head_rows(x.dy, x.dy_step, s.query, s.queries, head, width);
    for (int from = 0; from < s.queries; from += kOthers) {
      if (a.visible(s, min(from + kOthers, s.queries) - 1) <= first) continue;
      __syncthreads();
      load_halves<kOthers, w>(q, q_rows, from);
      load_halves<kOthers, w>(dy, dy_rows, from);
      __syncthreads();
      TileSum weight[kOthers / 8] = {}, ds[kOthers / 8] = {};
      if (!busy) continue;
      const int queries = s.queries - from;
      both_products<w>(weight, ds, k + own, q, v + own, dy, queries);
      differentiate<false>(weight, ds, x, a, s, head, key, from);
      add_products<w>(dv, weight, dy, queries);
      add_products<w>(dk, ds, q, queries);
    }
  }
  write<w>(head_rows(x.dk, x.dk_step, s.key, s.keys, kv_head, width), dk,
           static_cast<float>(a.scale), key);
  write<w>(head_rows(x.dv, x.dv_step, s.key, s.keys, kv_head, width), dv, 1.f, key);
}

}  // namespace

template <class T>
void sdpa_grad_on_tensor_cores(const GradArrays<T>& x, const AttentionArguments& arguments) {
  const DeviceAttention& a = arguments.get();
  const auto queries = arguments.query_tiles(kMmaRows), keys = arguments.key_tiles(kMmaRows);
  with_tile_width(a.width, [&](auto w) {
    const std::size_t shared = sizeof(T) * 2 * (kMmaRows + kOthers) * mma_step(w);
    launch("sdpa dq on tensor cores", dq_mma_kernel<T, w>,
           Grid{queries.count, kMmaThreads, unsigned(a.heads), shared}, x, a, queries.data());
    launch("sdpa dk dv on tensor cores", dkv_mma_kernel<T, w>,
           Grid{keys.count, kMmaThreads, unsigned(a.kv_heads), shared}, x, a, keys.data());
  });
}
template void sdpa_grad_on_tensor_cores(const GradArrays<BF16>&, const AttentionArguments&);
template void sdpa_grad_on_tensor_cores(const GradArrays<F16>&, const AttentionArguments&);

}  // namespace graft::cuda
