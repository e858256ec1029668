// Pooling: a sequence's rows as one.
#pragma once

#include "nn/head.h"

namespace graft {

Pool pool_named(const std::string&);  // throws, listing the names

// Sequence::source of a virtual row that is pooled as a token is.
constexpr std::int32_t kPooledRow = -2;

// [N, D] -> [S, D]: of each sequence the mean over its rows that are tokens, or the first or the
// last of them. Virtual rows do not count, unless their source is kPooledRow. With a `pad`, the
// last is the last of the batch's tokens that is another, or the first where there is no other, as
// transformers' decoders choose. Throws for a sequence that has no token.
Tensor pooled(const Sequence&, Pool, const Batch* = nullptr, int pad = -1);

}  // namespace graft
