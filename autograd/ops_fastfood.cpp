// The product with a random projection.
#include "autograd/ops.h"

namespace graft {

// Its kernels are for masters: half precision is widened first.
Tensor fastfood(const Tensor& given, const Fastfood& p) {
  const Tensor x = cast(given, widened(given.dtype()));
  check(x.shape() == Shape{p.in}, "fastfood: x {}; need [{}]", x.shape(), p.in);
  Array y = Array::empty({p.out}, x.kind());
  kernels::fastfood(y, x.value().as_contiguous(), p);
  return record("fastfood", y, {x}, {}, [p](const Array& dy, const Saved&, Grads& g) {
    kernels::fastfood_adjoint(g.into(0), dy.as_contiguous(), p);
  });
}

}  // namespace graft
