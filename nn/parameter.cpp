#include "nn/parameter.h"

#include <cmath>

namespace graft {
namespace {

// A standard normal value cut at two standard deviations, by drawing again at the next address.
double truncated_normal(Key key, std::uint32_t stream, std::uint64_t i) {
  for (std::uint64_t attempt = 0;; ++attempt) {
    const double z = normal(key, stream, i + (attempt << 40));
    if (std::abs(z) <= 2) return z;
  }
}

}  // namespace

Array initial(const Build& build, const Init& init, Shape shape, const Site& site,
              const std::string& name) {
  if (!build.storage || !build.draw) return Array::shape_only(std::move(shape), build.dtype);
  const pool::Purpose purpose("weights");
  if (init.kind == Init::Kind::zeros) return Array::zeros(std::move(shape), build.kind());
  if (init.kind == Init::Kind::ones) return Array::full(std::move(shape), 1, build.kind());
  const Key key{build.seed, 0};
  const std::uint32_t stream = stream_id((to_string(site) + "/" + name).c_str());
  Array a = Array::empty(std::move(shape));
  float* out = a.data<float>();
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    double value = 0;
    if (init.kind == Init::Kind::normal) value = normal(key, stream, i);
    if (init.kind == Init::Kind::truncated) value = truncated_normal(key, stream, i);
    if (init.kind == Init::Kind::uniform) value = 2 * uniform(key, stream, i) - 1;
    out[i] = static_cast<float>(init.scale * value);
  }
  return a.to(build.kind());
}

const Tensor& Weight::value() const {
  static const Tensor none;
  return *cell_ ? (*cell_)->value : none;
}

Tensor Weight::operator()(const Ctx& ctx) const {
  const Tensor& w = value();
  if (!w.needs_grad()) w.value().mark_constant();  // products may keep it packed
  if (edits.empty() || !w.defined()) return w;
  return edits(is_half(w.dtype()) ? Tensor(w.value().to(widened(w.dtype()))) : w, ctx);
}

Owned::Owned(Weight& place, std::shared_ptr<Parameter> copy)
    : place_(place.cell_), copy_(std::move(copy)), before_(*place.cell_) {
  *place.cell_ = copy_;
}

void Owned::off() {
  const auto cell = place_.lock();
  if (!cell) return;
  check(*cell == copy_, "'{}': another copy stands in front of this one", copy_->label());
  *cell = before_;
}

void Owned::on() {
  const auto cell = place_.lock();
  if (!cell) return;
  check(!*cell || !(*cell)->trains(), "'{}' already trains by another adapter", copy_->label());
  before_ = *cell;
  *cell = copy_;
}

Owned::~Owned() {
  const auto cell = place_.lock();
  if (cell && copy_ && *cell == copy_) *cell = before_;
}

}  // namespace graft
