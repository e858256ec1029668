// The kernels, by backend. kernels.inc is the one list of signatures; a backend implements each of
// them in kernels/x.cpp (cpu) or kernels/x.cu (cuda), and the linker names what one lacks.
#pragma once

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

namespace cpu {
#include "tensor/kernels.inc"
}  // namespace cpu

namespace kernels = cpu;

}  // namespace graft
