// Every row of the table of ops: values, gradients, who gets one, checkpoints, precision.
#include <doctest/doctest.h>

#include <algorithm>

#include "autograd/vocabulary.h"
#include "tests/autograd/op_table.h"

using namespace graft;
using namespace graft::op_table;

namespace {

// On both sides of a vector's width, of a tile's, and one row or column alone.
const std::vector<Size> kSizes{{1, 1}, {5, 3}, {9, 17}, {34, 8}, {50, 33}};

Array random(const Shape& shape, int which, bool positive, Dtype dtype) {
  std::vector<double> v(static_cast<std::size_t>(count(shape)));
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = normal({3, 0}, static_cast<std::uint32_t>(which), i);
    if (positive) v[i] = 0.5 + std::abs(v[i]);
  }
  return Array::of(v, shape).to(dtype);
}

// The inputs of one op; those in `mask` want gradients.
Tensors inputs(const Op& op, unsigned mask, Dtype dtype = Dtype::f64) {
  Tensors all;
  for (std::size_t i = 0; i < op.in.size(); ++i) {
    Array value = random(op.in[i], static_cast<int>(i), op.positive, dtype);
    all.push_back(mask >> i & 1 ? Tensor::leaf(value, fmt::format("input {}", i)) : Tensor(value));
  }
  return all;
}

unsigned all_of(const Op& op) { return (1u << op.in.size()) - 1; }

// A gradient for the result that has no symmetry.
Array weights(const Tensor& y) { return random(y.shape(), 100, false, y.dtype()); }

double weighted(const Tensor& y) {
  const Values a = y.value().to_vector(), w = weights(y).to_vector();
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * w[i];
  return sum;
}

double size_of_values(const Values& v) {
  double most = 0;
  for (double x : v) most = std::max(most, std::abs(x));
  return most;
}

// max|a - b| / max|b|; where b is below `floor`, max|a - b| / floor.
double error(const Values& a, const Values& b, double floor = 1e-3) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most / std::max(floor, size_of_values(b));
}

// An input's numbers as a view of others: columns cut out of wider rows, or a transpose. A vector
// is one number that repeats.
Array strided(const Shape& shape, int which, bool positive, bool turned) {
  if (shape.size() == 1) return random({1}, which, positive, Dtype::f32).expand(shape);
  Shape around = shape;
  if (turned) {
    std::swap(around[around.size() - 2], around.back());
    return random(around, which, positive, Dtype::f32).transpose();
  }
  around.back() += 3;
  return random(around, which, positive, Dtype::f32).slice(-1, 1, 1 + shape.back());
}

template <class F>
void each_op(F f) {
  for (const Size s : kSizes)
    for (const Op& op : table(s)) {
      CAPTURE(op.name);
      CAPTURE(s.n);
      CAPTURE(s.c);
      f(op);
    }
}

}  // namespace

TEST_CASE("every op gives what its naive reference gives") {
  each_op([](const Op& op) {
    const Tensors x = inputs(op, 0);
    std::vector<Values> values;
    for (const Tensor& t : x) values.push_back(t.value().to_vector());
    const Tensor y = op.run(x);
    CHECK(error(y.value().to_vector(), op.naive(values)) < 1e-12);
    CHECK_FALSE(y.needs_grad());
  });
}

TEST_CASE("every op's gradients are those of finite differences, for every input") {
  each_op([](const Op& op) {
    Tensors x = inputs(op, all_of(op));
    const Tensor y = op.run(x);
    const Gradients grads = backward(y, weights(y));
    for (std::size_t i = 0; i < x.size(); ++i) {
      CAPTURE(i);
      const Values g = grads[x[i]].to_vector();
      REQUIRE(grads[x[i]].shape() == x[i].shape());
      const std::int64_t n = x[i].numel(), step = std::max<std::int64_t>(1, n / 7);
      double worst = 0;
      for (std::int64_t k = 0; k < n; k += step) {
        double& value = x[i].value().data<double>()[k];
        const double before = value, h = 1e-5;
        value = before + h;
        const double up = weighted(op.run(x));
        value = before - h;
        const double down = weighted(op.run(x));
        value = before;
        worst = std::max(worst, std::abs((up - down) / (2 * h) - g[static_cast<std::size_t>(k)]));
      }
      CHECK(worst / std::max(1.0, size_of_values(g)) < 1e-6);
    }
  });
}

