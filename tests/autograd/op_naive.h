// Naive references of the ops, in f64 and on plain vectors.
#pragma once

#include <cmath>
#include <vector>

#include "autograd/ops.h"

namespace graft::op_table {

using Values = std::vector<double>;

constexpr int kHeads = 4, kKeyHeads = 2, kBank = 3;
constexpr double kEps = 1e-5;

inline Array ints(int n, int start, int below) {  // -1 among them if start is -1
  std::vector<std::int32_t> v(n);
  for (int i = 0; i < n; ++i) v[i] = start + (i * 5 + 2) % (below - start);
  return Array::of(v);
}
inline RowAddress address(int n) { return {ints(n, 0, 7), ints(n, 0, n + 40)}; }

// [N, K] [K, M], the second as [M, K] if transposed.
inline Values product(const Values& a, const Values& b, int n, int k, int m, bool transposed) {
  Values y(std::size_t(n) * m);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < m; ++j)
      for (int t = 0; t < k; ++t)
        y[i * m + j] += a[i * k + t] * (transposed ? b[j * k + t] : b[t * m + j]);
  return y;
}

inline Values plus_rows(Values y, const Values& b) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += b[i % b.size()];
  return y;
}

inline Values normed(const Values& x, const Values& gain, const Values& bias, bool centred) {
  const std::size_t c = gain.size();
  Values y(x.size());
  for (std::size_t r = 0; r < x.size(); r += c) {
    double mean = 0, var = 0;
    for (std::size_t i = 0; centred && i < c; ++i) mean += x[r + i] / double(c);
    for (std::size_t i = 0; i < c; ++i) var += (x[r + i] - mean) * (x[r + i] - mean) / double(c);
    for (std::size_t i = 0; i < c; ++i)
      y[r + i] = (x[r + i] - mean) / std::sqrt(var + kEps) * gain[i] + (bias.empty() ? 0 : bias[i]);
  }
  return y;
}

inline Values softmaxed(Values x, std::size_t c) {
  for (std::size_t r = 0; r < x.size(); r += c) {
    double sum = 0;
    for (std::size_t i = 0; i < c; ++i) sum += std::exp(x[r + i]);
    for (std::size_t i = 0; i < c; ++i) x[r + i] = std::exp(x[r + i]) / sum;
  }
  return x;
}

inline double entropy(const Values& logits, std::size_t classes, const Array& label,
                      double divisor) {
  const Values p = softmaxed(logits, classes);
  double sum = 0;
  for (std::int64_t r = 0; r < label.numel(); ++r)
    if (label.at(r) >= 0) sum -= std::log(p[std::size_t(r) * classes + std::size_t(label.at(r))]);
  return sum / divisor;
}

// softmax(scale q k^T) v, query by query and head by head.
inline Values attention(const Values& q, const Values& k, const Values& v, int dh,
                        const AttentionShape& s, const Values& bias = {}, int places = 0) {
  const auto& keys = s.k_length.empty() ? s.q_length : s.k_length;
  Values y(q.size());
  std::size_t q0 = 0, k0 = 0;
  for (std::size_t seq = 0; seq < keys.size(); q0 += s.q_length[seq], k0 += keys[seq], ++seq)
    for (int i = 0; i < s.q_length[seq]; ++i)
      for (int h = 0; h < kHeads; ++h) {
        const int seen = s.causal ? keys[seq] - s.q_length[seq] + i + 1 : keys[seq];
        const double* query = &q[((q0 + i) * kHeads + h) * dh];
        Values score(seen);
        for (int j = 0; j < seen; ++j)
          for (int c = 0; c < dh; ++c)
            score[j] += s.scale * query[c] * k[((k0 + j) * kKeyHeads + h / 2) * dh + c];
        const int own = keys[seq] - s.unbiased - s.q_length[seq] + i;  // the query's place
        const bool shared = static_cast<int>(bias.size()) == kHeads * places;
        const int first = shared ? 0 : static_cast<int>(seq) * kHeads;
        for (int j = s.unbiased; j < seen && places > 0; ++j)
          score[j] += bias[(first + h) * places + s.bias_zero + (j - s.unbiased) - own];
        score = softmaxed(score, std::max(1, seen));
        for (int j = 0; j < seen && s.dropout > 0; ++j) {
          const auto row = std::int64_t(q0) + i;
          const std::uint32_t number = std::uint32_t(j - s.unbiased);
          const Counter bits =
              philox(graft::address(s.stream.id, std::uint32_t(s.example.at(row)),
                                    std::uint32_t(s.position.at(row)),
                                    std::uint32_t(h) << 22 | (number >> 2 & 0x3fffff)),
                     s.stream.key);
          score[j] *= uniform(bits[number % 4]) >= float(s.dropout) ? 1 / (1 - s.dropout) : 0;
        }
        for (int j = 0; j < seen; ++j)
          for (int c = 0; c < dh; ++c)
            y[((q0 + i) * kHeads + h) * dh + c] +=
                score[j] * v[((k0 + j) * kKeyHeads + h / 2) * dh + c];
      }
  return y;
}

}  // namespace graft::op_table
