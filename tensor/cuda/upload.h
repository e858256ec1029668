// Small arrays that the host makes and kernels read: indices, lengths, a step's rates; and larger
// ones that stay what they are.
#pragma once

#include <functional>

#include "tensor/array.h"

namespace graft::cuda {

// The numbers on the device: x itself where it lies there. What was copied lately is found by its
// contents and not copied again: a step asks for the same indices in every layer. Nobody may write
// to what this gives.
Array uploaded(const Array& x);
void forget_uploads();
// The same at the next upload, and of what is kept: gives no memory back before, so that it may be
// called wherever work is handed over, also from within the pool.
void distrust_uploads();

// What `make` makes of x, copied to the device. It is made once and kept while x's memory lives
// and nobody asks to write to it (mark_constant), one for each name, which is a literal; but for
// what lies on the device, and for what there is no room for, it is made every time.
Array kept(const Array& x, const char* name, const std::function<Array()>& make);

}  // namespace graft::cuda