TEST_CASE(
    "for every subset of inputs that learn, their gradients are the same bits, the rest get none") {
  each_op([](const Op& op) {
    const Tensors all = inputs(op, all_of(op));
    const Tensor whole = op.run(all);
    const Array dy = weights(whole);
    const Gradients want = backward(whole, dy);
    for (unsigned mask = 1; mask < all_of(op); ++mask) {
      CAPTURE(mask);
      const Tensors x = inputs(op, mask);
      const Tensor y = op.run(x);
      REQUIRE(y.needs_grad());
      CHECK(same_bits(y.value(), whole.value()));
      const Gradients got = backward(y, dy);
      for (std::size_t i = 0; i < x.size(); ++i) {
        CAPTURE(i);
        REQUIRE(got.has(x[i]) == (mask >> i & 1));
        if (got.has(x[i])) CHECK(same_bits(got[x[i]], want[all[i]]));
      }
    }
  });
}

TEST_CASE("every op inside a checkpoint gives the bits that it gives outside") {
  each_op([](const Op& op) {
    const Tensors x = inputs(op, all_of(op), Dtype::f32);
    const Tensor plain = op.run(x);
    const Tensor again = checkpoint(
        [&](const Tensor& first) {
          Tensors in = x;
          in[0] = first;
          return op.run(in);
        },
        x[0]);
    CHECK(same_bits(plain.value(), again.value()));
    const Gradients a = backward(plain, weights(plain)), b = backward(again, weights(again));
    for (const Tensor& t : x) CHECK(same_bits(a[t], b[t]));
  });
}

TEST_CASE("every op in f32 is near itself in f64, values and gradients") {
  each_op([](const Op& op) {
    const Tensors narrow = inputs(op, all_of(op), Dtype::f32);
    Tensors wide;
    for (const Tensor& t : narrow) wide.push_back(Tensor::leaf(t.value().to(Dtype::f64)));
    const Tensor a = op.run(narrow), b = op.run(wide);
    REQUIRE(a.dtype() == Dtype::f32);
    CHECK(error(a.value().to_vector(), b.value().to_vector()) < 2e-5);
    const Array dy = random(a.shape(), 100, false, Dtype::f32);
    const Gradients ga = backward(a, dy), gb = backward(b, dy.to(Dtype::f64));
    for (std::size_t i = 0; i < narrow.size(); ++i) {
      CAPTURE(i);
      CHECK(ga[narrow[i]].dtype() == Dtype::f32);
      CHECK(error(ga[narrow[i]].to_vector(), gb[wide[i]].to_vector(), 1) < 2e-4);
    }
  });
}

TEST_CASE("every op run twice gives the same bits, and leaves its inputs as they were") {
  each_op([](const Op& op) {
    const Tensors x = inputs(op, all_of(op), Dtype::f32);
    const Tensor a = op.run(x);
    backward(a, weights(a));
    CHECK(same_bits(a.value(), op.run(x).value()));
    const Tensors fresh = inputs(op, 0, Dtype::f32);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(same_bits(x[i].value(), fresh[i].value()));
  });
}

TEST_CASE("every op of views has the values and the gradients that it has of copies") {
  for (const bool turned : {false, true})
    each_op([turned](const Op& op) {
      CAPTURE(turned);
      Tensors views, copies;
      for (std::size_t i = 0; i < op.in.size(); ++i) {
        const Array view = strided(op.in[i], static_cast<int>(i), op.positive, turned);
        views.push_back(Tensor::leaf(view));
        copies.push_back(Tensor::leaf(view.clone()));
      }
      const Tensor a = op.run(views), b = op.run(copies);
      CHECK(same_bits(a.value(), b.value()));
      const Array dy = strided(a.shape(), 100, false, turned);
      const Gradients ga = backward(a, dy), gb = backward(b, dy.clone());
      for (std::size_t i = 0; i < views.size(); ++i) {
        CAPTURE(i);
        CHECK(same_bits(ga[views[i]], gb[copies[i]]));
      }
    });
}

