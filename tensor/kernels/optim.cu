// Optimizer steps on the device; the formulas are the host's (optim.cpp).
#include <cmath>
#include <utility>

#include "tensor/cuda/launch.h"
#include "tensor/cuda/lists.h"
#include "tensor/kernels.h"
#include "tensor/vmath.h"

namespace graft::cuda {
namespace {

using Index = std::int64_t;

// Which change from step to step, so that they are read and not given: a step is then the same
// work as the next. After these, 1 - lr decay and the size of a step, of each tensor.
template <class T>
struct AdamWNumbers {
  T rate1, rate2, beta2, eps, root;
};
constexpr std::int64_t kNumbers = 5;
template <class T>
struct AdamWList {
  T *w[kListed], *m[kListed], *v[kListed];
  const T* grad[kListed];
};

static_assert(sizeof(AdamWList<double>) + sizeof(Runs) + 3 * sizeof(void*) <= 4096);

// shrinks[0] = clip / norm where the norm is larger, 1 else, over `scale`; NaN where it is not
// finite. In the host's order.
__global__ void shrink_kernel(double* shrinks, const double* squares, Index n, double clip,
                              double scale) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += squares[i];
  const double norm = std::sqrt(sum) / scale;
  *shrinks = sum - sum == 0 ? (clip > 0 && norm > clip ? clip / norm : 1) / scale : NAN;
}

template <class T>
__global__ void adamw_kernel(AdamWList<T> list, Runs runs, const T* numbers, const T* of_tensors,
                             const double* shrinks) {
  const AdamWNumbers<T> o{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
  if (!(*shrinks > 0)) return;
  const T shrink = static_cast<T>(*shrinks);
  const Stretch run = stretch_of(runs, blockIdx.x);
  T *w = list.w[run.array], *m = list.m[run.array], *v = list.v[run.array];
  const T *grad = list.grad[run.array], *own = of_tensors + 2 * run.array;
  const T keep = own[0], size = own[1];
  for (Index i = run.begin + threadIdx.x; i < run.end; i += blockDim.x) {
    const T g = vmath::fma(shrink, grad[i], T{-0.0});
    const T mean = vmath::fma(o.rate1, g - m[i], m[i]);
    const T square = vmath::fma(o.rate2 * g, g, o.beta2 * v[i]);
    m[i] = mean;
    v[i] = square;
    w[i] = vmath::fma(-size, mean / (std::sqrt(square) / o.root + o.eps), w[i] * keep);
  }
}

template <class T>
__global__ void sgd_kernel(T* w, T* v, const T* grad, T rate, T mu, T lambda, Index n) {
  for (Index i = thread_index(); i < n; i += grid_step()) {
    const T velocity = vmath::fma(mu, v[i], vmath::fma(lambda, w[i], grad[i]));
    v[i] = velocity;
    w[i] = vmath::fma(-rate, velocity, w[i]);
  }
}

}  // namespace

void adamw(const std::vector<AdamWTensor>& tensors, const AdamW& o, const Array& squares) {
  if (tensors.empty()) return;
  // Before any is written: they are handed over list by list.
  for (std::size_t i = 0; i < tensors.size(); ++i)
    for (const Array* x : {&tensors[i].w, &tensors[i].m, &tensors[i].v, &tensors[i].grad})
      check(x->dtype() == tensors[0].w.dtype() && x->device() == Device::cuda,
            "adamw: tensor {} is {}, the first {}, on {}; need one type, on cuda", i,
            name(x->dtype()), name(tensors[0].w.dtype()), name(x->device()));
  Array shrinks = Array::empty({1}, {Dtype::f64, Device::cuda});
  launch("adamw's clipping", shrink_kernel, Grid{1, 1}, shrinks.device_data<double>(),
         squares.defined() ? squares.device_data<double>() : nullptr,
         squares.defined() ? squares.numel() : 0, o.clip, o.scale);
  dispatch(tensors[0].w, [&]<class T>(T) {
    std::vector<T> numbers{static_cast<T>(1 - o.beta1), static_cast<T>(1 - o.beta2),
                           static_cast<T>(o.beta2), static_cast<T>(o.eps),
                           static_cast<T>(std::sqrt(1 - std::pow(o.beta2, o.step)))};
    for (const AdamWTensor& x : tensors) {
      numbers.push_back(static_cast<T>(1 - x.lr * x.decay));
      numbers.push_back(static_cast<T>(x.lr / (1 - std::pow(o.beta1, o.step))));
    }
    const Array given = uploaded(Array::of(numbers));
    const T* const at = given.device_data<T>();
    const auto size = [&](std::size_t i) { return tensors[i].w.numel(); };
    for_lists(tensors.size(), size, [&](const Runs& runs, std::size_t begin, std::size_t end) {
      AdamWList<T> list = {};
      for (std::size_t i = begin, to = 0; i < end; ++i, ++to) {
        if (size(i) == 0) continue;
        AdamWTensor x = tensors[i];
        list.w[to] = x.w.device_data<T>(), list.m[to] = x.m.device_data<T>();
        list.v[to] = x.v.device_data<T>();
        list.grad[to] = std::as_const(x.grad).device_data<T>();
      }
      launch("adamw", adamw_kernel<T>, Grid{runs.first[end - begin]}, list, runs, at,
             at + kNumbers + 2 * static_cast<Index>(begin),
             static_cast<const double*>(shrinks.device_data<double>()));
    });
  });
}

void sgd(Array& w, Array& v, const Array& grad, double lr, double momentum, double decay) {
  dispatch(w, [&]<class T>(T) {
    launch("sgd", sgd_kernel<T>, grid_of(w.numel()), w.device_data<T>(), v.device_data<T>(),
           grad.device_data<T>(), static_cast<T>(lr), static_cast<T>(momentum),
           static_cast<T>(decay), w.numel());
  });
}

}  // namespace graft::cuda
