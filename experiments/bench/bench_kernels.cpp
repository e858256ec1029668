// The hot kernels alone, by Google Benchmark: our product against OpenBLAS's on the same shapes,
// attention, norms, activations.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include "tensor/kernels.h"

namespace graft {
namespace {

Array filled(Shape shape) {
  Array a = Array::empty(std::move(shape));
  for (std::int64_t i = 0; i < a.numel(); ++i) a.data<float>()[i] = float(i % 97) * 0.01f - 0.48f;
  return a;
}

void rate(benchmark::State& state, double flop) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flop * double(state.iterations()) / 1e9, benchmark::Counter::kIsRate);
}

// The product with weights in half precision, and the same with f32: a row alone (a token that is
// generated), a few, many.
template <Dtype dtype>
void weights(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const Array x = filled({m, k}), w = filled({n, k}).to(dtype);
  Array y = Array::empty({m, n});
  for (auto _ : state) kernels::gemm(y, x, w.transpose(), 1, 0);
  rate(state, 2.0 * m * n * k);
  state.SetBytesProcessed(state.iterations() * std::int64_t(w.bytes()));
}
void few_rows(benchmark::internal::Benchmark* b) {
  for (std::int64_t m : {1, 2, 4, 16, 256})
    for (auto [n, k] : {std::pair{2048, 2048}, {8192, 2048}, {2048, 8192}}) b->Args({m, n, k});
  b->UseRealTime();
}
BENCHMARK(weights<Dtype::f32>)->Apply(few_rows);
BENCHMARK(weights<Dtype::f16>)->Apply(few_rows);
BENCHMARK(weights<Dtype::bf16>)->Apply(few_rows);

void product(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const Array x = filled({m, k}), w = filled({n, k});
  Array y = Array::empty({m, n});
  for (auto _ : state) kernels::gemm(y, x, w.transpose(), 1, 0);
  rate(state, 2.0 * m * n * k);
}

void openblas(benchmark::State& state) {
  const int m = int(state.range(0)), n = int(state.range(1)), k = int(state.range(2));
  const Array x = filled({m, k}), w = filled({n, k});
  Array y = Array::empty({m, n});
  for (auto _ : state)
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x.data<float>(), k,
                w.data<float>(), k, 0, y.data<float>(), n);
  rate(state, 2.0 * m * n * k);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (std::int64_t m : {256, 1024, 4096})
    for (auto [n, k] :
         {std::pair{192, 192}, {768, 192}, {192, 768}, {768, 768}, {3072, 768}, {8, 768}})
      b->Args({m, n, k});
  b->UseRealTime();
}
BENCHMARK(product)->Apply(shapes);
BENCHMARK(openblas)->Apply(shapes);

void attention(benchmark::State& state) {
  const int length = int(state.range(0)), sequences = 4096 / length, heads = 6, width = 192;
  const Array q = filled({4096, width});
  Array y = Array::empty(q.shape()), lse = Array::empty({4096, heads});
  const AttentionShape shape{false, 0.18, std::vector<int>(sequences, length), {}};
  for (auto _ : state) kernels::sdpa(y, lse, q, q, q, {}, heads, heads, shape);
  rate(state, 4.0 * 4096 * length * width);
}
BENCHMARK(attention)->Arg(16)->Arg(64)->Arg(128)->Arg(1024)->UseRealTime();

void layer_norm(benchmark::State& state) {
  const Array x = filled({4096, 192}), gain = filled({192}), bias = filled({192});
  Array y = Array::empty(x.shape());
  for (auto _ : state) kernels::layer_norm(y, x, gain, bias, 1e-5);
  state.SetBytesProcessed(state.iterations() * std::int64_t(2 * x.bytes()));
}
BENCHMARK(layer_norm)->UseRealTime();

void gelu(benchmark::State& state) {
  const Array x = filled({4096, 768});
  Array y = Array::empty(x.shape());
  for (auto _ : state) kernels::map(Map::gelu, y, x);
  state.SetBytesProcessed(state.iterations() * std::int64_t(2 * x.bytes()));
}
BENCHMARK(gelu)->UseRealTime();

}  // namespace
}  // namespace graft

BENCHMARK_MAIN();
