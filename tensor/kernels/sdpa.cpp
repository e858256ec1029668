// Attention without ever holding a queries x keys matrix: one tile of queries at a time against all
// keys that it sees. The scores of a tile are a few rows, so the softmax is the plain one in two
// passes, and a row's sums run in the order of its keys: a row has the same bits whether its
// sequence stands alone or in a batch, and whether its queries come at once or one by one.
#include <cmath>
#include <limits>

#include "tensor/kernels/sdpa_tile.h"
#include "tensor/parallel.h"
#include "tensor/vmath.h"

namespace graft::cpu {
namespace {

using std::int64_t;

constexpr int64_t kQueryChunk = 480;      // queries of one task: a long sequence makes several
constexpr int64_t kSerialWork = 1 << 18;  // multiply-adds below which threads do not pay

template <class T>
struct RowSum {
  T max, sum;
};

// One number out of the lanes of a vector, always in the same order.
template <class T, int Bytes, class F>
T fold(Vec<T, Bytes> v, F&& f) {
  if constexpr (Bytes == sizeof(T)) {
    return v[0];
  } else {
    T lanes[Bytes / sizeof(T)];
    store(lanes, v);
    using Half = Vec<T, Bytes / 2>;
    return fold<T, Bytes / 2>(f(load<Half>(lanes), load<Half>(lanes + Bytes / sizeof(T) / 2)), f);
  }
}

// Minus infinity from `visible` to `width`.
template <class T>
void hide(T* row, int64_t visible, int64_t width) {
  constexpr int kN = kLanes<T>;
  Vec<T> lane;
  for (int l = 0; l < kN; ++l) lane[l] = static_cast<T>(l);
  for (int64_t j = visible / kN * kN; j < width; j += kN) {
    const Vec<T> limit = Vec<T>{} + static_cast<T>(visible - j);
    store(row + j,
          lane < limit ? load<Vec<T>>(row + j) : Vec<T>{} - std::numeric_limits<T>::infinity());
  }
}

// Turns the scores of one query into exp(score - max); zeros from `visible` to `width`, which is a
// multiple of the vector.
template <class T>
RowSum<T> exponentials(T* row, int64_t visible, int64_t width) {
  using V = Vec<T>;
  constexpr int kN = kLanes<T>;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  if (visible == 0) {
    std::fill(row, row + width, T{0});
    return {kLowest, T{0}};
  }
  hide(row, visible, width);
  V high = V{} + kLowest;
  for (int64_t j = 0; j < width; j += kN) {
    const V x = load<V>(row + j);
    high = x > high ? x : high;
  }
  const T max = fold<T, kVectorBytes>(high, [](auto a, auto b) { return a > b ? a : b; });
#pragma omp simd
  for (int64_t j = 0; j < width; ++j) row[j] = vmath::exp(row[j] - max);
  V total{};
  for (int64_t j = 0; j < width; j += kN) total += load<V>(row + j);
  return {max, fold<T, kVectorBytes>(total, [](auto a, auto b) { return a + b; })};
}

template <class T>
struct Attention {
  Matrix<const T> q, k, v, bias;  // bias may be without data
  Matrix<T> y, lse;
  int64_t heads, kv_heads, width;  // width of one head
  T scale;
  WeightDropout<T> dropout;

  // Queries [begin, end) of a sequence, all heads that share one head of keys.
  void run(const Sequence& s, int64_t kv_head, int64_t begin, int64_t end) const {
    const int64_t keys = s.visible(end - 1), group = heads / kv_heads;
    const int64_t row = round_to_panel<T>(keys), out_row = round_to_panel<T>(width);
    const int64_t keys_size = packed_size<T>(width, keys);
    const int64_t values_size = packed_size<T>(keys, width);
    const int64_t drawn = dropout.on() ? dropout.room(keys) : 0;
    Pieces<T> pieces(scratch<struct AttentionScratch, T>(
        keys_size + values_size + kTileRows * (row + out_row) + drawn + 5 * kPanel<T>));
    T* packed_keys = pieces.next(keys_size);
    T* packed_values = pieces.next(values_size);
    const Matrix<T> score{pieces.next(kTileRows * row), row, 1};
    const Matrix<T> out{pieces.next(kTileRows * out_row), out_row, 1};
    T* factors = pieces.next(drawn);
    pack_panels(packed_keys, k.from(s.key, kv_head * width).transpose(), width, keys, scale);
    pack_panels(packed_values, v.from(s.key, kv_head * width), keys, width, T{1});
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t i = begin; i < end;) {
        const int rows = tile_rows(end - i);
        tile(s, head, i, rows, keys, packed_keys, packed_values, score, out, factors);
        i += rows;
      }
  }

