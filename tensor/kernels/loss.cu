// Softmax and cross-entropy on the device: one block for each row, shifted by its largest element,
// sums in f32.
#include "tensor/cuda/launch.h"
#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

template <class T>
struct RowSum {
  T most, sum;
};

// The row's largest element, and the sum of exp(x - most).
template <class T>
__device__ RowSum<Compute<T>> row_sum(const T* x, Index n) {
  using C = Compute<T>;
  C most = -INFINITY;
  for (Index i = threadIdx.x; i < n; i += blockDim.x) {
    const C v = static_cast<C>(x[i]);
    most = v > most ? v : most;
  }
  most = block_max(most);
  C sum = 0;
  for (Index i = threadIdx.x; i < n; i += blockDim.x)
    sum += vmath::exp(static_cast<C>(x[i]) - most);
  return {most, block_sum(sum)};
}

template <class T>
__global__ void softmax_kernel(T* y, const T* x, Index columns) {
  using C = Compute<T>;
  x += blockIdx.x * columns;
  y += blockIdx.x * columns;
  const RowSum<C> s = row_sum(x, columns);
  const C factor = C{1} / s.sum;
  for (Index i = threadIdx.x; i < columns; i += blockDim.x)
    y[i] = static_cast<T>(vmath::exp(static_cast<C>(x[i]) - s.most) * factor);
}

template <class T>
__global__ void softmax_grad_kernel(T* dx, const T* y, const T* dy, Index columns) {
  using C = Compute<T>;
  y += blockIdx.x * columns;
  dy += blockIdx.x * columns;
  dx += blockIdx.x * columns;
  C dot = 0;
  for (Index i = threadIdx.x; i < columns; i += blockDim.x)
    dot += static_cast<C>(y[i]) * static_cast<C>(dy[i]);
  dot = block_sum(dot);
  for (Index i = threadIdx.x; i < columns; i += blockDim.x)
    dx[i] = static_cast<T>(static_cast<C>(y[i]) * (static_cast<C>(dy[i]) - dot));
}

template <class T>
__global__ void cross_entropy_kernel(Compute<T>* loss, const T* logits, const std::int32_t* label,
                                     Index columns) {
  using C = Compute<T>;
  const std::int32_t want = label[blockIdx.x];
  if (want < 0) {
    if (threadIdx.x == 0) loss[blockIdx.x] = 0;
    return;
  }
  const T* x = logits + blockIdx.x * columns;
  const RowSum<C> s = row_sum(x, columns);
  if (threadIdx.x == 0) loss[blockIdx.x] = std::log(s.sum) + (s.most - static_cast<C>(x[want]));
}

// May be in place: a row is read whole before it is written, element by element then.
template <class T>
__global__ void cross_entropy_grad_kernel(T* dlogits, const T* logits, const std::int32_t* label,
                                          const Compute<T>* dloss, Index columns) {
  using C = Compute<T>;
  const std::int32_t want = label[blockIdx.x];
  const T* x = logits + blockIdx.x * columns;
  T* d = dlogits + blockIdx.x * columns;
  if (want < 0) {
    for (Index i = threadIdx.x; i < columns; i += blockDim.x) d[i] = static_cast<T>(C{0});
    return;
  }
  const RowSum<C> s = row_sum(x, columns);
  const C grad = dloss[blockIdx.x], factor = grad / s.sum;
  for (Index i = threadIdx.x; i < columns; i += blockDim.x)
    d[i] = static_cast<T>(vmath::exp(static_cast<C>(x[i]) - s.most) * factor -
                          (i == want ? grad : C{0}));
}

template <class T>
__global__ void join_kernel(Compute<T>* lse, Compute<T>* picked, const T* logits,
                            const std::int32_t* label, Index columns, Index step, Index first) {
  using C = Compute<T>;
  const T* x = logits + blockIdx.x * step;
  const RowSum<C> s = row_sum(x, columns);
  C part = s.most + std::log(s.sum);
  if (s.most == -INFINITY) {  // as all elements are, unless one is NaN; and so is their plain sum
    C plain = 0;
    for (Index i = threadIdx.x; i < columns; i += blockDim.x) plain += static_cast<C>(x[i]);
    part = block_sum(plain);
  }
  if (threadIdx.x != 0) return;
  const std::int32_t want = label[blockIdx.x];
  if (want >= first && want < first + columns) picked[blockIdx.x] = static_cast<C>(x[want - first]);
  if (part == -INFINITY) return;  // adds nothing
  const C before = lse[blockIdx.x];
  const C high = before > part ? before : part, low = before > part ? part : before;
  lse[blockIdx.x] = high + std::log1p(std::exp(low - high));
}

