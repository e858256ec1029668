// The kernels, by backend. kernels.inc is the one list of signatures; a backend implements each of
// them in kernels/x.cpp (cpu) or kernels/x.cu (cuda), and the linker names what one lacks.
#pragma once

#include <algorithm>
#include <vector>

#include "tensor/array.h"
#include "tensor/fastfood.h"
#include "tensor/philox.h"

namespace graft {

enum class Binary { add, sub, mul, div };
enum class Map { gelu, gelu_tanh, relu, silu, tanh, sigmoid, exp, log, square, sqrt };

// Which keys a query sees. Rows of all sequences lie one after another, without padding.
struct AttentionShape {
  bool causal = false;             // query i of n sees keys 0 .. (keys - n) + i
  double scale = 1;                // multiplies q.k
  std::vector<int> q_length;       // rows of each sequence
  std::vector<int> k_length = {};  // keys of each sequence; empty means q_length
  std::vector<int> k_start = {};   // row of its first key; empty means one sequence after another
  // Where there is a bias: the first so many keys of each sequence have none and no place; query i
  // of n stands at the place (keys - unbiased - n) + i among the others. Entry `bias_zero` of a
  // head's row is for a key at the query's own place, the next for one place later.
  int unbiased = 0, bias_zero = 0;
  // Dropout of the weights after the softmax: that of query row n, head h and key j, which is not
  // among the unbiased, is drawn at address(stream, example[n], position[n], c) with
  // c = h 2^22 + (j - unbiased) / 4. i32 [N] each; p = 0: none.
  double dropout = 0;
  Stream stream = {};
  Array example = {}, position = {};
};

// What a step has in common for all that it moves, and what each tensor has of its own.
struct AdamW {
  double beta1, beta2, eps;
  int step;  // counts from 1
  // Gradients whose norm is larger are multiplied by clip / norm; 0: none are.
  double clip = 0;
  double scale = 1;  // gradients are so many times what they are taken for, norm and all
};
struct AdamWTensor {
  Array w, m, v, grad;  // the first three are written
  double lr, decay;
};

namespace cpu {
#include "tensor/kernels.inc"
}  // namespace cpu

// On the device; where this is built without CUDA, every one of them throws (cuda/absent.cpp).
namespace cuda {
#include "tensor/kernels.inc"
}  // namespace cuda

// Where one of a kernel's arrays lies on the device, it runs there. Its floating-point arrays must
// then all lie there; indices and labels that lie on the host are copied.
namespace kernels {
inline bool on_device(const Array& x) { return x.device() == Device::cuda; }
inline bool on_device(const AdamWTensor& x) {
  return on_device(x.w) || on_device(x.m) || on_device(x.v) || on_device(x.grad);
}
template <class T>
bool on_device(const T&) {
  return false;
}
template <class T>
bool on_device(const std::vector<T>& all) {
  return std::any_of(all.begin(), all.end(), [](const T& x) { return on_device(x); });
}
template <class Result, class... Args>
struct Kernel {
  Result (*on_host)(Args...);
  Result (*on_cuda)(Args...);
  Result operator()(Args... args) const {
    return (on_device(args) || ...) ? on_cuda(args...) : on_host(args...);
  }
};
template <class Result, class... Args>
Kernel(Result (*)(Args...), Result (*)(Args...)) -> Kernel<Result, Args...>;
#define GRAFT_KERNEL(name) inline constexpr Kernel name{cpu::name, cuda::name};
GRAFT_KERNEL(gemm)
GRAFT_KERNEL(gemm_from_row)
GRAFT_KERNEL(binary)
GRAFT_KERNEL(map)
GRAFT_KERNEL(map_grad)
GRAFT_KERNEL(axpy)
GRAFT_KERNEL(scale)
GRAFT_KERNEL(swiglu)
GRAFT_KERNEL(swiglu_grad)
GRAFT_KERNEL(add_rows)
GRAFT_KERNEL(add_rows_of_product)
GRAFT_KERNEL(sum_all)
GRAFT_KERNEL(sum_columns)
GRAFT_KERNEL(sum_squares)
GRAFT_KERNEL(all_finite)
GRAFT_KERNEL(layer_norm)
GRAFT_KERNEL(layer_norm_grad)
GRAFT_KERNEL(rms_norm)
GRAFT_KERNEL(rms_norm_grad)
GRAFT_KERNEL(softmax)
GRAFT_KERNEL(softmax_grad)
GRAFT_KERNEL(cross_entropy)
GRAFT_KERNEL(cross_entropy_grad)
GRAFT_KERNEL(log_sum_exp_join)
GRAFT_KERNEL(label_loss)
GRAFT_KERNEL(cross_entropy_part_grad)
GRAFT_KERNEL(gather)
GRAFT_KERNEL(scatter_add)
GRAFT_KERNEL(segment_mean)
GRAFT_KERNEL(segment_mean_grad)
GRAFT_KERNEL(sdpa)
GRAFT_KERNEL(sdpa_grad)
GRAFT_KERNEL(rotate)
GRAFT_KERNEL(dropout)
GRAFT_KERNEL(hadamard)
GRAFT_KERNEL(fastfood)
GRAFT_KERNEL(fastfood_adjoint)
GRAFT_KERNEL(adamw)
GRAFT_KERNEL(sgd)
#undef GRAFT_KERNEL
}  // namespace kernels

}  // namespace graft
