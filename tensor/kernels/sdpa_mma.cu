// Attention of halves on tensor cores (Dao 2023, 2307.08691, algorithm 1): as sdpa.cu has it, but
// that a warp has queries of its own, whose scores, sums and weighted values stay in its registers,
// and that the next tile of keys is on its way meanwhile. Weights are rounded to halves before they
// multiply values; everything else is f32.
#include "tensor/kernels/sdpa_mma.h"

namespace graft::cuda {
namespace {

constexpr int kKeys = 64;  // of a tile

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Larger {  // of a NaN and a number the number
  __device__ float operator()(float a, float b) const { return std::fmax(a, b); }
};

// What a lane knows of two of its queries, `first` and the eighth after it.
struct Rows {
  int first, seen[2];                      // how many keys each sees
  float most[2] = {-INFINITY, -INFINITY};  // the largest score so far
  float sum[2] = {0, 0};                   // of the exponentials
};

// Scores times log2 e, with biases, of the keys from `key` on.
template <class T, int n>
__device__ void add_biases(TileSum (&score)[n], const Rows& rows, const T* bias,
                           const DeviceAttention& a, const DeviceSequence& s, int head, int key) {
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e) {
      const int j = key + 8 * t + 2 * lane_pair() + e % 2;
      if (j >= rows.seen[e / 2]) continue;
      float& z = score[t].c[e];
      z = kLog2E * score_of(bias, a, s, head, rows.first + 8 * (e / 2), j, z);
    }
}

// Turns scores into weights; returns by turn[] what the rows' sums so far are multiplied by. The
// scores' largest is found before they are multiplied by `by`, which is above 0. Of a tile that is
// not `whole` not every key is seen by every query.
template <Weights kind, int n>
__device__ void weigh(TileSum (&score)[n], Rows& rows, float (&turn)[2], float by, bool whole,
                      const DeviceAttention& a, const DeviceSequence& s, int head, int key) {
  const int seen[2] = {rows.seen[0] - key - 2 * lane_pair(), rows.seen[1] - key - 2 * lane_pair()};
  const auto hide = [&](float as) {
    GRAFT_UNROLL
    for (int t = 0; t < n; ++t)
      for (int e = 0; e < 4; ++e)
        if (8 * t + e % 2 >= seen[e / 2]) score[t].c[e] = as;
  };
  if (!whole) hide(-INFINITY);
  float high[2] = {rows.most[0], rows.most[1]}, total[2] = {0, 0}, low[2];
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e) high[e / 2] = Larger{}(high[e / 2], score[t].c[e]);
  GRAFT_UNROLL
  for (int h = 0; h < 2; ++h) {
    high[h] = over_row(high[h], Larger{});
    turn[h] = high[h] > -INFINITY ? power_of_two(by * (rows.most[h] - high[h])) : 1.f;
    rows.most[h] = high[h];
    low[h] = -by * high[h];
  }
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e)
      score[t].c[e] = power_of_two(vmath::fma(score[t].c[e], by, low[e / 2]));
  if (!whole) hide(0);  // also where no key is seen yet; a NaN among the scores that are stays
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e) total[e / 2] += score[t].c[e];
  GRAFT_UNROLL
  for (int h = 0; h < 2; ++h) rows.sum[h] = rows.sum[h] * turn[h] + over_row(total[h], Add{});
  if (kind == Weights::plain || a.dropout <= 0) return;
  const std::uint32_t kept = kept_weights<true, n>(a, s, head, rows.first, key);
  const float factor = static_cast<float>(a.kept);
  GRAFT_UNROLL
  for (int t = 0; t < n; ++t)
    for (int e = 0; e < 4; ++e) score[t].c[e] *= kept >> (4 * t + e) & 1 ? factor : 0.f;
}

