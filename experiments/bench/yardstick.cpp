#include "experiments/bench/yardstick.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "experiments/ablations/lab.h"
#include "nn/parameter.h"
#include "tensor/cuda/runtime.h"
#include "tensor/kernels.h"

namespace graft {
namespace {

// Its header would link the library, so the one signature that is needed stands here; the numbers
// are those of CBLAS_ORDER and CBLAS_TRANSPOSE.
constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;
using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                       const float* a, int lda, const float* b, int ldb, float beta, float* c,
                       int ldc);

void* openblas_symbol(const char* name) {
  static void* const library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  check(library != nullptr, "bench: OpenBLAS is not there ({}); Debian's is libopenblas0-openmp",
        library ? "" : dlerror());
  void* const symbol = dlsym(library, name);
  check(symbol != nullptr, "bench: OpenBLAS has no {}", name);
  return symbol;
}

Array filled(int n, float scale) {
  Array a = Array::empty({n, n});
  for (std::int64_t i = 0; i < a.numel(); ++i)
    a.data<float>()[i] = scale * (float(i % 1009) / 1009 - 0.5f);
  return a;
}

}  // namespace

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Spread spread(std::vector<double> values) {
  check(!values.empty(), "bench: no values to take a median of");
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * double(values.size() - 1);
    const auto below = std::size_t(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - double(below)) * (values[above] - values[below]);
  };
  return {at(0.25), at(0.5), at(0.75)};
}

double median(std::vector<double> values) { return spread(std::move(values)).median; }

double resident(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) return 1024 * std::stod(line.substr(key.size() + 1));
  fail("/proc/self/status: has no {}", key);
}

Products::Products(int n) : n_(n), a_(filled(n, 1)), b_(filled(n, 2)), c_(Array::empty({n, n})) {}

double Products::ours() {
  const double begun = now();
  kernels::gemm(c_, a_, b_.transpose(), 1, 0);
  return now() - begun;
}

void openblas_product(Array& y, const Array& x, bool x_transposed, const Array& w,
                      bool w_transposed, float beta) {
  static const auto sgemm = reinterpret_cast<Sgemm>(openblas_symbol("cblas_sgemm"));
  const int m = int(y.dim(0)), n = int(y.dim(1)), k = int(x.dim(x_transposed ? 0 : 1));
  sgemm(kRowMajor, x_transposed ? kTrans : kNoTrans, w_transposed ? kTrans : kNoTrans, m, n, k, 1,
        x.data<float>(), x_transposed ? m : k, w.data<float>(), w_transposed ? k : n, beta,
        y.data<float>(), n);
}

double Products::openblas() {
  const double begun = now();
  openblas_product(c_, a_, false, b_, true, 0);
  return now() - begun;
}

std::string openblas_core() {
  return reinterpret_cast<char* (*)()>(openblas_symbol("openblas_get_corename"))();
}

PlainRate plain_rate() {
  Products p;
  p.ours(), p.openblas();
  return {p.flop() / median({p.ours(), p.ours(), p.ours()}),
          p.flop() / median({p.openblas(), p.openblas(), p.openblas()})};
}

std::string to_string(const PlainRate& r) {
  return fmt::format("product of 4096^3: ours {:.0f} GFLOP/s ({}), OpenBLAS {:.0f} (core {})",
                     r.ours / 1e9, core_name(), r.openblas / 1e9, openblas_core());
}

double device_matrix_rate(std::int64_t n, Dtype dtype) {
  const ArrayKind kind{dtype, Device::cuda};
  // Numbers like those of a model: a device computes faster with constants.
  const Init normal{Init::Kind::normal, 1};
  const Build build{.device = kind.device};
  const Array a = initial(build, normal, {n, n}, {}, "a").to(kind),
              b = initial(build, normal, {n, n}, {}, "b").to(kind);
  Array c = Array::empty({n, n}, kind);
  std::vector<double> seconds;
  const double first = now();
  while (now() - first < 0.5) {  // until its clock has risen
    kernels::gemm(c, a, b.transpose(), 1, 0);
    cuda::wait();
  }
  constexpr int kTogether = 10;  // handing one over and waiting for it would count, too
  for (int i = 0; i < 8; ++i) {
    const double begun = now();
    for (int k = 0; k < kTogether; ++k) kernels::gemm(c, a, b.transpose(), 1, 0);
    cuda::wait();
    seconds.push_back((now() - begun) / kTogether);
  }
  return 2.0 * double(n) * double(n) * double(n) / median(seconds);
}

}  // namespace graft
