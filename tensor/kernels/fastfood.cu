// The fast Walsh-Hadamard transform and Fastfood's products on the device.
#include "tensor/cuda/launch.h"
#include "tensor/kernels.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

// Numbers of a run that one block transforms in shared memory; longer rows mix the runs after that,
// one pass over memory for each factor of two.
constexpr Index kRun = 2048;

template <class T>
__global__ void run_kernel(T* x, Index run) {
  T* const near = dynamic_shared<T>();
  T* const at = x + blockIdx.x * run;
  for (Index i = threadIdx.x; i < run; i += blockDim.x) near[i] = at[i];
  __syncthreads();
  for (Index stride = 1; stride < run; stride *= 2) {
    for (Index i = threadIdx.x; i < run / 2; i += blockDim.x) {
      const Index low = i / stride * 2 * stride + i % stride;
      const T a = near[low], b = near[low + stride];
      near[low] = a + b;
      near[low + stride] = a - b;
    }
    __syncthreads();
  }
  for (Index i = threadIdx.x; i < run; i += blockDim.x) at[i] = near[i];
}

template <class T>
__global__ void stage_kernel(T* x, Index stride, Index pairs) {
  for (Index i = thread_index(); i < pairs; i += grid_step()) {
    const Index low = i / stride * 2 * stride + i % stride;
    const T a = x[low], b = x[low + stride];
    x[low] = a + b;
    x[low + stride] = a - b;
  }
}

// Every row of x[rows, n].
template <class T>
void transform(T* x, Index rows, Index n) {
  const Index run = n < kRun ? n : kRun;
  if (rows * n == 0) return;
  launch("hadamard", run_kernel<T>, Grid{unsigned(rows * n / run), kThreads, 1, run * sizeof(T)}, x,
         run);
  for (Index stride = run; stride < n; stride *= 2)
    launch("hadamard_stage", stage_kernel<T>, grid_of(rows * n / 2), x, stride, rows * n / 2);
}

template <class T>
__global__ void signed_kernel(T* u, const T* x, const std::int32_t* sign, Index in, Index inner) {
  for (Index i = thread_index(); i < inner; i += grid_step())
    u[i] = i < in ? (sign[i] > 0 ? x[i] : -x[i]) : T{0};
}

template <class T>
__global__ void spread_kernel(T* z, const T* u, const std::int32_t* place, const float* gaussian,
                              T scale, Index length) {
  for (Index i = thread_index(); i < length; i += grid_step())
    z[i] = scale * static_cast<T>(gaussian[i]) * u[place[i]];
}

template <class T>
__global__ void padded_kernel(T* z, const T* dy, Index out, Index length) {
  for (Index i = thread_index(); i < length; i += grid_step()) z[i] = i < out ? dy[i] : T{0};
}

// sum[k] += gaussian[i] z[i] over the i whose place is k, in order: `order` has these i one after
// another, from first[k] on.
template <class T>
__global__ void gathered_kernel(T* sum, const T* z, const std::int32_t* first,
                                const std::int32_t* order, const float* gaussian, Index inner) {
  for (Index k = thread_index(); k < inner; k += grid_step()) {
    T total = 0;
    for (std::int32_t j = first[k]; j < first[k + 1]; ++j)
      total += static_cast<T>(gaussian[order[j]]) * z[order[j]];
    sum[k] = total;
  }
}

template <class T>
__global__ void add_signed_kernel(T* dx, const T* sum, const std::int32_t* sign, T scale,
                                  Index in) {
  for (Index i = thread_index(); i < in; i += grid_step())
    dx[i] += sign[i] > 0 ? scale * sum[i] : -scale * sum[i];
}

// The places the other way round, made on the host: [K + 1] where the i begin that have place k,
// and behind these the i themselves, [L].
Array inverse_of(const Fastfood& p) {
  const Array place = p.place.to(Device::cpu);
  const auto* at = place.data<std::int32_t>();
  Array all = Array::zeros({p.inner + 1 + p.length}, Dtype::i32);
  auto* const first = all.data<std::int32_t>();
  for (Index i = 0; i < p.length; ++i) ++first[at[i] + 1];
  for (Index k = 0; k < p.inner; ++k) first[k + 1] += first[k];
  std::vector<std::int32_t> next(first, first + p.inner);
  auto* const order = first + p.inner + 1;
  for (Index i = 0; i < p.length; ++i) order[next[at[i]]++] = static_cast<std::int32_t>(i);
  return all;
}

// A projection is drawn once: what kernels read of it is copied once, too.
Array kept_as_it_is(const Array& x) {
  return kept(x, "as it is", [&] { return x; }).as_contiguous();
}

}  // namespace

void hadamard(Array& x) {
  const Index columns = x.dim(-1), rows = columns > 0 ? x.numel() / columns : 0;
  dispatch(x, [&]<class T>(T) { transform(x.device_data<T>(), rows, columns); });
}

void fastfood(Array& y, const Array& x, const Fastfood& p) {
  const Array sign = kept_as_it_is(p.sign), place = kept_as_it_is(p.place),
              gaussian = kept_as_it_is(p.gaussian);
  dispatch(x, [&]<class T>(T) {
    Array inner = Array::empty({p.inner}, x.kind()), outer = Array::empty({p.length}, x.kind());
    T *const u = inner.device_data<T>(), *const z = outer.device_data<T>();
    launch("fastfood signs", signed_kernel<T>, grid_of(p.inner), u, x.device_data<T>(),
           sign.device_data<std::int32_t>(), p.in, p.inner);
    transform(u, 1, p.inner);
    launch("fastfood spread", spread_kernel<T>, grid_of(p.length), z, static_cast<const T*>(u),
           place.device_data<std::int32_t>(), gaussian.device_data<float>(),
           static_cast<T>(p.scale), p.length);
    transform(z, 1, p.length);
    y.copy_from(outer.slice(0, 0, p.out).reshape(y.shape()));
  });
}

void fastfood_adjoint(Array& dx, const Array& dy, const Fastfood& p) {
  const Array sign = kept_as_it_is(p.sign), gaussian = kept_as_it_is(p.gaussian);
  const Array inverse = kept(p.place, "inverse", [&] { return inverse_of(p); });
  const auto* const first = inverse.device_data<std::int32_t>();
  dispatch(dy, [&]<class T>(T) {
    Array outer = Array::empty({p.length}, dy.kind()), inner = Array::empty({p.inner}, dy.kind());
    T *const z = outer.device_data<T>(), *const sum = inner.device_data<T>();
    launch("fastfood pad", padded_kernel<T>, grid_of(p.length), z, dy.device_data<T>(), p.out,
           p.length);
    transform(z, 1, p.length);
    launch("fastfood gather", gathered_kernel<T>, grid_of(p.inner), sum, static_cast<const T*>(z),
           first, first + p.inner + 1, gaussian.device_data<float>(), p.inner);
    transform(sum, 1, p.inner);
    launch("fastfood add", add_signed_kernel<T>, grid_of(p.in), dx.device_data<T>(),
           static_cast<const T*>(sum), sign.device_data<std::int32_t>(), static_cast<T>(p.scale),
           p.in);
  });
}

}  // namespace graft::cuda