template <class T, int w, Weights kind, int m>
__global__ void __launch_bounds__(kMmaThreads, mma_blocks(w, m))
    sdpa_mma_kernel(ForwardArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  constexpr int kStep = mma_step(w), kStage = 2 * kKeys * kStep;
  const auto [number, head] = mma_block(a.heads);
  if (tile[2 * number] < 0) return;
  const DeviceSequence s = a.at(tile[2 * number]);
  const int first = tile[2 * number + 1], width = a.width, kv_head = head / (a.heads / a.kv_heads);
  const int own = first + static_cast<int>(threadIdx.x) / kWarp * 16 * m;  // the warp's first query
  const int seen = a.visible(s, min(first + mma_rows(m), s.queries) - 1);
  const int warp_seen = own < s.queries ? a.visible(s, min(own + 16 * m, s.queries) - 1) : 0;
  const int all_see = a.visible(s, own);
  T* const keys = dynamic_shared<T>();  // two stages, each a tile of keys and one of values
  // Nothing is read of what no query sees.
  const auto k_rows = head_rows(x.k, x.k_step, s.key, seen, kv_head, width);
  const auto v_rows = head_rows(x.v, x.v_step, s.key, seen, kv_head, width);
  // The queries go where the second tile of keys will be.
  static_assert(mma_rows(m) * kStep <= kStage);
  load_halves<mma_rows(m), w>(keys + kStage,
                              head_rows(x.q, x.q_step, s.query, s.queries, head, width), first);
  load_halves<kKeys, w>(keys, k_rows, 0);
  load_halves<kKeys, w>(keys + kKeys * kStep, v_rows, 0);
  const SharedPlace place = shared_place(keys);
  const int across = lane_row(kStep), turned = lane_row_turned(kStep);
  wait_for_copies();
  __syncthreads();
  TileA left[m][w / 16];
  load_rows<w>(left, place + 2 * (kStage + (own - first) * kStep) + across);
  __syncthreads();

  const float by = kind == Weights::any ? 1.f : static_cast<float>(a.scale) * kLog2E;
  Rows rows[m];
  TileSum out[m][w / 8] = {};
  GRAFT_UNROLL
  for (int i = 0; i < m; ++i) {
    rows[i].first = own + 16 * i + lane_group();
    for (int h = 0; h < 2; ++h) {
      const int query = rows[i].first + 8 * h;
      rows[i].seen[h] = query < s.queries ? a.visible(s, query) : 0;
    }
  }
  int stage = 0;
  for (int from = 0; from < seen; from += kKeys, stage = kStage - stage) {
    if (from > 0) {
      wait_for_copies();
      __syncthreads();
    }
    if (from + kKeys < seen) {
      load_halves<kKeys, w>(keys + kStage - stage, k_rows, from + kKeys);
      load_halves<kKeys, w>(keys + kStage - stage + kKeys * kStep, v_rows, from + kKeys);
    }
    if (from >= warp_seen) continue;
    const SharedPlace key = place + 2 * stage + turned;
    const SharedPlace value = place + 2 * (stage + kKeys * kStep) + across;
    TileSum score[m][kKeys / 8] = {};
    GRAFT_UNROLL
    for (int c = 0; c < w / 16; ++c) {
      GRAFT_UNROLL
      for (int t = 0; t < kKeys / 8; t += 2) {
        const TwoTilesB right = tiles_b_turned(key + 2 * (8 * t * kStep + 16 * c));
        GRAFT_UNROLL
        for (int i = 0; i < m; ++i) {
          multiply<T>(score[i][t], left[i][c], right.b[0]);
          multiply<T>(score[i][t + 1], left[i][c], right.b[1]);
        }
      }
    }
    GRAFT_UNROLL
    for (int i = 0; i < m; ++i) {
      if constexpr (kind == Weights::any) add_biases(score[i], rows[i], x.bias, a, s, head, from);
      float turn[2];
      weigh<kind>(score[i], rows[i], turn, by, from + kKeys <= all_see, a, s, head, from);
      GRAFT_UNROLL
      for (int t = 0; t < w / 8; ++t)
        for (int e = 0; e < 4; ++e) out[i][t].c[e] *= turn[e / 2];
    }
    GRAFT_UNROLL
    for (int j = 0; j < kKeys; j += 16) {
      TileA weights[m];
      GRAFT_UNROLL
      for (int i = 0; i < m; ++i) weights[i] = tile_a<T>(score[i][j / 8], score[i][j / 8 + 1]);
      GRAFT_UNROLL
      for (int t = 0; t < w / 8; t += 2) {
        const TwoTilesB right = tiles_b(value + 2 * (j * kStep + 8 * t));
        GRAFT_UNROLL
        for (int i = 0; i < m; ++i) {
          multiply<T>(out[i][t], weights[i], right.b[0]);
          multiply<T>(out[i][t + 1], weights[i], right.b[1]);
        }
      }
    }
  }

  const auto y_rows = head_rows(x.y, x.y_step, s.query, s.queries, head, width);
  const bool twos = in_twos(y_rows);
  // Scores are in units of `by` times the base 2's logarithm of their exponentials.
  const float unit = kind == Weights::any ? kLn2 : static_cast<float>(a.scale);
  GRAFT_UNROLL
  for (int i = 0; i < m; ++i) {
    GRAFT_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int query = rows[i].first + 8 * h;
      if (query >= s.queries) continue;
      const float sum = rows[i].sum[h], part = 1 / sum;
      GRAFT_UNROLL
      for (int t = 0; t < w / 8; ++t) {
        const auto value = [&](int e) { return sum == 0 ? 0.f : part * out[i][t].c[2 * h + e]; };
        write_two(y_rows.at + query * y_rows.step, 8 * t + 2 * lane_pair(), width, twos, value(0),
                  value(1));
      }
      if (lane_pair() == 0)
        x.lse[std::int64_t{s.query + query} * a.heads + head] =
            unit * rows[i].most[h] + std::log(sum);
    }
  }
}

}  // namespace

template <class T>
void sdpa_on_tensor_cores(const ForwardArrays<T>& x, const AttentionArguments& arguments) {
  const unsigned heads = unsigned(arguments.get().heads);
  with_mma_tile(arguments, x.bias, arguments.queries(), [&](auto w, auto kind, auto m) {
    const auto tiles = arguments.query_tiles(mma_rows(m));
    const std::size_t shared = sizeof(T) * 4 * kKeys * mma_step(w);
    launch("sdpa on tensor cores", sdpa_mma_kernel<T, w, kind, m>,
           Grid{tiles.count * heads, kMmaThreads, 1, shared}, x, arguments.get(), tiles.data());
  });
}
template void sdpa_on_tensor_cores(const ForwardArrays<BF16>&, const AttentionArguments&);
template void sdpa_on_tensor_cores(const ForwardArrays<F16>&, const AttentionArguments&);

}  // namespace graft::cuda
