#include "tensor/array.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/cuda/runtime.h"
#include "tensor/hash.h"
#include "tensor/parallel.h"

namespace graft {
namespace {

Shape row_major(const Shape& shape) {
  Shape strides(shape.size());
  std::int64_t step = 1;
  for (int i = static_cast<int>(shape.size()) - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

// Calls f(offset) for every element in row-major order; offset is in elements.
template <class F>
void each_offset(const Shape& shape, const Shape& strides, F&& f) {
  const int n = static_cast<int>(shape.size());
  if (count(shape) == 0) return;
  Shape index(n, 0);
  std::int64_t offset = 0;
  while (true) {
    f(offset);
    int d = n - 1;
    for (; d >= 0; --d) {
      offset += strides[d];
      if (++index[d] < shape[d]) break;
      offset -= strides[d] * shape[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

template <class F>
void any_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f32:
      f(float{});
      return;
    case Dtype::f64:
      f(double{});
      return;
    case Dtype::i32:
      f(std::int32_t{});
      return;
    case Dtype::f16:
      f(F16{});
      return;
    case Dtype::bf16:
      f(BF16{});
      return;
  }
}

}  // namespace

const char* name(Dtype dtype) {
  static constexpr const char* kNames[] = {"f32", "f64", "i32", "f16", "bf16"};
  return kNames[static_cast<int>(dtype)];
}
const char* name(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }
Device device_named(const std::string& given) {
  check(given == "cpu" || given == "cuda", "device '{}': there are cpu and cuda", given);
  if (given == "cpu") return Device::cpu;
  const std::string why = cuda::unusable();
  check(why.empty(), "device cuda: {}", why);
  return Device::cuda;
}
std::size_t size_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : is_half(dtype) ? 2 : 4; }

Dtype met(const char* where, Dtype a, Dtype b) {
  if (a == b) return a;
  check((is_half(a) && b == Dtype::f32) || (is_half(b) && a == Dtype::f32), "{}: {} with {}", where,
        name(a), name(b));
  return is_half(a) ? a : b;
}

std::int64_t count(const Shape& shape) {
  std::int64_t n = 1;
  for (std::int64_t d : shape) n *= d;
  return n;
}

Array::Array(Shape shape, Dtype dtype) : shape_(std::move(shape)), dtype_(dtype), defined_(true) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (std::int64_t d : shape_) {
    check(d >= 0, "array: negative size in shape {}", shape_);
    // A size of 0 does not excuse the others: strides are products, too.
    check(!__builtin_mul_overflow(bytes, std::max<std::int64_t>(d, 1), &bytes),
          "array: shape {} overflows", shape_);
  }
  strides_ = row_major(shape_);
  numel_ = count(shape_);
}

Array Array::empty(Shape shape, ArrayKind kind) {
  Array a(std::move(shape), kind.dtype);
  a.storage_ = pool::allocate(a.bytes(), kind.device);
  return a;
}

Array Array::zeros(Shape shape, ArrayKind kind) {
  Array a = empty(std::move(shape), kind);
  a.fill(0);
  return a;
}

Array Array::full(Shape shape, double value, ArrayKind kind) {
  Array a = empty(std::move(shape), kind);
  a.fill(value);
  return a;
}

Array Array::shape_only(Shape shape, Dtype dtype) { return Array(std::move(shape), dtype); }

Array Array::borrowed(const void* data, Shape shape, Dtype dtype, std::shared_ptr<void> owner) {
  Array a(std::move(shape), dtype);
  a.storage_ = std::make_shared<Storage>();
  a.storage_->data = static_cast<std::byte*>(const_cast<void*>(data));
  a.storage_->bytes = a.bytes();
  a.storage_->keepalive = std::move(owner);
  return a;
}

std::int64_t Array::dim(int i) const {
  const int at = i < 0 ? i + ndim() : i;
  check(at >= 0 && at < ndim(), "array: no dimension {} in shape {}", i, shape_);
  return shape_[at];
}

std::int64_t Array::stride(int i) const {
  const int at = i < 0 ? i + ndim() : i;
  check(at >= 0 && at < ndim(), "array: no dimension {} in shape {}", i, shape_);
  return strides_[at];
}

bool Array::contiguous() const {
  std::int64_t step = 1;
  for (int i = ndim() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return numel_ == 0;
    step *= shape_[i];
  }
  return true;
}

Array Array::reshape(Shape shape) const {
  check(contiguous(), "reshape: {} with strides {} is not contiguous", shape_, strides_);
  std::int64_t known = 1;
  int infer = -1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] >= 0)
      known *= shape[i];
    else
      infer = static_cast<int>(i);
  }
  if (infer >= 0) shape[infer] = known ? numel_ / known : 0;
  check(count(shape) == numel_, "reshape: {} does not fit into {}", shape_, shape);
  Array a = *this;
  a.shape_ = std::move(shape);
  a.strides_ = row_major(a.shape_);
  return a;
}

