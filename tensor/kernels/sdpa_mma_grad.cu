// The gradient of attention of halves on tensor cores: as sdpa_grad.cu has it, with one order of
// every sum. Weights and the gradients of scores are rounded to halves before they multiply rows.
#include "tensor/kernels/sdpa_mma.h"

namespace graft::cuda {
namespace {

// Rows of a tile of the other side: keys that queries go over, and queries that keys go over.
constexpr int kOthers = 32;

// product = left right^T, of tiles of w columns: a warp's 16 m rows with `8 n` rows of the other
// side.
template <class T, int w, int m, int n>
__device__ void multiply_rows(TileSum (&product)[m][n], const TileA (&left)[m][w / 16],
                              SharedPlace right) {
  GRAFT_UNROLL
  for (int c = 0; c < w / 16; ++c) {
    GRAFT_UNROLL
    for (int t = 0; t < n; t += 2) {
      const TwoTilesB both = tiles_b_turned(right + 2 * (8 * t * mma_step(w) + 16 * c));
      GRAFT_UNROLL
      for (int i = 0; i < m; ++i) {
        multiply<T>(product[i][t], left[i][c], both.b[0]);
        multiply<T>(product[i][t + 1], left[i][c], both.b[1]);
      }
    }
  }
}
// The same where there are no registers for all of `left`.
template <class T, int w, int m, int n>
__device__ void multiply_rows(TileSum (&product)[m][n], SharedPlace left, SharedPlace right) {
  GRAFT_UNROLL
  for (int c = 0; c < w / 16; ++c) {
    TileA part[m];
    GRAFT_UNROLL
    for (int i = 0; i < m; ++i) part[i] = tile_a(left + 2 * (16 * i * mma_step(w) + 16 * c));
    GRAFT_UNROLL
    for (int t = 0; t < n; t += 2) {
      const TwoTilesB both = tiles_b_turned(right + 2 * (8 * t * mma_step(w) + 16 * c));
      GRAFT_UNROLL
      for (int i = 0; i < m; ++i) {
        multiply<T>(product[i][t], part[i], both.b[0]);
        multiply<T>(product[i][t + 1], part[i], both.b[1]);
      }
    }
  }
}

// sum += part rows, of a tile of w columns.
template <class T, int w, int m, int n>
__device__ void add_products(TileSum (&sum)[m][w / 8], const TileSum (&part)[m][n],
                             SharedPlace rows) {
  GRAFT_UNROLL
  for (int r = 0; r < 8 * n; r += 16) {
    TileA left[m];
    GRAFT_UNROLL
    for (int i = 0; i < m; ++i) left[i] = tile_a<T>(part[i][r / 8], part[i][r / 8 + 1]);
    GRAFT_UNROLL
    for (int t = 0; t < w / 8; t += 2) {
      const TwoTilesB both = tiles_b(rows + 2 * (r * mma_step(w) + 8 * t));
      GRAFT_UNROLL
      for (int i = 0; i < m; ++i) {
        multiply<T>(sum[i][t], left[i], both.b[0]);
        multiply<T>(sum[i][t + 1], left[i], both.b[1]);
      }
    }
  }
}

// A warp's rows from `first` on times `by`, as far as there are rows and columns.
template <int w, int m, class T>
__device__ void write(const HeadRows<T>& to, const TileSum (&sum)[m][w / 8], float by, int first) {
  const bool twos = in_twos(to);
  GRAFT_UNROLL
  for (int i = 0; i < m; ++i) {
    GRAFT_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int r = first + 16 * i + 8 * h + lane_group();
      if (r >= to.rows) continue;
      GRAFT_UNROLL
      for (int t = 0; t < w / 8; ++t) {
        const float* const c = sum[i][t].c + 2 * h;
        write_two(to.at + r * to.step, 8 * t + 2 * lane_pair(), to.width, twos, by * c[0],
                  by * c[1]);
      }
    }
  }
}

// The score of query i and key j times log2 e, with its bias, and the weight's factor: 1, or what
// dropout makes of it.
template <Weights kind, class T>
__device__ float exponent(const GradArrays<T>& x, const DeviceAttention& a, const DeviceSequence& s,
                          int head, int i, int j, float product) {
  if (kind != Weights::any) return product;
  return a.sees(s, i, j) ? kLog2E * score_of(x.bias, a, s, head, i, j, product) : 0.f;
}
template <Weights kind>
__device__ bool drops(const DeviceAttention& a) {
  return kind == Weights::dropped || (kind == Weights::any && a.dropout > 0);
}

// Of a score and the gradient of a weight, the weight and the score's gradient in their places.
// `lse` is times log2 e, `factor` what dropout multiplies the weight by.
template <Weights kind>
__device__ void differentiate(float& product, float& dweight, float by, float lse, float delta,
                              float factor) {
  const float p = power_of_two(vmath::fma(product, by, -lse));
  product = kind == Weights::plain ? p : p * factor;
  dweight = p * ((kind == Weights::plain ? dweight : factor * dweight) - delta);
}

template <class T, int w, Weights kind, int m>
__global__ void __launch_bounds__(kMmaThreads, mma_blocks(w, m))
    dq_mma_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  constexpr int kStep = mma_step(w), kStage = 2 * kOthers * kStep;
  const auto [number, head] = mma_block(a.heads);
  if (tile[2 * number] < 0) return;
  const DeviceSequence s = a.at(tile[2 * number]);
  const int first = tile[2 * number + 1], width = a.width, kv_head = head / (a.heads / a.kv_heads);
  const int own = first + static_cast<int>(threadIdx.x) / kWarp * 16 * m;  // the warp's first query
  const int seen = a.visible(s, min(first + mma_rows(m), s.queries) - 1);
  const int warp_seen = own < s.queries ? a.visible(s, min(own + 16 * m, s.queries) - 1) : 0;
  const int all_see = a.visible(s, own);
  T* const keys = dynamic_shared<T>();  // two stages, each a tile of keys and one of values
  T* const q = keys + 2 * kStage;
  const auto k_rows = head_rows(x.k, x.k_step, s.key, seen, kv_head, width);
  const auto v_rows = head_rows(x.v, x.v_step, s.key, seen, kv_head, width);
  load_halves<mma_rows(m), w>(q, head_rows(x.q, x.q_step, s.query, s.queries, head, width), first);
  load_halves<mma_rows(m), w>(q + mma_rows(m) * kStep,
                              head_rows(x.dy, x.dy_step, s.query, s.queries, head, width), first);
  load_halves<kOthers, w>(keys, k_rows, 0);
  load_halves<kOthers, w>(keys + kOthers * kStep, v_rows, 0);
  const SharedPlace place = shared_place(keys);
  const int across = lane_row(kStep), turned = lane_row_turned(kStep);

