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

template <class T>
struct AdamWNumbers {
  T shrink, rate1, rate2, beta2, eps, root;
};
template <class T>
struct AdamWList {
  T *w[kListed], *m[kListed], *v[kListed];
  const T* grad[kListed];
  T keep[kListed], size[kListed];
};

static_assert(sizeof(AdamWList<double>) + sizeof(Runs) + sizeof(AdamWNumbers<double>) <= 4096);

template <class T>
__global__ void adamw_kernel(AdamWList<T> list, Runs runs, AdamWNumbers<T> o) {
  const Stretch run = stretch_of(runs, blockIdx.x);
  T *w = list.w[run.array], *m = list.m[run.array], *v = list.v[run.array];
  const T *grad = list.grad[run.array], keep = list.keep[run.array], size = list.size[run.array];
  for (Index i = run.begin + threadIdx.x; i < run.end; i += blockDim.x) {
    const T g = vmath::fma(o.shrink, grad[i], T{-0.0});
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

void adamw(const std::vector<AdamWTensor>& tensors, const AdamW& o) {
  if (tensors.empty()) return;
  // Before any is written: they are handed over list by list.
  for (std::size_t i = 0; i < tensors.size(); ++i)
    for (const Array* x : {&tensors[i].w, &tensors[i].m, &tensors[i].v, &tensors[i].grad})
      check(x->dtype() == tensors[0].w.dtype() && x->device() == Device::cuda,
            "adamw: tensor {} is {}, the first {}, on {}; need one type, on cuda", i,
            name(x->dtype()), name(tensors[0].w.dtype()), name(x->device()));
  dispatch(tensors[0].w, [&]<class T>(T) {
    const AdamWNumbers<T> numbers{
        static_cast<T>(o.shrink),    static_cast<T>(1 - o.beta1),
        static_cast<T>(1 - o.beta2), static_cast<T>(o.beta2),
        static_cast<T>(o.eps),       static_cast<T>(std::sqrt(1 - std::pow(o.beta2, o.step)))};
    const auto size = [&](std::size_t i) { return tensors[i].w.numel(); };
    for_lists(tensors.size(), size, [&](const Runs& runs, std::size_t begin, std::size_t end) {
      AdamWList<T> list = {};
      for (std::size_t i = begin, to = 0; i < end; ++i, ++to) {
        if (size(i) == 0) continue;
        AdamWTensor x = tensors[i];
        list.w[to] = x.w.device_data<T>(), list.m[to] = x.m.device_data<T>();
        list.v[to] = x.v.device_data<T>();
        list.grad[to] = std::as_const(x.grad).device_data<T>();
        list.keep[to] = static_cast<T>(1 - x.lr * x.decay);
        list.size[to] = static_cast<T>(x.lr / (1 - std::pow(o.beta1, o.step)));
      }
      launch("adamw", adamw_kernel<T>, Grid{runs.first[end - begin]}, list, runs, numbers);
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