Array Array::slice(int d, std::int64_t begin, std::int64_t end) const {
  if (d < 0) d += ndim();
  check(0 <= d && d < ndim(), "slice: no dimension {} in {}", d, shape_);
  check(0 <= begin && begin <= end && end <= dim(d), "slice: [{}, {}) of dimension {} in {}", begin,
        end, d, shape_);
  Array a = *this;
  a.shape_[d] = end - begin;
  a.numel_ = count(a.shape_);
  a.offset_ += a.numel_ ? begin * strides_[d] : 0;  // nothing lies nowhere
  return a;
}

Array Array::transpose(int a, int b) const {
  if (a < 0) a += ndim();
  if (b < 0) b += ndim();
  check(a >= 0 && b >= 0 && a < ndim() && b < ndim(), "transpose: ({}, {}) of {}", a, b, shape_);
  Array t = *this;
  std::swap(t.shape_[a], t.shape_[b]);
  std::swap(t.strides_[a], t.strides_[b]);
  return t;
}

Array Array::expand(Shape shape) const {
  const int extra = static_cast<int>(shape.size()) - ndim();
  check(extra >= 0, "expand: {} to {}", shape_, shape);
  Array a = *this;
  a.strides_ = Shape(shape.size());
  for (int i = 0; i < ndim(); ++i) {
    check(shape_[i] == shape[i + extra] || shape_[i] == 1, "expand: {} to {}", shape_, shape);
    a.strides_[i + extra] = shape_[i] == 1 ? 0 : strides_[i];
  }
  a.shape_ = std::move(shape);
  a.numel_ = count(a.shape_);
  return a;
}

Array Array::clone() const {
  Array a = empty(shape_, kind());
  a.copy_from(*this);
  return a;
}

Array Array::to(Dtype dtype) const {
  if (dtype == dtype_) return *this;
  if (!storage_) return shape_only(shape_, dtype);
  Array a = empty(shape_, {dtype, device()});
  a.copy_from(*this);
  return a;
}

Array Array::to(Device where) const {
  if (!storage_ || where == device()) return *this;
  Array a = empty(shape_, {dtype_, where});
  a.copy_from(*this);
  return a;
}

Array Array::own_copy() const {
  if (!storage_) return shape_only(shape_, widened(dtype_));
  return is_half(dtype_) ? to(Dtype::f32) : clone();
}

// Where one of the two lies on a device. Numbers cross over in one piece and in their own type; the
// rest is done on the device.
void Array::copy_beyond(const Array& source) {
  const bool to_device = device() == Device::cuda;
  if (to_device && source.device() == Device::cuda) return cuda::copy(*this, source);
  const bool plain = dtype_ == source.dtype_ && contiguous() && source.contiguous();
  if (!plain && to_device) return cuda::copy(*this, source.as_contiguous().to(Device::cuda));
  if (!plain) return copy_from(source.as_contiguous().to(Device::cpu));
  const std::size_t skip = size_of(dtype_);
  std::byte* const to = storage_->data + offset_ * skip;
  const std::byte* const from = source.storage_->data + source.offset_ * skip;
  if (to_device)
    cuda::copy_to_device(to, from, bytes());
  else
    cuda::copy_to_host(to, from, bytes());
}