  // Of the lane's queries: keys that they see, and of the softmax.
  int seen_by[m][2];
  float lse[m][2], delta[m][2];
  GRAFT_UNROLL
  for (int i = 0; i < m; ++i) {
    GRAFT_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int query = own + 16 * i + 8 * h + lane_group();
      const bool there = query < s.queries;
      const std::int64_t row = std::int64_t{s.query + query} * a.heads + head;
      seen_by[i][h] = (there ? a.visible(s, query) : 0) - 2 * lane_pair();
      lse[i][h] = there ? kLog2E * x.lse[row] : 0;
      delta[i][h] = there ? x.delta[row] : 0;
    }
  }
  const float by = kind == Weights::any ? 1.f : static_cast<float>(a.scale) * kLog2E;
  const float factor = drops<kind>(a) ? static_cast<float>(a.kept) : 1.f;
  wait_for_copies();
  __syncthreads();
  TileA left[m][w / 16], left_dy[m][w / 16];
  const SharedPlace own_rows = place + 2 * (2 * kStage + (own - first) * kStep) + across;
  load_rows<w>(left, own_rows);
  load_rows<w>(left_dy, own_rows + 2 * mma_rows(m) * kStep);

  TileSum dq[m][w / 8] = {};
  int stage = 0;
  for (int from = 0; from < seen; from += kOthers, stage = kStage - stage) {
    if (from > 0) {
      wait_for_copies();
      __syncthreads();
    }
    if (from + kOthers < seen) {
      load_halves<kOthers, w>(keys + kStage - stage, k_rows, from + kOthers);
      load_halves<kOthers, w>(keys + kStage - stage + kOthers * kStep, v_rows, from + kOthers);
    }
    if (from >= warp_seen) continue;
    const SharedPlace key = place + 2 * stage, value = key + 2 * kOthers * kStep;
    TileSum product[m][kOthers / 8] = {}, ds[m][kOthers / 8] = {};
    multiply_rows<T, w>(product, left, key + turned);
    multiply_rows<T, w>(ds, left_dy, value + turned);
    GRAFT_UNROLL
    for (int i = 0; i < m; ++i) {
      const int query = own + 16 * i + lane_group();
      std::uint32_t kept = ~std::uint32_t{0};
      if (drops<kind>(a)) kept = kept_weights<true, kOthers / 8>(a, s, head, query, from);
      GRAFT_UNROLL
      for (int t = 0; t < kOthers / 8; ++t)
        for (int e = 0; e < 4; ++e) {
          float& z = product[i][t].c[e];
          z = exponent<kind>(x, a, s, head, query + 8 * (e / 2),
                             from + 8 * t + 2 * lane_pair() + e % 2, z);
          differentiate<kind>(z, ds[i][t].c[e], by, lse[i][e / 2], delta[i][e / 2],
                              kept >> (4 * t + e) & 1 ? factor : 0.f);
        }
      if (from + kOthers <= all_see) continue;
      GRAFT_UNROLL
      for (int t = 0; t < kOthers / 8; ++t)
        for (int e = 0; e < 4; ++e)
          if (8 * t + e % 2 >= seen_by[i][e / 2] - from) ds[i][t].c[e] = 0;
    }
    add_products<T, w>(dq, ds, key + across);
  }
  write<w>(head_rows(x.dq, x.dq_step, s.query, s.queries, head, width), dq,
           static_cast<float>(a.scale), own);
}

