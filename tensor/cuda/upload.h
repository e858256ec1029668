// Small arrays that the host makes and kernels read: indices, lengths, a step's rates.
#pragma once

#include "tensor/array.h"

namespace graft::cuda {

// The numbers on the device: x itself where it lies there. What was copied lately is found by its
// contents and not copied again: a step asks for the same indices in every layer. Nobody may write
// to what this gives.
Array uploaded(const Array& x);
void forget_uploads();
// The same at the next upload: gives no memory back before, so that it may be called wherever work
// is handed over, also from within the pool.
void distrust_uploads();

}  // namespace graft::cuda
