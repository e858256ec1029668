// Arithmetic, element-wise functions, norms, sums.
#include "autograd/ops.h"

namespace graft {
namespace {

Array binary_array(Binary op, const Array& a, const Array& b, const char* where) {
  const Dtype dtype = met(where, a.dtype(), b.dtype());
  Array y = Array::empty(broadcast(a.shape(), b.shape(), where), {dtype, a.device()});
  kernels::binary(op, y, a.to(dtype).expand(y.shape()), b.to(dtype).expand(y.shape()));
  return y;
}

Array scaled(const Array& x, double s) {
  Array y = Array::empty(x.shape(), x.kind());
  kernels::scale(y, x.as_contiguous(), s);
  return y;
}

Array mapped(Map f, const Array& x) {
  Array y = Array::empty(x.shape(), x.kind());
  kernels::map(f, y, x);
  return y;
}

const char* map_name(Map f) {
  static constexpr const char* kNames[] = {"gelu",    "gelu_tanh", "relu", "silu",   "tanh",
                                           "sigmoid", "exp",       "log",  "square", "sqrt"};
  return kNames[static_cast<int>(f)];
}

Array wide(const Array& x) { return x.to(widened(x.dtype())); }

// A parameter as rows x compute with it.
Array beside(const Array& parameter, const Array& x) {
  return parameter.defined() ? parameter.to(x.dtype()).as_contiguous() : parameter;
}

std::int64_t rows_of(const Array& x) { return x.dim(-1) ? x.numel() / x.dim(-1) : 0; }
Array as_rows(const Array& x) { return x.as_contiguous().reshape({rows_of(x), x.dim(-1)}); }

}  // namespace

Tensor cast(const Tensor& x, Dtype dtype) {
  if (x.dtype() == dtype) return x;
  return record("cast", x.value().to(dtype), {x}, {},
                [](const Array& dy, const Saved&, Grads& g) { g.add(0, dy); });
}

Tensor operator+(const Tensor& a, const Tensor& b) {
  return record("add", binary_array(Binary::add, a.value(), b.value(), "add"), {a, b}, {},
                [](const Array& dy, const Saved&, Grads& g) {
                  g.add(0, dy);
                  g.add(1, dy);
                });
}

Tensor operator-(const Tensor& a, const Tensor& b) {
  return record("sub", binary_array(Binary::sub, a.value(), b.value(), "sub"), {a, b}, {},
                [](const Array& dy, const Saved&, Grads& g) {
                  g.add(0, dy);
                  if (g.needs(1)) g.add(1, scaled(dy, -1));
                });
}

Tensor operator*(const Tensor& a, const Tensor& b) {
  const Array y = binary_array(Binary::mul, a.value(), b.value(), "mul");
  // A factor that was broadcast has a sum of products for its gradient: these are not rounded.
  const auto times = [shape = y.shape()](const Array& dy, const Array& other, const Shape& of) {
    if (of == shape) return binary_array(Binary::mul, dy, other, "mul");
    return binary_array(Binary::mul, wide(dy), wide(other), "mul");
  };
  return record(
      "mul", y, {a, b}, {keep(a, b), keep(b, a)},
      [times, of_a = a.shape(), of_b = b.shape()](const Array& dy, const Saved& s, Grads& g) {
        if (g.needs(0)) g.add(0, times(dy, s[1].get(), of_a));
        if (g.needs(1)) g.add(1, times(dy, s[0].get(), of_b));
      });
}

Tensor operator/(const Tensor& a, const Tensor& b) {
  return record("div", binary_array(Binary::div, a.value(), b.value(), "div"), {a, b},
                {keep(a, b), keep(b, a, b)}, [](const Array& dy, const Saved& s, Grads& g) {
                  const Array b = s[1].get();
                  const Array da = binary_array(Binary::div, dy, b, "div");
                  g.add(0, da);
                  if (!g.needs(1)) return;  // d(a/b)/db = -(a/b)/b
                  const Array ratio = binary_array(Binary::div, s[0].get(), b, "div");
                  g.add(1, scaled(binary_array(Binary::mul, da, ratio, "div"), -1));
                });
}

Tensor operator*(double s, const Tensor& x) {
  return record("scale", scaled(x.value(), s), {x}, {},
                [s](const Array& dy, const Saved&, Grads& g) { g.add(0, scaled(dy, s)); });
}

Tensor map(Map f, const Tensor& x) {
  const Array in = x.value().as_contiguous();
  return record(map_name(f), mapped(f, in), {x}, {keep(Tensor(in), x)},
                [f](const Array& dy, const Saved& s, Grads& g) {
                  Array dx = Array::empty(dy.shape(), dy.kind());
                  kernels::map_grad(f, dx, s[0].get(), dy.as_contiguous());
                  g.add(0, dx);
                })
      .with_recipe({{in}, [f, in] { return mapped(f, in); }});
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  check(gate.shape() == up.shape(), "swiglu: gate {}, up {}; need one shape", gate.shape(),
        up.shape());
  const auto forward = [](const Array& gate, const Array& up) {
    Array y = Array::empty(gate.shape(), gate.kind());
    kernels::swiglu(y, gate, up);
    return y;
  };
  const Dtype dtype = met("swiglu", gate.dtype(), up.dtype());
  const auto in = [](const Array& x, Dtype dtype) { return x.to(dtype).as_contiguous(); };
  const Array a = in(gate.value(), dtype), b = in(up.value(), dtype);
  return record("swiglu", forward(a, b), {gate, up}, {keep(gate, gate, up), keep(up, gate, up)},
                [in](const Array& dy, const Saved& s, Grads& g) {
                  Array dgate = Array::empty(dy.shape(), dy.kind());
                  Array dup = Array::empty(dy.shape(), dy.kind());
                  kernels::swiglu_grad(dgate, dup, in(s[0].get(), dy.dtype()),
                                       in(s[1].get(), dy.dtype()), dy.as_contiguous());
                  g.add(0, dgate);
                  g.add(1, dup);
                })
      .with_recipe({{a, b}, [=] { return forward(a, b); }});
}

Tensor dropout(const Tensor& x, double p, Stream stream, const RowAddress& rows) {
  check(0 <= p && p < 1, "dropout: p is {}; need 0 <= p < 1", p);
  if (p == 0) return x;
  check(x.value().ndim() == 2 && rows.example.numel() == x.dim(0) &&
            rows.position.numel() == x.dim(0),
        "dropout: x {}, {} row addresses; need x[N, C] and N addresses", x.shape(),
        rows.example.numel());
  const auto masked = [=](const Array& in) {
    Array y = Array::empty(in.shape(), in.kind());
    kernels::dropout(y, in, p, stream, rows.example, rows.position);
    return y;
  };
  const Array in = x.value().as_contiguous();
  Recipe again{{in}, [=] { return masked(in); }};
  if (x.recipe())  // dropout of a norm: keep what the norm is made from
    again = {x.recipe()->from, [masked, r = x.recipe()] { return masked(r->make()); }};
  again.from.insert(again.from.end(), {rows.example, rows.position});
  return record("dropout", masked(in), {x}, {keep(rows.example), keep(rows.position)},
                [masked](const Array& dy, const Saved&, Grads& g) {
                  g.add(0, masked(dy.as_contiguous()));
                })
      .with_recipe(std::move(again));
}

Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps) {
  const std::int64_t c = x.dim(-1);
  check((!gain.defined() || gain.shape() == Shape{c}) &&
            (!bias.defined() || bias.shape() == Shape{c}),
        "layer_norm: x {}, gain {}, bias {}; need gain and bias [{}]", x.shape(), gain.shape(),
        bias.shape(), c);
  const auto forward = [eps](const Array& x, const Array& gain, const Array& bias) {
    Array y = Array::empty(x.shape(), x.kind());
    Array rows = as_rows(y);
    kernels::layer_norm(rows, as_rows(x), gain, bias, eps);
    return y;
  };
  const Array in = x.value().as_contiguous();
  const Array a = beside(gain.value(), in), b = beside(bias.value(), in);
  return record("layer_norm", forward(in, a, b), {x, gain, bias},
                {keep(Tensor(in), x, gain), keep(gain, x)},
                [eps](const Array& dy, const Saved& s, Grads& g) {
                  Array dx = g.needs(0) ? Array::empty(dy.shape(), dy.kind()) : Array();
                  Array dx_rows = dx.defined() ? as_rows(dx) : Array();
                  Array none;
                  // The bias alone may learn: x is then not kept, and its gradient is a plain sum.
                  if (!s[0].array.defined() && !s[0].recipe) {
                    if (g.needs(2)) kernels::add_rows(g.into(2), as_rows(dy));
                    return;
                  }
                  kernels::layer_norm_grad(dx_rows, g.needs(1) ? g.into(1) : none,
                                           g.needs(2) ? g.into(2) : none, as_rows(s[0].get()),
                                           beside(s[1].get(), dy), as_rows(dy), eps);
                  if (dx.defined()) g.add(0, dx);
                })
      .with_recipe({{in, a, b}, [=] { return forward(in, a, b); }});
}

