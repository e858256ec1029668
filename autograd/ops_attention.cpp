// Attention, and the rotary positions of its queries and keys.
#include <numeric>

#include "autograd/ops.h"

namespace graft {
namespace {

// Every pair of a query and a key that has a place must have an entry.
void check_bias(const Tensor& bias, int heads, const AttentionShape& shape) {
  if (!bias.defined()) return;
  const auto& keys = shape.k_length.empty() ? shape.q_length : shape.k_length;
  const std::int64_t own = heads * static_cast<std::int64_t>(keys.size());
  check(bias.value().ndim() == 2 && (bias.dim(0) == heads || bias.dim(0) == own),
        "sdpa: bias {}; need [{} heads, places], or so many rows for each of {} sequences",
        bias.shape(), heads, keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const int placed = keys[i] - shape.unbiased, queries = shape.q_length[i];
    if (queries == 0) continue;
    check(shape.unbiased >= 0 && placed >= 0, "sdpa: {} of {} keys without a bias", shape.unbiased,
          keys[i]);
    if (placed == 0) continue;
    const int lowest = shape.bias_zero - (placed - 1),
              highest = shape.bias_zero + (shape.causal ? 0 : std::max(queries - 1, 0));
    check(lowest >= 0 && highest < bias.dim(1),
          "sdpa: bias {} with zero at {}; {} queries and {} keys need places {} to {}",
          bias.shape(), shape.bias_zero, queries, placed, lowest, highest);
  }
}

// Every row of queries needs an address, and heads and keys must fit into one.
void check_dropout(const Tensor& q, int heads, const AttentionShape& shape) {
  const double p = shape.dropout;
  check(p >= 0 && p <= 1, "sdpa: dropout of {}; need 0 to 1", p);
  if (p == 0) return;
  check(shape.example.numel() == q.dim(0) && shape.position.numel() == q.dim(0),
        "sdpa: dropout needs an address for each row: {} examples, {} positions, q {}",
        shape.example.numel(), shape.position.numel(), q.shape());
  const auto& keys = shape.k_length.empty() ? shape.q_length : shape.k_length;
  const int most = keys.empty() ? 0 : *std::max_element(keys.begin(), keys.end());
  check(heads <= 1024 && most < 1 << 24,
        "sdpa: dropout of {} heads and {} keys; draws have addresses for 1024 and 2^24", heads,
        most);
}

// As the kernels read it: rows may lie apart, a row's numbers may not.
Array with_rows(const Array& x) { return x.stride(1) == 1 ? x : x.clone(); }

}  // namespace

Tensor sdpa(const Tensor& q, const Tensor& k, const Tensor& v, int heads, int kv_heads,
            const AttentionShape& shape, const Tensor& bias) {
  check(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && q.dim(1) % heads == 0 &&
            k.dim(1) == q.dim(1) / heads * kv_heads && v.shape() == k.shape(),
        "sdpa: q {}, k {}, v {}, {} heads, {} key heads; need q[N, heads dh], k and v[M, kv_heads "
        "dh]",
        q.shape(), k.shape(), v.shape(), heads, kv_heads);
  const auto& keys = shape.k_length.empty() ? shape.q_length : shape.k_length;
  const bool placed = !shape.k_start.empty();  // a cache: between the sequences lie unused rows
  check(std::accumulate(shape.q_length.begin(), shape.q_length.end(), 0l) == q.dim(0) &&
            (placed || std::accumulate(keys.begin(), keys.end(), 0l) == k.dim(0)) &&
            keys.size() == shape.q_length.size(),
        "sdpa: lengths of {} sequences ({} with keys) do not add up to q {} and k {}",
        shape.q_length.size(), keys.size(), q.shape(), k.shape());
  check(!placed || shape.k_start.size() == keys.size(), "sdpa: {} starts of keys, {} sequences",
        shape.k_start.size(), keys.size());
  for (std::size_t i = 0; placed && i < keys.size(); ++i)
    check(shape.k_start[i] >= 0 && shape.k_start[i] + keys[i] <= k.dim(0),
          "sdpa: keys {} to {} of sequence {}; k has {} rows", shape.k_start[i],
          shape.k_start[i] + keys[i], i, k.dim(0));
  check_bias(bias, heads, shape);
  check_dropout(q, heads, shape);
  Array y = Array::empty({q.dim(0), q.dim(1)}, q.kind());
  Array lse = Array::empty({q.dim(0), heads}, widened(q.kind()));
  const Dtype dtype = q.dtype();
  const Array queries = with_rows(q.value());
  const Array keys_of = with_rows(k.value().to(dtype)), values_of = with_rows(v.value().to(dtype));
  const Array places = bias.defined() ? bias.value().to(dtype).as_contiguous() : Array();
  kernels::sdpa(y, lse, queries, keys_of, values_of, places, heads, kv_heads, shape);
  const bool any = q.needs_grad() || k.needs_grad() || v.needs_grad() || bias.needs_grad();
  check(!any || !placed, "sdpa: no gradient flows into cached keys; leave out the cache to train");
  Saved saved;
  if (any)
    saved = {keep(queries), keep(keys_of), keep(values_of), keep(y), keep(lse), keep(places)};
  std::vector<Tensor> inputs{q, k, v};
  if (bias.defined()) inputs.push_back(bias);
  return record(
      "sdpa", y, inputs, std::move(saved), [=](const Array& dy, const Saved& s, Grads& g) {
        const Array q = s[0].get(), k = s[1].get(), v = s[2].get();
        Array dq = Array::empty(q.shape(), q.kind()), dk = Array::empty(k.shape(), k.kind()),
              dv = Array::empty(v.shape(), v.kind());
        const Array places = s[5].get();
        const bool wanted = places.defined() && g.needs(3);
        Array dbias = wanted ? Array::empty(places.shape(), places.kind()) : Array();
        kernels::sdpa_grad(dq, dk, dv, dbias, q, k, v, places, s[3].get(), s[4].get(),
                           dy.as_contiguous(), heads, kv_heads, shape);
        g.add(0, dq);
        g.add(1, dk);
        g.add(2, dv);
        if (wanted) g.add(3, dbias);
      });
}

Tensor rotate(const Tensor& x, const Array& position, const Array& frequency, int heads) {
  check(x.value().ndim() == 2 && position.numel() == x.dim(0) && x.dim(1) % heads == 0 &&
            frequency.numel() * 2 == x.dim(1) / heads,
        "rotate: x {}, {} positions, {} frequencies, {} heads; need x[N, heads dh], N positions, "
        "dh/2",
        x.shape(), position.numel(), frequency.numel(), heads);
  const auto turn = [=](const Array& x, bool inverse) {
    Array y = Array::empty(x.shape(), x.kind());
    kernels::rotate(y, x.as_contiguous(), position, frequency, heads, inverse);
    return y;
  };
  return record("rotate", turn(x.value(), false), {x}, {keep(position)},
                [turn](const Array& dy, const Saved&, Grads& g) { g.add(0, turn(dy, true)); });
}

}  // namespace graft
