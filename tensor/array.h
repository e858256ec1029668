// An n-dimensional array of numbers: a view (shape, strides, offset) of a block of memory.
// Copying an Array copies the view, not the numbers. It knows nothing of gradients.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/device.h"
#include "tensor/error.h"
#include "tensor/half.h"
#include "tensor/pool.h"
#include "tensor/shape.h"

namespace graft {

// On the host f16 and bf16 are for storage alone: a product's weights and a looked-up table are
// widened to f32 as they are read, and no other kernel takes them. On the device all do but for
// optimizers and projections: numbers are read and written as they are, and computed with in f32.
enum class Dtype : std::uint8_t { f32, f64, i32, f16, bf16 };
const char* name(Dtype);
std::size_t size_of(Dtype);
constexpr bool is_half(Dtype d) { return d == Dtype::f16 || d == Dtype::bf16; }
// What numbers stored so are computed in.
constexpr Dtype widened(Dtype d) { return is_half(d) ? Dtype::f32 : d; }
template <class T>
inline constexpr Dtype dtype_of = [] {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> ||
                std::is_same_v<T, std::int32_t> || std::is_same_v<T, F16> ||
                std::is_same_v<T, BF16>);
  return std::is_same_v<T, float>    ? Dtype::f32
         : std::is_same_v<T, double> ? Dtype::f64
         : std::is_same_v<T, F16>    ? Dtype::f16
         : std::is_same_v<T, BF16>   ? Dtype::bf16
                                     : Dtype::i32;
}();

// What numbers are and where they lie. An array of some other's kind: Array::empty(s, x.kind()).
struct ArrayKind {
  Dtype dtype = Dtype::f32;
  Device device = Device::cpu;
  ArrayKind() = default;
  ArrayKind(Dtype type, Device where = Device::cpu)
      : dtype(type), device(where) {}  // NOLINT: implicit
};

inline ArrayKind widened(ArrayKind k) { return {widened(k.dtype), k.device}; }

std::int64_t count(const Shape&);

class Array {
 public:
  Array() = default;  // no numbers at all; defined() is false

  static Array empty(Shape, ArrayKind = {});  // contents unspecified
  static Array zeros(Shape, ArrayKind = {});
  static Array full(Shape, double value, ArrayKind = {});
  template <class T>
  static Array of(const std::vector<T>& values, Shape shape);
  template <class T>
  static Array of(const std::vector<T>& values) {
    return of(values, {static_cast<std::int64_t>(values.size())});
  }
  // A shape without memory: what `count` and `explain` build models from. Has no data().
  static Array shape_only(Shape, Dtype = Dtype::f32);
  // Memory that belongs to someone else (a mapped file), kept alive by `owner`. Never written.
  static Array borrowed(const void* data, Shape, Dtype, std::shared_ptr<void> owner);

  bool defined() const { return defined_; }
  bool has_storage() const { return storage_ != nullptr; }
  Dtype dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device : Device::cpu; }
  ArrayKind kind() const { return {dtype_, device()}; }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }
  int ndim() const { return static_cast<int>(shape_.size()); }
  std::int64_t dim(int i) const;     // negative counts from the end; throws when out of range
  std::int64_t stride(int i) const;  // in elements
  std::int64_t numel() const { return numel_; }
  std::size_t bytes() const { return static_cast<std::size_t>(numel_) * size_of(dtype_); }
  bool contiguous() const;

  // The first element. Throws unless T is the dtype and there is storage, on the host; to write,
  // also where the memory is borrowed.
  template <class T>
  T* data();
  template <class T>
  const T* data() const;
  // The same of an array on a device, for its kernels: an address there.
  template <class T>
  T* device_data();
  template <class T>
  const T* device_data() const;
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  // Says that these numbers stay as they are, so that products may keep them as they read them
  // (packed.h). Whoever asks for data() to write takes it back for all views of the memory, and
  // what is kept goes; a pointer from before that is not to be written through any more.
  void mark_constant() const {
    if (storage_ && !storage_->constant) storage_->constant = true;
  }

  // Views of the same memory.
  Array reshape(Shape) const;  // needs a contiguous array; one -1 is inferred
  Array slice(int dim, std::int64_t begin, std::int64_t end) const;
  Array transpose(int a = -2, int b = -1) const;
  Array expand(Shape) const;  // size-1 and missing leading dimensions repeat with stride 0

  // Copies.
  Array clone() const;  // contiguous
  Array as_contiguous() const { return contiguous() ? *this : clone(); }
  Array to(Dtype) const;   // itself, if it has that type
  Array to(Device) const;  // itself, if it lies there
  Array to(ArrayKind kind) const { return to(kind.dtype).to(kind.device); }
  // A copy to compute with and to change: contiguous, half precision widened.
  Array own_copy() const;
  // Same shape; converts the dtype, and from one device to the other.
  void copy_from(const Array& source);
  void fill(double value);

  double item() const;                    // the only element
  double at(std::int64_t i) const;        // element i in row-major order
  std::vector<double> to_vector() const;  // all, in row-major order
  // FNV-1a over shape, dtype and the bytes in row-major order: equal bits, equal hash. Half
  // precision counts as the f32 it widens to: how a model is stored does not change its hash.
  std::uint64_t hash() const;

 private:
  Array(Shape, Dtype);
  template <class T>
  void check_access(Device) const;
  void copy_beyond(const Array& source);

  std::shared_ptr<Storage> storage_;
  Shape shape_, strides_;
  std::int64_t numel_ = 0, offset_ = 0;
  Dtype dtype_ = Dtype::f32;
  bool defined_ = false;
};

