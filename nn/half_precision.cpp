#include "nn/half_precision.h"

#include <set>

namespace graft {

HalfPrecision::HalfPrecision(Model& model, Dtype dtype, const Parameters& except)
    : model_(model), before_(model.embedding.rows) {
  check(is_half(dtype), "half precision: {} is none; there are f16 and bf16", name(dtype));
  check(model.build().device == Device::cuda,
        "half precision: the model lies on {}, which computes in f32; give a device",
        name(model.build().device));
  check(before_ == Dtype::f32, "half precision: the model computes in {}; need f32", name(before_));
  const pool::Purpose purpose("weights");
  std::set<const Parameter*> spared;
  for (const auto& p : except) spared.insert(p.get());
  try {
    model.each([&](Weight& w) {
      if (!w || w.value().needs_grad() || w.value().dtype() == dtype) return;
      Parameter& p = w.parameter();
      if (spared.contains(&p)) return;
      kept_.emplace_back(&p, p.value.value().to(Device::cpu));
      p.value = Tensor(p.value.value().to(dtype));
    });
  } catch (...) {  // such as no memory: the model is not left half turned
    restore();
    throw;
  }
  rows(dtype);
}

HalfPrecision::~HalfPrecision() {
  restore();
  rows(before_);
}

// One by one, each half going first, so that the device never holds more than it did at the start.
// Where there is no room even so (another program took it), the numbers stay on the host, and who
// computes with them next is told where they lie.
void HalfPrecision::restore() {
  const pool::Purpose purpose("weights");
  for (auto& [parameter, value] : kept_) {
    parameter->value = Tensor(value);
    try {
      parameter->value = Tensor(value.to(model_.build().device));
    } catch (const Error&) {
    }
  }
}

void HalfPrecision::rows(Dtype dtype) {
  model_.embedding.rows = dtype;
  if (model_.encoder) model_.encoder->embedding.rows = dtype;
}

}  // namespace graft