template <class C>
__global__ void label_loss_kernel(C* loss, const C* lse, const C* picked, const std::int32_t* label,
                                  Index rows) {
  for (Index r = thread_index(); r < rows; r += grid_step())
    loss[r] = label[r] < 0 ? C{0} : lse[r] - picked[r];
}

template <class T>
__global__ void part_grad_kernel(T* dlogits, const T* logits, const Compute<T>* lse,
                                 const std::int32_t* label, const Compute<T>* dloss, Index columns,
                                 Index first) {
  using C = Compute<T>;
  const Index r = blockIdx.x;
  const std::int32_t want = label[r];
  const C sum = lse[r], g = want < 0 ? C{0} : dloss[r];
  for (Index i = threadIdx.x; i < columns; i += blockDim.x) {
    const Index at = r * columns + i;
    dlogits[at] = static_cast<T>(g * vmath::exp(static_cast<C>(logits[at]) - sum) -
                                 (i + first == want ? g : C{0}));
  }
}

// Labels that lie on the host are looked at; those on the device were when they were made.
void check_labels(const Array& label, Index classes) {
  if (label.device() == Device::cuda) return;
  const auto* at = label.data<std::int32_t>();
  for (Index i = 0; i < label.numel(); ++i)
    check(at[i] >= -1 && at[i] < classes,
          "cross_entropy: label {} (number {}) of {} classes; -1 means none", at[i], i, classes);
}

Grid rows_grid(Index rows) { return Grid{static_cast<unsigned>(rows)}; }

}  // namespace

void softmax(Array& y, const Array& x) {
  const Index columns = x.dim(-1), rows = columns ? x.numel() / columns : 0;
  dispatch_all(x, [&]<class T>(T) {
    launch("softmax", softmax_kernel<T>, rows_grid(rows), y.device_data<T>(), x.device_data<T>(),
           columns);
  });
}

void softmax_grad(Array& dx, const Array& y, const Array& dy) {
  const Index columns = y.dim(-1), rows = columns ? y.numel() / columns : 0;
  dispatch_all(y, [&]<class T>(T) {
    launch("softmax_grad", softmax_grad_kernel<T>, rows_grid(rows), dx.device_data<T>(),
           y.device_data<T>(), dy.device_data<T>(), columns);
  });
}

void cross_entropy(Array& loss, const Array& logits, const Array& label) {
  check_labels(label, logits.dim(-1));
  const DeviceInts want(label);
  dispatch_all(logits, [&]<class T>(T) {
    launch("cross_entropy", cross_entropy_kernel<T>, rows_grid(loss.numel()),
           loss.device_data<Compute<T>>(), logits.device_data<T>(), want.data(), logits.dim(-1));
  });
}

void cross_entropy_grad(Array& dlogits, const Array& logits, const Array& label,
                        const Array& dloss) {
  check_labels(label, logits.dim(-1));
  const DeviceInts want(label);
  dispatch_all(logits, [&]<class T>(T) {
    launch("cross_entropy_grad", cross_entropy_grad_kernel<T>, rows_grid(dloss.numel()),
           dlogits.device_data<T>(), logits.device_data<T>(), want.data(),
           dloss.device_data<Compute<T>>(), logits.dim(-1));
  });
}

void log_sum_exp_join(Array& lse, Array& picked, const Array& logits, const Array& label,
                      std::int64_t first) {
  const DeviceInts want(label);
  dispatch_all(logits, [&]<class T>(T) {
    launch("log_sum_exp_join", join_kernel<T>, rows_grid(lse.numel()),
           lse.device_data<Compute<T>>(), picked.device_data<Compute<T>>(), logits.device_data<T>(),
           want.data(), logits.dim(-1), logits.stride(0), first);
  });
}

void label_loss(Array& loss, const Array& lse, const Array& picked, const Array& label) {
  const DeviceInts want(label);
  dispatch(lse, [&]<class T>(T) {
    launch("label_loss", label_loss_kernel<T>, grid_of(lse.numel()), loss.device_data<T>(),
           lse.device_data<T>(), picked.device_data<T>(), want.data(), lse.numel());
  });
}

void cross_entropy_part_grad(Array& dlogits, const Array& logits, const Array& lse,
                             const Array& label, const Array& dloss, std::int64_t first) {
  const DeviceInts want(label);
  dispatch_all(logits, [&]<class T>(T) {
    launch("cross_entropy_part_grad", part_grad_kernel<T>, rows_grid(lse.numel()),
           dlogits.device_data<T>(), logits.device_data<T>(), lse.device_data<Compute<T>>(),
           want.data(), dloss.device_data<Compute<T>>(), logits.dim(-1), first);
  });
}

}  // namespace graft::cuda