bool same_bits(const Array& a, const Array& b);                      // shape, dtype and every bit
Shape broadcast(const Shape& a, const Shape& b, const char* where);  // throws when they disagree

// What numbers of two types are computed in together: in half precision where one of them is, the
// other one being a master in f32. Throws for other pairs.
Dtype met(const char* where, Dtype a, Dtype b);

// Calls f with a value of the array's floating type: dispatch(x, [&]<class T>(T) {...}).
template <class F>
void dispatch(const Array& x, F&& f) {
  if (x.dtype() == Dtype::f32)
    f(float{});
  else if (x.dtype() == Dtype::f64)
    f(double{});
  else if (is_half(x.dtype()))
    fail("dispatch: {} {} is for storage; widen it with to(f32)", name(x.dtype()), x.shape());
  else
    fail("dispatch: {} is not a floating type", name(x.dtype()));
}

// The same for numbers `stored` that are read beside x or into it: f(T, S), T being x's type and S
// theirs, which is T too, or half precision where T is f32.
template <class F>
void dispatch_stored(const char* where, const Array& x, const Array& stored, F&& f) {
  check(widened(stored.dtype()) == x.dtype(), "{}: {} {} with {} {}", where, name(x.dtype()),
        x.shape(), name(stored.dtype()), stored.shape());
  if (stored.dtype() == Dtype::f16)
    f(float{}, F16{});
  else if (stored.dtype() == Dtype::bf16)
    f(float{}, BF16{});
  else
    dispatch(x, [&]<class T>(T) { f(T{}, T{}); });
}

template <class T>
void Array::check_access(Device where) const {
  check(storage_ != nullptr, "array: {} has a shape but no storage", shape_);
  check(storage_->device == where, "array: {} lies on {}, read on {}; copy it with to()", shape_,
        name(storage_->device), name(where));
  check(dtype_ == dtype_of<T>, "array: holds {}, read as {}", name(dtype_), name(dtype_of<T>));
}
template <class T>
T* Array::data() {
  check_access<T>(Device::cpu);
  check(!storage_->keepalive, "array: {} {} lies in a mapped file, which is not written; copy it",
        name(dtype_), shape_);
  if (storage_->constant) storage_->end_constant();
  return reinterpret_cast<T*>(storage_->data) + offset_;
}
template <class T>
const T* Array::data() const {
  check_access<T>(Device::cpu);
  return reinterpret_cast<const T*>(storage_->data) + offset_;
}
template <class T>
T* Array::device_data() {
  check_access<T>(Device::cuda);
  return reinterpret_cast<T*>(storage_->data) + offset_;
}
template <class T>
const T* Array::device_data() const {
  check_access<T>(Device::cuda);
  return reinterpret_cast<const T*>(storage_->data) + offset_;
}
template <class T>
Array Array::of(const std::vector<T>& values, Shape shape) {
  Array a = empty(std::move(shape), dtype_of<T>);
  check(a.numel() == static_cast<std::int64_t>(values.size()), "array: {} values for shape {}",
        values.size(), a.shape());
  std::copy(values.begin(), values.end(), a.data<T>());
  return a;
}

}  // namespace graft