TEST_CASE("columns that an op cut out are what their copies are, and their gradients come back") {
  const Tensor both = Tensor::leaf(random({7, 10}, 0, false, Dtype::f32));
  const auto half = [&](int which) { return slice(both, 1, 5 * which, 5 * which + 5); };
  const auto copy = [&](int which) {
    return Tensor::leaf(both.value().slice(1, 5 * which, 5 * which + 5).clone());
  };
  const Tensor gate = copy(0), up = copy(1);
  const Tensor a = swiglu(half(0), half(1)), b = swiglu(gate, up);
  CHECK(same_bits(a.value(), b.value()));
  const Gradients ga = backward(a, weights(a)), gb = backward(b, weights(b));
  CHECK(same_bits(ga[both].slice(1, 0, 5), gb[gate]));
  CHECK(same_bits(ga[both].slice(1, 5, 10), gb[up]));
  const Array rows = ints(9, 0, 7);
  CHECK(same_bits(gather(half(1), rows).value(), gather(up, rows).value()));
}

TEST_CASE("a vocabulary of which words are forbidden has the loss and gradient of the others") {
  const int n = 3, v = 8192, few = 4096, c = 2;
  const Array label = ints(n, 0, few);
  const Array rows = random({n, c}, 0, false, Dtype::f32);
  const Array table = random({v, c}, 1, false, Dtype::f32);
  for (const bool first : {false, true}) {  // the run of words that may be told
    CAPTURE(first);
    const int from = first ? 0 : few;
    Array bias = Array::full({v}, -INFINITY);
    bias.slice(0, from, from + few).fill(0);
    Array at = label.clone();
    for (int i = 0; i < n; ++i) at.data<std::int32_t>()[i] += from;
    const auto run = [&](const Array& w, const Array& b, const Array& of) {
      const Tensor x = Tensor::leaf(rows);
      const Tensor loss = linear_cross_entropy(x, Tensor(w), Tensor(b), of, n);
      return std::pair{loss.value(), backward(loss)[x].clone()};
    };
    const auto all = run(table, bias, at);
    const auto allowed = run(table.slice(0, from, from + few).clone(), Array::zeros({few}), label);
    CHECK(same_bits(all.first, allowed.first));
    CHECK(error(all.second.to_vector(), allowed.second.to_vector()) < 1e-6);
  }
}

TEST_CASE("gradients of rows that come in two calls have the bits of one call") {
  // The promise about micro-batches, op by op: sums over rows go on from what is there.
  const int n = 37, c = 11;
  struct Row {
    const char* name;
    Shape shape;  // of the parameter
    Tensor (*make)(const Tensor& x, const Tensor& p);
    int per = 1;  // rows of the result for each row of x
  };
  const std::vector<Row> ops{
      {"bias", {c}, [](const Tensor& x, const Tensor& p) { return x + p; }},
      {"gain", {c}, [](const Tensor& x, const Tensor& p) { return x * p; }},
      {"gain as a row", {1, c}, [](const Tensor& x, const Tensor& p) { return x * p; }},
      {"gate", {1}, [](const Tensor& x, const Tensor& p) { return x * p; }},
      {"divisor", {c}, [](const Tensor& x, const Tensor& p) { return x / p; }},
      {"linear", {c, c}, [](const Tensor& x, const Tensor& p) { return linear(x, p); }},
      {"matmul", {c, c}, [](const Tensor& x, const Tensor& p) { return matmul(x, p); }},
      {"norm", {c}, [](const Tensor& x, const Tensor& p) { return layer_norm(x, p, p, 1e-5); }},
      {"rms", {c}, [](const Tensor& x, const Tensor& p) { return rms_norm(x, p, 1e-5); }},
      {"twice", {c, c}, [](const Tensor& x, const Tensor& p) { return linear(linear(x, p), p); }},
      {"bank",
       {2, c},
       [](const Tensor& x, const Tensor& p) {
         return prepend(p, x, std::vector<int>(static_cast<std::size_t>(x.dim(0)), 1));
       },
       3}};
  const Array x = random({n, c}, 0, false, Dtype::f32);
  for (const Row& row : ops) {
    CAPTURE(row.name);
    const Tensor p = Tensor::leaf(random(row.shape, 2, true, Dtype::f32));
    const Array dy = random({n * row.per, c}, 1, false, Dtype::f32);
    const auto through = [&](std::vector<std::int64_t> cuts) {
      Gradients grads;
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
        backward(row.make(Tensor(x.slice(0, cuts[i], cuts[i + 1])), p), grads,
                 dy.slice(0, cuts[i] * row.per, cuts[i + 1] * row.per));
      return grads[p].clone();
    };
    const Array whole = through({0, n});
    CHECK(same_bits(whole, through({0, 1, n})));
    CHECK(same_bits(whole, through({0, 5, 16, 17, n})));
  }
}

