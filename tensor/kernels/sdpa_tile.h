// What the attention kernel and its gradient share: where sequences and heads lie, and which keys
// a query sees.
#pragma once

#include <vector>

#include "tensor/kernels.h"
#include "tensor/kernels/dropout_factors.h"
#include "tensor/kernels/gemm_pack.h"
#include "tensor/kernels/scratch.h"

namespace graft::cpu {

struct Sequence {
  std::int64_t query, key;     // its first row of q and of k
  std::int64_t queries, keys;  // their numbers
  bool causal;
  std::int64_t unbiased = 0, bias_zero = 0, bias_row = 0;  // bias_row: of the first head's biases
  // Entry of a head's row of biases for query i and key j, which is not among the unbiased.
  std::int64_t place(std::int64_t i, std::int64_t j) const {
    return bias_zero + j - (keys - queries + i);
  }
  // Keys that query i sees: the first so many. The last query sees all.
  std::int64_t visible(std::int64_t i) const {
    return causal ? std::clamp<std::int64_t>(keys - queries + i + 1, 0, keys) : keys;
  }
};

// Whether every sequence has biases of its own.
inline bool own_biases(const Array& bias, int heads) {
  return bias.defined() && bias.dim(0) > heads;
}

inline std::vector<Sequence> sequences(const AttentionShape& shape, const Array& bias, int heads) {
  const std::vector<int>& keys = shape.k_length.empty() ? shape.q_length : shape.k_length;
  check(keys.size() == shape.q_length.size(), "sdpa: {} query lengths but {} key lengths",
        shape.q_length.size(), keys.size());
  std::vector<Sequence> all;
  Sequence s{0, 0, 0, 0, shape.causal, shape.unbiased, shape.bias_zero, 0};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    s.queries = shape.q_length[i];
    s.keys = keys[i];
    if (!shape.k_start.empty()) s.key = shape.k_start[i];
    all.push_back(s);
    s.query += s.queries;
    s.key += s.keys;
    if (own_biases(bias, heads)) s.bias_row += heads;
  }
  return all;
}

// Adds the head's biases to the scores of query i with keys [from, to); score[0] is key `from`'s.
template <class T>
void add_bias(T* score, Matrix<const T> bias, const Sequence& s, std::int64_t head, std::int64_t i,
              std::int64_t from, std::int64_t to) {
  const std::int64_t first = std::max(from, s.unbiased);
  if (first >= to) return;
  const T* row = bias.at(s.bias_row + head, s.place(i, first));
  T* out = score + (first - from);
#pragma omp simd
  for (std::int64_t j = 0; j < to - first; ++j) out[j] += row[j];
}

// Dropout of attention's weights. The masks are drawn a row at a time, again in the gradient.
template <class T>
struct WeightDropout {
  const AttentionShape& shape;

  bool on() const { return shape.dropout > 0; }
  static std::int64_t room(std::int64_t keys) { return keys + 2 * kFactors; }

  // What the weights of query row `row` and keys [from, to) of one head are multiplied by. The
  // factors lie within `memory`, which has room for so many.
  const T* factors(T* memory, std::int64_t row, std::int64_t head, std::int64_t from,
                   std::int64_t to) const {
    constexpr std::uint32_t kLow = (1u << 22) - 1;
    const auto at = [&](const Array& x) {
      return static_cast<std::uint32_t>(x.data<std::int32_t>()[row]);
    };
    const DropoutRow draws{shape.stream, at(shape.example), at(shape.position),
                           static_cast<float>(shape.dropout)};
    const T scale = shape.dropout < 1 ? static_cast<T>(1 / (1 - shape.dropout)) : T{0};
    // Keys without a place come before number 0; shifting rounds down.
    const std::int64_t first = from - shape.unbiased, block = first >> 2;
    const std::uint32_t high = static_cast<std::uint32_t>(head) << 22;
    for (std::int64_t done = 0; 4 * (block + done / 4) < to - shape.unbiased; done += kFactors)
      draw_factors(memory + done, scale, draws, [=](int l) {
        return high | (static_cast<std::uint32_t>(block + done / 4 + l) & kLow);
      });
    return memory + (first - 4 * block);
  }
};

template <class T>
std::int64_t round_to_panel(std::int64_t n) {
  return (n + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
}
// Columns of a product with `packed` keys, when the first `seen` are asked for and the row of the
// result has room for whole panels.
template <class T>
std::int64_t columns_for(std::int64_t seen, std::int64_t packed) {
  return std::min(padded_columns<T>(packed), round_to_panel<T>(seen));
}
template <class T>
std::int64_t round_to_lanes(std::int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Rows of all heads of an array: row(i, head) is where a head's numbers of row i begin.
template <class T>
Matrix<const T> rows_of(const Array& x) {
  return {x.data<T>(), x.stride(0), 1};
}
template <class T>
Matrix<T> rows_of(Array& x) {
  return {x.data<T>(), x.stride(0), 1};
}

// Cuts one block of working memory into pieces.
template <class T>
class Pieces {
 public:
  explicit Pieces(T* at) : at_(at) {}
  T* next(std::int64_t count) {
    T* piece = at_;
    at_ += round_to_panel<T>(count);
    return piece;
  }

 private:
  T* at_;
};

}  // namespace graft::cpu