  void tile(const Sequence& s, int64_t head, int64_t i, int rows, int64_t keys,
            const T* packed_keys, const T* packed_values, Matrix<T> score, Matrix<T> out,
            T* factors) const {
    const int64_t seen = s.visible(i + rows - 1);
    multiply_panels(score, q.from(s.query + i, head * width), packed_keys, rows,
                    columns_for<T>(seen, keys), width, width, true);
    T factor[kTileRows];
    for (int r = 0; r < rows; ++r) {
      if (bias.data) add_bias(score.at(r, 0), bias, s, head, i + r, 0, s.visible(i + r));
      const auto [max, sum] =
          exponentials(score.at(r, 0), s.visible(i + r), round_to_lanes<T>(seen));
      factor[r] = sum > 0 ? T{1} / sum : sum;
      *lse.at(s.query + i + r, head) = max + std::log(sum);
      if (dropout.on()) drop(score.at(r, 0), s.query + i + r, head, s.visible(i + r), factors);
    }
    const Matrix<const T> weight{score.data, score.row, 1};
    multiply_panels(out, weight, packed_values, rows, padded_columns<T>(width), seen, keys, true);
    for (int r = 0; r < rows; ++r) {
      T* to = y.at(s.query + i + r, head * width);
      const T* from = out.at(r, 0);
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) to[j] = from[j] * factor[r];
    }
  }

  void drop(T* weight, int64_t row, int64_t head, int64_t visible, T* memory) const {
    const T* factor = dropout.factors(memory, row, head, 0, visible);
#pragma omp simd
    for (int64_t j = 0; j < visible; ++j) weight[j] *= factor[j];
  }
};

struct Task {
  const Sequence* sequence;
  int64_t kv_head, begin, end;
};

}  // namespace

void sdpa(Array& y, Array& lse, const Array& q, const Array& k, const Array& v, const Array& bias,
          int heads, int kv_heads, const AttentionShape& shape) {
  const std::vector<Sequence> all = sequences(shape, bias, heads);
  std::vector<Task> tasks;
  int64_t work = 0;
  for (const Sequence& s : all)
    for (int64_t head = 0; head < kv_heads; ++head)
      for (int64_t begin = 0; begin < s.queries; begin += kQueryChunk) {
        const int64_t end = std::min(s.queries, begin + kQueryChunk);
        tasks.push_back({&s, head, begin, end});
        work += (end - begin) * s.visible(end - 1) * (heads / kv_heads) * q.dim(1) / heads;
      }
  const int64_t count = static_cast<int64_t>(tasks.size());
  dispatch(q, [&]<class T>(T) {
    const Attention<T> attention{rows_of<T>(q),
                                 rows_of<T>(k),
                                 rows_of<T>(v),
                                 bias.defined() ? rows_of<T>(bias) : Matrix<const T>{},
                                 rows_of<T>(y),
                                 rows_of<T>(lse),
                                 heads,
                                 kv_heads,
                                 q.dim(1) / heads,
                                 static_cast<T>(shape.scale),
                                 {shape}};
    parallel_for_dynamic(count, work < kSerialWork ? count : 1, [&](int64_t i) {
      // The last tasks of a causal sequence see the most keys: begin with them.
      const Task& task = tasks[count - 1 - i];
      attention.run(*task.sequence, task.kv_head, task.begin, task.end);
    });
  });
}

}  // namespace graft::cpu