template <class T, int w, Weights kind, int m>
__global__ void __launch_bounds__(kMmaThreads, mma_blocks(w, m))
    dkv_mma_kernel(GradArrays<T> x, DeviceAttention a, const std::int32_t* tile) {
  constexpr int kStep = mma_step(w), kStage = 2 * kOthers * kStep;
  constexpr bool kHeld = m * w <= 64;  // the warp's keys and values stay in registers
  const auto [number, kv_head] = mma_block(a.kv_heads);
  if (tile[2 * number] < 0) return;
  const DeviceSequence s = a.at(tile[2 * number]);
  const int first = tile[2 * number + 1], width = a.width, group = a.heads / a.kv_heads;
  const int thread = static_cast<int>(threadIdx.x);
  const int own = first + thread / kWarp * 16 * m;  // the warp's first key
  const int key = own + lane_group();               // the lane's
  // The first query that sees a key.
  const auto begin_of = [&](int key) { return a.causal ? max(0, key - (s.keys - s.queries)) : 0; };
  const int warp_begin = own < s.keys ? begin_of(own) : s.queries;
  const int all_seen_from = begin_of(min(own + 16 * m, s.keys) - 1);
  // Tiles of queries, those of one head after those of another; so many heads have the same keys.
  const int start = begin_of(first) / kOthers * kOthers,
            tiles = (s.queries - start + kOthers - 1) / kOthers;
  T* const queries = dynamic_shared<T>();  // two stages, each a tile of queries and one of dy
  T* const k = queries + 2 * kStage;
  float* const sums = reinterpret_cast<float*>(k + 2 * mma_rows(m) * kStep);  // lse, delta: stages
  load_halves<mma_rows(m), w>(k, head_rows(x.k, x.k_step, s.key, s.keys, kv_head, width), first);
  load_halves<mma_rows(m), w>(k + mma_rows(m) * kStep,
                              head_rows(x.v, x.v_step, s.key, s.keys, kv_head, width), first);
  const auto load_others = [&](int stage, int head, int from) {
    T* const to = queries + stage * kStage;
    load_halves<kOthers, w>(to, head_rows(x.q, x.q_step, s.query, s.queries, head, width), from);
    load_halves<kOthers, w>(to + kOthers * kStep,
                            head_rows(x.dy, x.dy_step, s.query, s.queries, head, width), from);
    if (thread >= 2 * kOthers) return;
    const int i = from + thread % kOthers;
    const float* const all = thread < kOthers ? x.lse : x.delta;
    const bool there = i < s.queries;
    copy_meanwhile<4>(sums + 2 * kOthers * stage + thread,
                      there ? all + std::int64_t{s.query + i} * a.heads + head : all, there);
  };
  const SharedPlace place = shared_place(queries);
  const int across = lane_row(kStep), turned = lane_row_turned(kStep);
  const SharedPlace own_rows = place + 2 * (2 * kStage + (own - first) * kStep) + across;
  constexpr int kValues = 2 * mma_rows(m) * kStep;  // bytes from a key to its value
  TileA left[m][w / 16], left_v[m][w / 16];

  const float by = kind == Weights::any ? 1.f : static_cast<float>(a.scale) * kLog2E;
  const float factor = drops<kind>(a) ? static_cast<float>(a.kept) : 1.f;
  TileSum dk[m][w / 8] = {}, dv[m][w / 8] = {};
  int head = kv_head * group, from = start, stage = 0;
  if (tiles > 0) load_others(0, head, from);
  for (int left_tiles = tiles > 0 ? tiles * group : 0; left_tiles > 0;
       --left_tiles, stage = 1 - stage) {
    wait_for_copies();
    __syncthreads();
    const int now = from, now_head = head;
    from += kOthers;
    if (from >= s.queries) from = start, ++head;
    if (left_tiles > 1) load_others(1 - stage, head, from);
    if constexpr (kHeld)
      if (left_tiles == tiles * group) {
        load_rows<w>(left, own_rows);
        load_rows<w>(left_v, own_rows + kValues);
      }
    if (now + kOthers <= warp_begin) continue;
    const SharedPlace query = place + 2 * stage * kStage, dy = query + 2 * kOthers * kStep;
    TileSum weight[m][kOthers / 8] = {}, ds[m][kOthers / 8] = {};
    if constexpr (kHeld) {
      multiply_rows<T, w>(weight, left, query + turned);
      multiply_rows<T, w>(ds, left_v, dy + turned);
    } else {
      multiply_rows<T, w>(weight, own_rows, query + turned);
      multiply_rows<T, w>(ds, own_rows + kValues, dy + turned);
    }
    std::uint32_t kept[m];
    GRAFT_UNROLL
    for (int i = 0; i < m; ++i) {
      kept[i] = ~std::uint32_t{0};
      if (drops<kind>(a))
        kept[i] = kept_weights<false, kOthers / 8>(a, s, now_head, key + 16 * i, now);
    }
    const float* const of_lane = sums + 2 * kOthers * stage + 2 * lane_pair();
    GRAFT_UNROLL
    for (int t = 0; t < kOthers / 8; ++t) {
      float lse[2], delta[2];
      for (int e = 0; e < 2; ++e) {
        lse[e] = kLog2E * of_lane[8 * t + e];
        delta[e] = of_lane[kOthers + 8 * t + e];
      }
      GRAFT_UNROLL
      for (int i = 0; i < m; ++i)
        for (int e = 0; e < 4; ++e) {
          float& z = weight[i][t].c[e];
          z = exponent<kind>(x, a, s, now_head, now + 8 * t + 2 * lane_pair() + e % 2,
                             key + 16 * i + 8 * (e / 2), z);
          differentiate<kind>(z, ds[i][t].c[e], by, lse[e % 2], delta[e % 2],
                              kept[i] >> (4 * t + e) & 1 ? factor : 0.f);
        }
    }
    // What queries past the last one see does not matter: their rows are zeros.
    if (now < all_seen_from) {
      GRAFT_UNROLL
      for (int i = 0; i < m; ++i) {
        GRAFT_UNROLL
        for (int h = 0; h < 2; ++h) {
          const int begin = begin_of(key + 16 * i + 8 * h) - now - 2 * lane_pair();
          GRAFT_UNROLL
          for (int t = 0; t < kOthers / 8; ++t)
            for (int e = 2 * h; e < 2 * h + 2; ++e)
              if (8 * t + e % 2 < begin) weight[i][t].c[e] = 0, ds[i][t].c[e] = 0;
        }
      }
    }
    add_products<T, w>(dv, weight, dy + across);
    add_products<T, w>(dk, ds, query + across);
  }
  wait_for_copies();
  write<w>(head_rows(x.dk, x.dk_step, s.key, s.keys, kv_head, width), dk,
           static_cast<float>(a.scale), own);
  write<w>(head_rows(x.dv, x.dv_step, s.key, s.keys, kv_head, width), dv, 1.f, own);
}

}  // namespace