void Array::copy_from(const Array& source) {
  check(shape_ == source.shape_, "copy: {} into {}", source.shape_, shape_);
  if (numel_ == 0) return;
  if (device() != Device::cpu || source.device() != Device::cpu) return copy_beyond(source);
  if (dtype_ == source.dtype_ && contiguous() && source.contiguous()) {
    any_dtype(dtype_, [&]<class T>(T) { std::memcpy(data<T>(), source.data<T>(), bytes()); });
    return;
  }
  const std::int64_t n = shape_.empty() ? 1 : shape_.back(), rows = numel_ / n;
  const std::int64_t step = shape_.empty() ? 1 : strides_.back();
  const std::int64_t source_step = shape_.empty() ? 1 : source.strides_.back();
  any_dtype(dtype_, [&]<class T>(T) {
    any_dtype(source.dtype_, [&]<class S>(S) {
      T* const to = data<T>();
      const S* const from = source.data<S>();
      parallel_for(rows, 16384 / n, [&](std::int64_t row) {
        T* out = to;
        const S* in = from;
        for (int d = ndim() - 2; d >= 0; --d) {
          out += row % shape_[d] * strides_[d];
          in += row % shape_[d] * source.strides_[d];
          row /= shape_[d];
        }
        if (step != 1 || source_step != 1)
          for (std::int64_t i = 0; i < n; ++i) out[i * step] = static_cast<T>(in[i * source_step]);
        else if constexpr (std::is_same_v<T, S>)
          std::memcpy(out, in, n * sizeof(T));
        else
          for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(in[i]);
      });
    });
  });
}

void Array::fill(double value) {
  if (numel_ == 0) return;
  const bool all_bits_0 = value == 0 && !std::signbit(value) && contiguous();
  if (device() == Device::cuda) {
    if (!all_bits_0) return cuda::fill(*this, value);
    cuda::fill_bytes(storage_->data + offset_ * size_of(dtype_), 0, bytes());
    return;
  }
  if (all_bits_0) {
    any_dtype(dtype_, [&]<class T>(T) { std::memset(data<T>(), 0, bytes()); });
    return;
  }
  any_dtype(dtype_, [&]<class T>(T) {
    T* out = data<T>();
    each_offset(shape_, strides_, [&](std::int64_t o) { out[o] = static_cast<T>(value); });
  });
}

double Array::item() const {
  check(numel_ == 1, "item: {} has {} elements, not one", shape_, numel_);
  return at(0);
}

double Array::at(std::int64_t i) const {
  check(0 <= i && i < numel_, "at: element {} of {}", i, shape_);
  if (device() != Device::cpu) return to(Device::cpu).at(i);
  std::int64_t offset = 0;
  for (int d = ndim() - 1; d >= 0; --d) {
    offset += i % shape_[d] * strides_[d];
    i /= shape_[d];
  }
  double value = 0;
  any_dtype(dtype_, [&]<class T>(T) { value = static_cast<double>(data<T>()[offset]); });
  return value;
}

std::vector<double> Array::to_vector() const {
  if (device() != Device::cpu) return to(Device::cpu).to_vector();
  std::vector<double> values;
  values.reserve(numel_);
  any_dtype(dtype_, [&]<class T>(T) {
    const T* in = data<T>();
    each_offset(shape_, strides_,
                [&](std::int64_t o) { values.push_back(static_cast<double>(in[o])); });
  });
  return values;
}

std::uint64_t Array::hash() const {
  Hash h;
  if (device() != Device::cpu) return to(Device::cpu).hash();
  const Dtype as = widened(dtype_);
  h.bytes(shape_.data(), shape_.size() * sizeof(std::int64_t));
  h.bytes(&as, 1);
  if (numel_ == 0) return h.value();
  // In pieces: a matrix of half the memory's size is not to be copied whole.
  const Array rows = shape_.empty() ? reshape({1}) : *this;
  const std::int64_t n = rows.shape_[0], step = std::max<std::int64_t>(1, (1 << 20) * n / numel_);
  for (std::int64_t begin = 0; begin < n; begin += step) {
    const Array part = rows.slice(0, begin, std::min(n, begin + step)).to(as).as_contiguous();
    any_dtype(as, [&]<class T>(T) { h.bytes(part.data<T>(), part.bytes()); });
  }
  return h.value();
}

bool same_bits(const Array& a, const Array& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Array x = a.to(Device::cpu).as_contiguous(), y = b.to(Device::cpu).as_contiguous();
  bool same = true;
  any_dtype(a.dtype(), [&]<class T>(T) {
    same = x.numel() == 0 || std::memcmp(x.data<T>(), y.data<T>(), x.bytes()) == 0;
  });
  return same;
}

Shape broadcast(const Shape& a, const Shape& b, const char* where) {
  const std::size_t n = std::max(a.size(), b.size());
  Shape out(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t x = i + a.size() < n ? 1 : a[i + a.size() - n];
    const std::int64_t y = i + b.size() < n ? 1 : b[i + b.size() - n];
    check(x == y || x == 1 || y == 1, "{}: shapes {} and {} do not broadcast", where, a, b);
    out[i] = x == 1 ? y : x;
  }
  return out;
}

}  // namespace graft
