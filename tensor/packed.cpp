#include "tensor/packed.h"

#include <cstdlib>
#include <mutex>

namespace graft {

struct PackedForms {
  // One for each view of the storage that products ask for.
  struct Form {
    const void* first;  // the view's first number
    Shape shape, strides;
    Array panels;  // undefined until the second product
  };
  std::vector<Form> all;
  ~PackedForms();
};

namespace packed {
namespace {

std::mutex mutex;  // of every storage's forms
std::atomic<std::size_t> kept = 0;

std::size_t limit_of_environment() {
  const char* text = std::getenv("GRAFT_PACKED_MB");
  if (!text) return std::size_t{256} << 20;
  char* end = nullptr;
  const unsigned long long megabytes = std::strtoull(text, &end, 10);
  check(*text >= '0' && *text <= '9' && *end == 0 && megabytes < (1ull << 32),
        "GRAFT_PACKED_MB={}: need a number of megabytes; 0 keeps nothing packed", text);
  return static_cast<std::size_t>(megabytes) << 20;
}

std::atomic<std::size_t>& the_limit() {
  static std::atomic<std::size_t> limit = limit_of_environment();
  return limit;
}

const void* first_of(const Array& b) {
  if (b.dtype() == Dtype::f16) return b.data<F16>();
  if (b.dtype() == Dtype::bf16) return b.data<BF16>();
  return b.data<float>();
}

}  // namespace

std::size_t limit() { return the_limit(); }
void set_limit(std::size_t bytes) { the_limit() = bytes; }
std::size_t bytes() { return kept; }

Array form_of(const Array& b, std::int64_t numbers, const std::function<void(float*)>& fill) {
  Storage& storage = *b.storage();
  if (!storage.constant) return {};
  const std::lock_guard lock(mutex);
  if (!storage.packed) storage.packed = std::make_shared<PackedForms>();
  const void* const first = first_of(b);
  for (PackedForms::Form& form : storage.packed->all) {
    if (form.first != first || form.shape != b.shape() || form.strides != b.strides()) continue;
    if (form.panels.defined() || kept + numbers * sizeof(float) > limit()) return form.panels;
    const pool::Purpose purpose("packed weights");
    Array panels = Array::empty({numbers});
    fill(panels.data<float>());
    kept += panels.bytes();
    return form.panels = panels;
  }
  storage.packed->all.push_back({first, b.shape(), b.strides(), {}});
  return {};
}

}  // namespace packed

PackedForms::~PackedForms() {
  for (const Form& form : all)
    if (form.panels.defined()) packed::kept -= form.panels.bytes();
}

void Storage::end_constant() {
  std::shared_ptr<PackedForms> dropped;  // without the lock
  const std::lock_guard lock(packed::mutex);
  dropped = std::move(packed);
  constant = false;
}

}  // namespace graft