Tensor rms_norm(const Tensor& x, const Tensor& gain, double eps) {
  const std::int64_t c = x.dim(-1);
  check(gain.shape() == Shape{c}, "rms_norm: x {}, gain {}; need gain [{}]", x.shape(),
        gain.shape(), c);
  const auto forward = [eps](const Array& x, const Array& gain) {
    Array y = Array::empty(x.shape(), x.kind());
    Array rows = as_rows(y);
    kernels::rms_norm(rows, as_rows(x), gain, eps);
    return y;
  };
  const Array in = x.value().as_contiguous(), a = beside(gain.value(), in);
  return record("rms_norm", forward(in, a), {x, gain}, {keep(Tensor(in), x, gain), keep(gain, x)},
                [eps](const Array& dy, const Saved& s, Grads& g) {
                  Array dx = g.needs(0) ? Array::empty(dy.shape(), dy.kind()) : Array();
                  Array dx_rows = dx.defined() ? as_rows(dx) : Array();
                  Array none;
                  kernels::rms_norm_grad(dx_rows, g.needs(1) ? g.into(1) : none,
                                         as_rows(s[0].get()), beside(s[1].get(), dy), as_rows(dy),
                                         eps);
                  if (dx.defined()) g.add(0, dx);
                })
      .with_recipe({{in, a}, [=] { return forward(in, a); }});
}

Tensor softmax(const Tensor& x) {
  const Array in = x.value().as_contiguous();
  Array y = Array::empty(in.shape(), in.kind());
  kernels::softmax(y, in);
  return record("softmax", y, {x}, {keep(Tensor(y), x)},
                [](const Array& dy, const Saved& s, Grads& g) {
                  Array dx = Array::empty(dy.shape(), dy.kind());
                  kernels::softmax_grad(dx, s[0].get(), dy.as_contiguous());
                  g.add(0, dx);
                });
}

Tensor sum(const Tensor& x) {
  Array y = Array::empty({1}, widened(x.kind()));
  kernels::sum_all(y, x.value().as_contiguous());
  const Shape shape = x.shape();
  return record("sum", y, {x}, {}, [shape](const Array& dy, const Saved&, Grads& g) {
    g.add(0, dy.expand(shape).clone());
  });
}

Tensor mean(const Tensor& x) { return sum(x) * (1.0 / static_cast<double>(x.numel())); }

}  // namespace graft
