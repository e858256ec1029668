// An n-dimensional array of numbers: a view (shape, strides, offset) of a block of memory.
// Copying an Array copies the view, not the numbers. It knows nothing of gradients.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/pool.h"

namespace graft {

enum class Dtype : std::uint8_t { f32, f64, i32 };
const char* name(Dtype);
std::size_t size_of(Dtype);
template <class T>
inline constexpr Dtype dtype_of = [] {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> ||
                std::is_same_v<T, std::int32_t>);
  return std::is_same_v<T, float>    ? Dtype::f32
         : std::is_same_v<T, double> ? Dtype::f64
                                     : Dtype::i32;
}();

using Shape = std::vector<std::int64_t>;
std::int64_t count(const Shape&);

class Array {
 public:
  Array() = default;  // no numbers at all; defined() is false

  static Array empty(Shape, Dtype = Dtype::f32);  // contents unspecified
  static Array zeros(Shape, Dtype = Dtype::f32);
  static Array full(Shape, double value, Dtype = Dtype::f32);
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
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }
  int ndim() const { return static_cast<int>(shape_.size()); }
  std::int64_t dim(int i) const;     // negative counts from the end; throws when out of range
  std::int64_t stride(int i) const;  // in elements
  std::int64_t numel() const { return numel_; }
  std::size_t bytes() const { return static_cast<std::size_t>(numel_) * size_of(dtype_); }
  bool contiguous() const;

  // The first element. Throws unless T is the dtype and there is storage.
  template <class T>
  T* data();
  template <class T>
  const T* data() const;
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  // Views of the same memory.
  Array reshape(Shape) const;  // needs a contiguous array; one -1 is inferred
  Array slice(int dim, std::int64_t begin, std::int64_t end) const;
  Array transpose(int a = -2, int b = -1) const;
  Array expand(Shape) const;  // size-1 and missing leading dimensions repeat with stride 0

  // Copies.
  Array clone() const;  // contiguous
  Array as_contiguous() const { return contiguous() ? *this : clone(); }
  Array to(Dtype) const;
  void copy_from(const Array& source);  // same shape; converts the dtype
  void fill(double value);

  double item() const;                    // the only element
  double at(std::int64_t i) const;        // element i in row-major order
  std::vector<double> to_vector() const;  // all, in row-major order
  // FNV-1a over shape, dtype and the bytes in row-major order: equal bits, equal hash.
  std::uint64_t hash() const;

 private:
  Array(Shape, Dtype);
  template <class T>
  void check_access() const;

  std::shared_ptr<Storage> storage_;
  Shape shape_, strides_;
  std::int64_t numel_ = 0, offset_ = 0;
  Dtype dtype_ = Dtype::f32;
  bool defined_ = false;
};

bool same_bits(const Array& a, const Array& b);                      // shape, dtype and every bit
Shape broadcast(const Shape& a, const Shape& b, const char* where);  // throws when they disagree

// Calls f with a value of the array's floating type: dispatch(x, [&]<class T>(T) {...}).
template <class F>
void dispatch(const Array& x, F&& f) {
  if (x.dtype() == Dtype::f32)
    f(float{});
  else if (x.dtype() == Dtype::f64)
    f(double{});
  else
    fail("dispatch: {} is not a floating type", name(x.dtype()));
}

template <class T>
void Array::check_access() const {
  check(storage_ != nullptr, "array: {} has a shape but no storage", shape_);
  check(dtype_ == dtype_of<T>, "array: holds {}, read as {}", name(dtype_), name(dtype_of<T>));
}
template <class T>
T* Array::data() {
  check_access<T>();
  return reinterpret_cast<T*>(storage_->data) + offset_;
}
template <class T>
const T* Array::data() const {
  check_access<T>();
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
