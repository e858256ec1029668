#include "nn/parameter.h"

#include <algorithm>
#include <cmath>

#include "tensor/parallel.h"

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
  constexpr std::int64_t kWorthAThread = 4096;  // numbers, of some 60 ns each
  parallel_ranges(a.numel(), kWorthAThread, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      double value = 0;
      if (init.kind == Init::Kind::normal) value = normal(key, stream, i);
      if (init.kind == Init::Kind::truncated) value = truncated_normal(key, stream, i);
      if (init.kind == Init::Kind::uniform) value = 2 * uniform(key, stream, i) - 1;
      out[i] = static_cast<float>(init.scale * value);
    }
  });
  return a.to(build.kind());
}

const Tensor& Weight::value() const {
  static const Tensor none;
  return cell_->now ? cell_->now->value : none;
}

Tensor Weight::operator()(const Ctx& ctx) const {
  const Tensor& w = value();
  if (!w.needs_grad()) w.value().mark_constant();  // products may keep it packed
  if (edits.empty() || !w.defined()) return w;
  return edits(is_half(w.dtype()) ? Tensor(w.value().to(widened(w.dtype()))) : w, ctx);
}

Owned::Owned(Weight& place, std::shared_ptr<Parameter> copy)
    : place_(place.cell_), copy_(std::move(copy)) {
  place.cell_->under.push_back(place.cell_->now);
  place.cell_->now = copy_;
}

void Owned::off() {
  const auto cell = place_.lock();
  if (!cell) return;
  check(cell->now == copy_, "'{}': another copy stands in front of this one", copy_->label());
  cell->now = cell->under.back();
  cell->under.pop_back();
}

void Owned::on() {
  const auto cell = place_.lock();
  if (!cell) return;
  check(!cell->now || !cell->now->trains(), "'{}' already trains by another adapter",
        copy_->label());
  cell->under.push_back(cell->now);
  cell->now = copy_;
}

std::vector<std::shared_ptr<Parameter>> Owned::in_front() const {
  const auto cell = place_.lock();
  if (!cell) return {};
  const auto at = std::ranges::find(cell->under, copy_);
  if (at == cell->under.end()) return {};
  std::vector<std::shared_ptr<Parameter>> all(at + 1, cell->under.end());
  all.push_back(cell->now);
  return all;
}

Owned::~Owned() {
  const auto cell = place_.lock();
  if (!cell || !copy_) return;
  if (cell->now != copy_) {
    std::erase(cell->under, copy_);  // nothing where it stands aside
  } else if (!cell->under.empty()) {
    cell->now = cell->under.back();
    cell->under.pop_back();
  }
}

}  // namespace graft