TEST_CASE("the vocabulary loss is cross_entropy of linear, in as many runs of words as it takes") {
  for (const auto& size : {std::pair{7, 9001}, {2100, 40}, {2049, 4097}}) {
    const int n = size.first, v = size.second, c = 2;
    CAPTURE(n);
    CAPTURE(v);
    const Array label = ints(n, -1, v);
    const auto run = [&](bool tiled) {
      const Tensor x = Tensor::leaf(random({n, c}, 0, false, Dtype::f64));
      const Tensor w = Tensor::leaf(random({v, c}, 1, false, Dtype::f64));
      const Tensor b = Tensor::leaf(random({v}, 2, false, Dtype::f64));
      const Tensor y = tiled ? linear_cross_entropy(x, w, b, label, 9)
                             : cross_entropy(linear(x, w, b), label, 9);
      const Gradients g = backward(y);
      return std::vector<Values>{y.value().to_vector(), g[x].to_vector(), g[w].to_vector(),
                                 g[b].to_vector()};
    };
    const auto tiled = run(true), plain = run(false);
    for (std::size_t i = 0; i < plain.size(); ++i) CHECK(error(tiled[i], plain[i], 1e-9) < 1e-11);
  }
}

TEST_CASE("the vocabulary loss has one gradient: ready, made again, in runs of rows, in batches") {
  const int n = 8, v = 8500;
  const std::int64_t before = logits_limit();
  Array values = Array::empty({v, 1});
  for (int i = 0; i < v; ++i) values.data<float>()[i] = float(i % 89 - 44) * 0.03f;
  const Tensor w = Tensor::leaf(values), b = Tensor::leaf(values.reshape({v}).clone());
  const Array rows = random({n, 1}, 0, false, Dtype::f32), label = ints(n, -1, v);
  const auto through = [&](const std::vector<std::int64_t>& cuts, double scale) {
    Gradients grads;
    Array dx = Array::empty({n, 1});
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      const Tensor x = Tensor::leaf(rows.slice(0, cuts[i], cuts[i + 1]).clone());
      const Tensor loss = linear_cross_entropy(x, w, b, label.slice(0, cuts[i], cuts[i + 1]), n);
      backward(scale == 1 ? loss : scale * loss, grads);
      dx.slice(0, cuts[i], cuts[i + 1]).copy_from(grads[x]);
    }
    std::vector<Array> all{dx, grads[w].clone(), grads[b].clone()};
    for (Array& g : all) kernels::scale(g, g, 1 / scale);  // a power of two: exact
    return all;
  };
  // Three rows to a run, and the logits of all eight not kept; or kept, and made in one run.
  set_logits_limit(3 * v + 100);
  const auto whole = through({0, n}, 1);
  for (const std::int64_t limit : {3 * v + 100, 5 * v}) {
    set_logits_limit(limit);
    for (const auto& other :
         {through({0, n}, 1), through({0, 4, n}, 1), through({0, n}, 2), through({0, 1, n}, 2)})
      for (std::size_t i = 0; i < whole.size(); ++i) CHECK(same_bits(whole[i], other[i]));
  }
  set_logits_limit(before);
}
