// The differentiable ops. Each is one function: shape check, kernel call, derivative.
// Activations are ragged: rows of all sequences lie one after another in [N, C]; no row is padding.
#pragma once

#include "autograd/graph.h"
#include "tensor/kernels.h"

namespace graft {

// x as numbers of that type; x itself where it has it. A gradient comes back in x's own type.
Tensor cast(const Tensor& x, Dtype);

// Where half precision is computed with (on the device), ops take masters in f32 beside it and turn
// them into it; a product's type is that of x, attention's that of q. Losses and sums are f32, and
// every input's gradient is of the input's type.

// --- arithmetic, broadcasting as NumPy does -----------------------------------------------------
Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator*(double s, const Tensor& x);
inline Tensor operator*(const Tensor& x, double s) { return s * x; }
inline Tensor operator-(const Tensor& x) { return -1.0 * x; }

// --- element-wise functions; the input is kept, the output made again from it ------------------
Tensor map(Map, const Tensor& x);
inline Tensor gelu(const Tensor& x) { return map(Map::gelu, x); }  // x Phi(x), with erf
inline Tensor gelu_tanh(const Tensor& x) { return map(Map::gelu_tanh, x); }
inline Tensor relu(const Tensor& x) { return map(Map::relu, x); }
inline Tensor silu(const Tensor& x) { return map(Map::silu, x); }
inline Tensor tanh(const Tensor& x) { return map(Map::tanh, x); }
inline Tensor sigmoid(const Tensor& x) { return map(Map::sigmoid, x); }
inline Tensor exp(const Tensor& x) { return map(Map::exp, x); }
inline Tensor log(const Tensor& x) { return map(Map::log, x); }
inline Tensor square(const Tensor& x) { return map(Map::square, x); }
inline Tensor sqrt(const Tensor& x) { return map(Map::sqrt, x); }
Tensor swiglu(const Tensor& gate, const Tensor& up);  // silu(gate) up

// The row addresses of dropout's draws: i32 [N] each.
struct RowAddress {
  Array example, position;
};
// x mask / (1 - p) on x[N, C]; the mask is drawn again in backward, not kept. p = 0 returns x.
Tensor dropout(const Tensor& x, double p, Stream, const RowAddress&);

// --- products -----------------------------------------------------------------------------------
// A matrix W that does not train, and its b, may be stored in half precision.
// y[..., o] = sum_i x[..., i] W[o, i] + b[o].   x: [..., in], W: [out, in], b: [out] or undefined.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = {});
// y + s x W^T, added into y's own memory where nobody else holds it (Hu et al. 2021, eq. 3, without
// a temporary). y: [..., out], x: [..., r], W: [out, r].
Tensor add_linear(Tensor y, const Tensor& x, const Tensor& w, double s);
Tensor matmul(const Tensor& a, const Tensor& b);  // [M, K] [K, N]
Tensor transpose(const Tensor& x);                // [M, N] -> [N, M]
// P x, a random projection [d] -> [D]; its derivative is the transpose's product, exactly.
Tensor fastfood(const Tensor& x, const Fastfood&);

// --- normalisation over the last dimension; the output is made again from x -------------------
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps);
Tensor rms_norm(const Tensor& x, const Tensor& gain, double eps);
Tensor softmax(const Tensor& x);

// --- attention ----------------------------------------------------------------------------------
// q[N, heads dh], k and v[M, kv_heads dh] -> [N, heads dh]; see kernels.inc. No T x T matrix
// exists. A bias[heads, places], one for all or for each sequence, is added to scores by place;
// dropout of the weights is drawn by address, again in backward (both: AttentionShape).
Tensor sdpa(const Tensor& q, const Tensor& k, const Tensor& v, int heads, int kv_heads,
            const AttentionShape&, const Tensor& bias = {});
// Rotary positions on x[N, heads dh]; position[N] i32, frequency[dh / 2].
Tensor rotate(const Tensor& x, const Array& position, const Array& frequency, int heads);

// --- rows ---------------------------------------------------------------------------------------
// y[i] = table[row[i]]; row: i32 [R]. Looks up an embedding, or picks rows of an activation. On the
// host half precision is widened.
Tensor gather(const Tensor& table, const Array& row);
// Each sequence's rows of x[N, C] preceded by bank[P, C]: keys and values that every query sees.
Tensor prepend(const Tensor& bank, const Tensor& x, const std::vector<int>& length);
Tensor segment_mean(const Tensor& x, const std::vector<int>& length);  // [N, C] -> [S, C]
Tensor slice(const Tensor& x, int dim, std::int64_t begin, std::int64_t end);
Tensor concat(const std::vector<Tensor>& parts, int dim);
Tensor reshape(const Tensor& x, Shape shape);

// --- sums and losses ----------------------------------------------------------------------------
Tensor sum(const Tensor& x);
Tensor mean(const Tensor& x);
// sum over rows of -log softmax(logits)[label] / divisor. label: i32 [R], -1 is left out. A divisor
// that is the whole batch's count lets micro-batches add up to the bits of one batch.
Tensor cross_entropy(const Tensor& logits, const Array& label, double divisor);
// cross_entropy(linear(x, w, b), label, divisor), in runs of rows: no more than 128 MB of the
// [R, V] logits exist at once; twice that, until backward, where w or b learns.
Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& b, const Array& label,
                            double divisor);
// sum (x - target)^2 / divisor.
Tensor squared_error(const Tensor& x, const Array& target, double divisor);

}  // namespace graft