template <class T>
void sdpa_grad_on_tensor_cores(const GradArrays<T>& x, const AttentionArguments& arguments) {
  const DeviceAttention& a = arguments.get();
  const auto shared = [](int w, int m) {
    const int rows = 2 * mma_rows(m) + 4 * kOthers;  // own, and two stages of the others
    return sizeof(T) * rows * mma_step(w);
  };
  with_mma_tile(arguments, x.bias, arguments.queries(), [&](auto w, auto kind, auto m) {
    const auto tiles = arguments.query_tiles(mma_rows(m));
    launch("sdpa dq on tensor cores", dq_mma_kernel<T, w, kind, m>,
           Grid{tiles.count * unsigned(a.heads), kMmaThreads, 1, shared(w, m)}, x, a, tiles.data());
  });
  with_mma_tile(arguments, x.bias, arguments.keys(), [&](auto w, auto kind, auto m) {
    const auto tiles = arguments.key_tiles(mma_rows(m));
    launch("sdpa dk dv on tensor cores", dkv_mma_kernel<T, w, kind, m>,
           Grid{tiles.count * unsigned(a.kv_heads), kMmaThreads, 1,
                shared(w, m) + sizeof(float) * 4 * kOthers},
           x, a, tiles.data());
  });
}
template void sdpa_grad_on_tensor_cores(const GradArrays<BF16>&, const AttentionArguments&);
template void sdpa_grad_on_tensor_cores(const GradArrays<F16>&, const AttentionArguments&);

}  // namespace graft::cuda
