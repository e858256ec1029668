// What the benchmarks measure by: a clock, medians and quartiles, resident memory, and the plain
// products of this machine, ours and OpenBLAS's.
#pragma once

#include <string>
#include <vector>

#include "tensor/array.h"

namespace graft {

double now();  // seconds, from no particular moment

// Quartiles by linear interpolation between the sorted values (Hyndman & Fan 1996, type 7).
struct Spread {
  double low = 0, median = 0, high = 0;
};
Spread spread(std::vector<double> values);  // throws where there are none
double median(std::vector<double> values);

// A line of /proc/self/status, in bytes: VmRSS, VmHWM (the most there was), RssAnon.
double resident(const std::string& key);

// c = a b^T of two square matrices, as a linear layer has it. OpenBLAS is opened at the first call
// that wants it, so that a process that has not measured it has neither its memory nor its threads.
class Products {
 public:
  explicit Products(int n = 4096);
  double ours();      // seconds of one product
  double openblas();  // the same by its cblas_sgemm; throws where the library is not there
  double flop() const { return 2.0 * n_ * n_ * n_; }

 private:
  int n_;
  Array a_, b_, c_;
};

// FLOP/s of a product of 4096^3, each the median of three.
struct PlainRate {
  double ours, openblas;
};
PlainRate plain_rate();
std::string to_string(const PlainRate&);  // with both sides' kernels' names

// y[m, n] = beta y + x w, in f32 and as the BLAS does it: x is [m, k], or [k, m] where
// `x_transposed`; w is [k, n], or [n, k]. All are contiguous.
void openblas_product(Array& y, const Array& x, bool x_transposed, const Array& w,
                      bool w_transposed, float beta);
std::string openblas_core();  // the kernels that it has chosen for this processor

// FLOP/s of c = a b^T of n^3 on the device, in that type.
double device_matrix_rate(std::int64_t n, Dtype);

}  // namespace graft
