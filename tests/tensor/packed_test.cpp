// Constant matrices that products keep packed: the same bits, nothing stale, nothing uncounted.
#include <doctest/doctest.h>
#include <omp.h>

#include <limits>
#include <random>
#include <thread>

#include "tensor/kernels.h"
#include "tensor/packed.h"

namespace graft {
namespace {

using std::int64_t;

Array random_array(Shape shape, Dtype dtype, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count(shape)));
  for (float& x : values) x = normal(bits);
  return Array::of(values, std::move(shape)).to(dtype);
}

// Puts the limit and the number of threads back.
struct Before {
  std::size_t limit = packed::limit();
  int threads = omp_get_max_threads();
  ~Before() {
    packed::set_limit(limit);
    omp_set_num_threads(threads);
  }
};

Array product(const Array& a, const Array& b, double alpha = 1) {
  Array c = Array::full({a.dim(0), b.dim(1)}, std::numeric_limits<double>::quiet_NaN());
  cpu::gemm(c, a, b, alpha, 0);
  return c;
}

// So many products; what is kept of b then.
std::size_t kept_after(int products, const Array& a, const Array& b) {
  const std::size_t before = packed::bytes();
  for (int i = 0; i < products; ++i) product(a, b);
  return packed::bytes() - before;
}

}  // namespace

TEST_CASE("a constant matrix gives the bits of any other, whatever its place, type and threads") {
  const Before before;
  packed::set_limit(std::size_t{1} << 30);
  std::mt19937 bits(5);
  const int64_t rows[] = {5, 12, 13, 100, 181, 190}, columns[] = {1, 8, 9, 17, 32, 33, 70, 200},
                depths[] = {1, 8, 31, 100, 1024, 1025, 2100};
  for (unsigned seed = 0; seed < 150; ++seed) {
    const int64_t m = rows[bits() % std::size(rows)], n = columns[bits() % std::size(columns)],
                  k = depths[bits() % std::size(depths)];
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    const Dtype dtype = seed % 3 == 0 ? Dtype::f32 : seed % 3 == 1 ? Dtype::f16 : Dtype::bf16;
    const Array a = random_array({m, k}, Dtype::f32, seed);
    // A piece of a larger matrix, its rows or its columns side by side.
    const bool across = seed % 2;
    const Array whole = random_array(across ? Shape{n + 3, k} : Shape{k, n + 3}, dtype, seed + 1);
    const Array b = across ? whole.slice(0, 2, 2 + n).transpose() : whole.slice(1, 2, 2 + n);
    const Array want = product(a, b);
    whole.mark_constant();
    pool::poison(true);
    for (const int threads : {1, 2, 3}) {
      omp_set_num_threads(threads);
      for (int i = 0; i < 3; ++i) CHECK(same_bits(product(a, b), want));
    }
    pool::poison(false);
    Array added = want.clone();
    cpu::gemm(added, a, b, 1, 1);
    Array twice = want.clone();
    cpu::gemm(twice, a, b.to(Dtype::f64).to(dtype), 1, 1);  // a copy, which is no constant
    CHECK(same_bits(added, twice));
  }
}

TEST_CASE(
    "what is kept begins at the second product, is counted by the pool, goes with the array") {
  const Array a = random_array({7, 128}, Dtype::f32, 1);
  const std::size_t live = pool::live_bytes(), kept = packed::bytes();
  {
    const Array w = random_array({64, 128}, Dtype::f16, 2);
    CHECK(kept_after(3, a, w.transpose()) == 0);  // nobody said that it is constant
    w.mark_constant();
    CHECK(kept_after(1, a, w.transpose()) == 0);
    const std::size_t one = 64 * 128 * sizeof(float);
    CHECK(kept_after(1, a, w.transpose()) == one);
    CHECK(kept_after(5, a, w.transpose()) == 0);
    CHECK(pool::live_bytes() == live + w.bytes() + one);
    // The other way round is another form.
    CHECK(kept_after(2, a.slice(1, 0, 64), w) == one);
    const Array same = w;
    CHECK(kept_after(2, a, same.transpose()) == 0);
  }
  CHECK(packed::bytes() == kept);
  CHECK(pool::live_bytes() == live);
}

