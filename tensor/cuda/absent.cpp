// In the place of the .cu files where this is built without CUDA: there is no device.
#include "tensor/cuda/runtime.h"
#include "tensor/kernels.h"

namespace graft::cuda {

static constexpr const char* kWhy =
    "this program was built without CUDA; build the cuda preset on a machine with its toolkit";
[[noreturn]] static void absent() { fail("device cuda: {}", kWhy); }

std::string unusable() { return kWhy; }
std::string device_name() { absent(); }
void* allocate(std::size_t) { absent(); }
void release(void*) {}
std::size_t free_bytes() { absent(); }
void copy_to_device(void*, const void*, std::size_t) { absent(); }
void copy_to_host(void*, const void*, std::size_t) { absent(); }
void copy_on_device(void*, const void*, std::size_t) { absent(); }
void fill_bytes(void*, int, std::size_t) { absent(); }
void copy(Array&, const Array&) { absent(); }
void fill(Array&, double) { absent(); }
void wait() {}
void gathered(Device, const std::function<void()>& step) { step(); }
void begin_gathered() {}
void drop_graphs() {}
const Work& work() {
  static const Work none;
  return none;
}

// The kernels, as kernels.inc lists them.
void gemm(Array&, const Array&, const Array&, double, double) { absent(); }
void gemm_from_row(Array&, const Array&, const Array&, const Array&) { absent(); }
void binary(Binary, Array&, const Array&, const Array&) { absent(); }
void map(Map, Array&, const Array&) { absent(); }
void map_grad(Map, Array&, const Array&, const Array&) { absent(); }
void axpy(Array&, const Array&, double) { absent(); }
void scale(Array&, const Array&, double) { absent(); }
void swiglu(Array&, const Array&, const Array&) { absent(); }
void swiglu_grad(Array&, Array&, const Array&, const Array&, const Array&) { absent(); }
void add_rows(Array&, const Array&) { absent(); }
void add_rows_of_product(Array&, const Array&, const Array&) { absent(); }
void sum_all(Array&, const Array&) { absent(); }
void sum_columns(Array&, const Array&) { absent(); }
Array sum_squares(const std::vector<Array>&) { absent(); }
bool all_finite(const Array&) { absent(); }
void layer_norm(Array&, const Array&, const Array&, const Array&, double) { absent(); }
void layer_norm_grad(Array&, Array&, Array&, const Array&, const Array&, const Array&, double) {
  absent();
}
void rms_norm(Array&, const Array&, const Array&, double) { absent(); }
void rms_norm_grad(Array&, Array&, const Array&, const Array&, const Array&, double) { absent(); }
void softmax(Array&, const Array&) { absent(); }
void softmax_grad(Array&, const Array&, const Array&) { absent(); }
void cross_entropy(Array&, const Array&, const Array&) { absent(); }
void cross_entropy_grad(Array&, const Array&, const Array&, const Array&) { absent(); }
void log_sum_exp_join(Array&, Array&, const Array&, const Array&, std::int64_t) { absent(); }
void label_loss(Array&, const Array&, const Array&, const Array&) { absent(); }
void cross_entropy_part_grad(Array&, const Array&, const Array&, const Array&, const Array&,
                             std::int64_t) {
  absent();
}
void gather(Array&, const Array&, const Array&) { absent(); }
void scatter_add(Array&, const Array&, const Array&) { absent(); }
void segment_mean(Array&, const Array&, const std::vector<int>&) { absent(); }
void segment_mean_grad(Array&, const Array&, const std::vector<int>&) { absent(); }
void sdpa(Array&, Array&, const Array&, const Array&, const Array&, const Array&, int, int,
          const AttentionShape&) {
  absent();
}
void sdpa_grad(Array&, Array&, Array&, Array&, const Array&, const Array&, const Array&,
               const Array&, const Array&, const Array&, const Array&, int, int,
               const AttentionShape&) {
  absent();
}
void rotate(Array&, const Array&, const Array&, const Array&, int, bool) { absent(); }
void dropout(Array&, const Array&, double, Stream, const Array&, const Array&) { absent(); }
void hadamard(Array&) { absent(); }
void fastfood(Array&, const Array&, const Fastfood&) { absent(); }
void fastfood_adjoint(Array&, const Array&, const Fastfood&) { absent(); }
void adamw(const std::vector<AdamWTensor>&, const AdamW&, const Array&) { absent(); }
void sgd(Array&, Array&, const Array&, double, double, double) { absent(); }

}  // namespace graft::cuda
