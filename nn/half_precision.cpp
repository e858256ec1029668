#include "nn/half_precision.h"

namespace graft {

HalfPrecision::HalfPrecision(Model& model, Dtype dtype)
    : model_(model), before_(model.embedding.rows) {
  check(is_half(dtype), "half precision: {} is none; there are f16 and bf16", name(dtype));
  check(model.build().device == Device::cuda,
        "half precision: the model lies on {}, which computes in f32; give a device",
        name(model.build().device));
  check(before_ == Dtype::f32, "half precision: the model computes in {}; need f32", name(before_));
  model.each([&](Weight& w) {
    if (!w || w.value().needs_grad() || w.value().dtype() == dtype) return;
    Parameter& p = w.parameter();
    kept_.emplace_back(&p, p.value.value().to(Device::cpu));
    p.value = Tensor(p.value.value().to(dtype));
  });
  rows(dtype);
}

HalfPrecision::~HalfPrecision() {
  for (auto& [parameter, value] : kept_) parameter->value = Tensor(value.to(model_.build().device));
  rows(before_);
}

void HalfPrecision::rows(Dtype dtype) {
  model_.embedding.rows = dtype;
  if (model_.encoder) model_.encoder->embedding.rows = dtype;
}

}  // namespace graft