TEST_CASE("a product with a few rows, or one that scales, keeps nothing") {
  const Array w = random_array({40, 64}, Dtype::f32, 2), a = random_array({4, 40}, Dtype::f32, 1);
  w.mark_constant();
  CHECK(kept_after(3, a, w) == 0);
  const Array many = random_array({9, 40}, Dtype::f32, 3);
  const std::size_t before = packed::bytes();
  for (int i = 0; i < 3; ++i) product(many, w, 0.5);
  CHECK(packed::bytes() == before);
}

TEST_CASE("whoever may write to a constant, through any view of it, ends what is kept") {
  const Array a = random_array({9, 24}, Dtype::f32, 1);
  using Write = void (*)(Array&);
  for (const Write write :
       {Write([](Array& w) { w.fill(2); }), Write([](Array& w) { w.copy_from(w.clone()); }),
        Write([](Array& w) { w.data<float>()[3] = 7; }),
        Write([](Array& w) { w.slice(0, 4, 5).fill(1); }),
        Write([](Array& w) { w.transpose().fill(1); }),
        Write([](Array& w) { kernels::axpy(w, w.clone(), 2); }), Write([](Array& w) {
          Array m = Array::zeros(w.shape()), v = m.clone();
          kernels::adamw({{w, m, v, w.clone(), 0.1, 0}}, {0.9, 0.99, 1e-8, 1}, {});
        })}) {
    Array w = random_array({20, 24}, Dtype::f32, 2);
    w.mark_constant();
    CHECK(kept_after(2, a, w.transpose()) > 0);
    const std::size_t before = packed::bytes();
    write(w);
    CHECK(packed::bytes() < before);
    for (int i = 0; i < 2; ++i) {  // no longer constant, and constant again
      for (int j = 0; j < 3; ++j)
        CHECK(same_bits(product(a, w.transpose()), product(a, w.clone().transpose())));
      w.mark_constant();
    }
  }
}

TEST_CASE("reading a constant keeps what is kept") {
  const Array a = random_array({9, 24}, Dtype::f32, 1), w = random_array({20, 24}, Dtype::f32, 2);
  w.mark_constant();
  CHECK(kept_after(2, a, w.transpose()) > 0);
  const std::size_t before = packed::bytes();
  w.hash(), w.at(3), w.clone(), w.to_vector(), w.own_copy(), w.to(Dtype::f16);
  kernels::sum_squares({w});
  Array y = Array::empty({2, 24});
  kernels::gather(y, w, Array::of(std::vector<std::int32_t>{1, 0}));
  CHECK(packed::bytes() == before);
}

TEST_CASE("all that is kept stays below the limit; beyond it products pack as they go") {
  const Before before;
  const Array a = random_array({9, 32}, Dtype::f32, 1);
  const std::size_t one = 32 * 32 * sizeof(float);
  packed::set_limit(packed::bytes() + 2 * one);
  std::vector<Array> all;
  for (unsigned i = 0; i < 4; ++i) {
    const Array w = random_array({32, 32}, Dtype::f32, i), want = product(a, w);
    w.mark_constant();
    const std::size_t kept = packed::bytes();
    for (int j = 0; j < 3; ++j) CHECK(same_bits(product(a, w), want));
    CHECK(packed::bytes() - kept == (i < 2 ? one : 0));
    all.push_back(w);
  }
  all.erase(all.begin());  // room for one more
  CHECK(kept_after(1, a, all.back()) == one);
  packed::set_limit(0);
  const Array w = random_array({32, 32}, Dtype::f32, 9);
  w.mark_constant();
  CHECK(kept_after(3, a, w) == 0);
}

TEST_CASE("several threads of a program may multiply with one constant, which is packed once") {
  const Array a = random_array({30, 200}, Dtype::f32, 1),
              w = random_array({96, 200}, Dtype::f16, 2);
  const Array want = product(a, w.transpose());
  for (int round = 0; round < 10; ++round) {
    const Array own = w.clone();
    const std::size_t before = packed::bytes();
    std::vector<std::thread> threads;
    std::vector<int> right(4, 0);
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        own.mark_constant();
        for (int i = 0; i < 5; ++i) right[t] += same_bits(product(a, own.transpose()), want);
      });
    for (std::thread& t : threads) t.join();
    CHECK(right == std::vector<int>(4, 5));
    CHECK(packed::bytes() - before == 200 * 96 * sizeof(float));
  }
}

}  // namespace graft
