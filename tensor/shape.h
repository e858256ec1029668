// The sizes of an array, or its strides: a short list of numbers that lies where it is declared.
// Arrays are copied at every step of a graph; with shapes and strides in vectors each copy
// allocated twice.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <vector>

#include "tensor/error.h"

namespace graft {

class Shape {
 public:
  static constexpr std::size_t kMost = 8;  // dimensions
  using value_type = std::int64_t;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(sizes.begin(), sizes.end()) {}
  // Throws where there are more than kMost: a file may say anything.
  Shape(const std::vector<std::int64_t>& sizes)  // NOLINT: implicit
      : Shape(sizes.begin(), sizes.end()) {}
  explicit Shape(std::size_t n, std::int64_t value = 0) : size_(fitting(n)) {
    std::fill_n(values_, n, value);
  }
  template <std::forward_iterator It>
  Shape(It first, It last) : size_(fitting(static_cast<std::size_t>(std::distance(first, last)))) {
    std::copy(first, last, values_);
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Throws beyond the end: what lies there is the array's own, and no sanitizer would see it.
  std::int64_t& operator[](std::size_t i) { return values_[within(i)]; }
  std::int64_t operator[](std::size_t i) const { return values_[within(i)]; }
  std::int64_t* begin() { return values_; }
  std::int64_t* end() { return values_ + size_; }
  const std::int64_t* begin() const { return values_; }
  const std::int64_t* end() const { return values_ + size_; }
  std::int64_t& front() { return (*this)[0]; }
  std::int64_t front() const { return (*this)[0]; }
  std::int64_t& back() { return (*this)[size_ - 1]; }
  std::int64_t back() const { return (*this)[size_ - 1]; }
  std::int64_t* data() { return values_; }
  const std::int64_t* data() const { return values_; }
  void push_back(std::int64_t value) {
    size_ = fitting(size_ + 1);
    back() = value;
  }
  void erase(std::int64_t* at) {
    std::copy(at + 1, end(), at);
    --size_;
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  std::size_t within(std::size_t i) const {
    check(i < size_, "shape: no dimension {} of {}", i, size_);
    return i;
  }
  static std::size_t fitting(std::size_t n) {
    check(n <= kMost, "shape: {} dimensions; there are at most {}", n, kMost);
    return n;
  }
  std::int64_t values_[kMost] = {};
  std::size_t size_ = 0;
};

}  // namespace graft
