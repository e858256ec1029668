// Constant matrices in the order in which products read them: made once, kept with their storage.
//
// A product reads its second factor in panels (kernels/gemm.cpp), and packing these is work for
// every product anew. Of an array that is marked as constant (Array::mark_constant) the panels are
// kept, for each view of it that is multiplied with, from the second product on: what is used once
// is not worth the memory. They go with the storage, or with the first access that may write to it.
//
// Kept panels are f32, so that of a frozen matrix both ways round (forward and backward) they take
// twice its bytes in f32. All together they take no more than limit(): 256 MB, or what the
// environment's GRAFT_PACKED_MB says, 0 for none. Where that is used up products pack as they go,
// with the same bits. The pool counts what is kept as it counts every block.
#pragma once

#include <functional>
#include <memory>

#include "tensor/array.h"

namespace graft::packed {

std::size_t limit();  // in bytes; throws where the environment's is no number
void set_limit(std::size_t bytes);
std::size_t bytes();  // of all that is kept now

// What is kept of the matrix b, as it is viewed here, in `numbers` numbers of f32: made by `fill`
// if need be. Undefined where b is not marked as constant, is asked for the first time, or the
// limit would be passed. From any thread.
Array form_of(const Array& b, std::int64_t numbers, const std::function<void(float*)>& fill);

}  // namespace graft::packed
