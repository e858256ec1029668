// The product with a random projection.
#include "autograd/ops.h"

namespace graft {

Tensor fastfood(const Tensor& x, const Fastfood& p) {
  check(x.shape() == Shape{p.in}, "fastfood: x {}; need [{}]", x.shape(), p.in);
  Array y = Array::empty({p.out}, x.kind());
  kernels::fastfood(y, x.value().as_contiguous(), p);
  return record("fastfood", y, {x}, {}, [p](const Array& dy, const Saved&, Grads& g) {
    kernels::fastfood_adjoint(g.into(0), dy.as_contiguous(), p);
  });
}

}  // namespace graft
