// How work is handed to the device: at once, or, within gathered() (runtime.h), noted first.
// Included by .cu files only.
//
// A command is a function and the bytes that it is given: the kernel's address, its grid and its
// arguments, say. Two lists of commands whose bytes are the same do the same work, on the same
// memory; so whether a list may be replaced by a graph that was made of an earlier one is not for
// anyone to promise: it is compared. What differs from step to step must be copied to the device
// and not be an argument (upload.h), and its place in memory be the same again (pool::settle).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace graft::cuda {

// Starts a command: what it was given, and the contents of the list's copies to the device.
using Start = void (*)(const std::byte* given, const std::byte* copied);

bool noting();
// Room for what the command is given, all bits 0, until the next call. Only while noting().
std::byte* note(Start, std::size_t bytes);
// Keeps the bytes for a copy to the device; where they lie among the list's.
std::size_t keep_copied(const void* from, std::size_t bytes);

// Whether every bit of a T is part of its value. What lies between the members of a struct is
// whatever lay in memory, and two that are equal would not look it. A type of which the library
// cannot tell, because it holds floating-point numbers, says so itself: kWhole.
template <class T>
constexpr bool whole() {
  if constexpr (std::is_class_v<T> && !std::is_empty_v<T>) {
    if constexpr (requires { T::kWhole; }) return T::kWhole;
    return std::has_unique_object_representations_v<T>;
  }
  return true;
}

// Hands over what has been noted: what wants its results calls this first.
void start_noted();
void has_waited();  // all that was handed over is done

// Where values of these types lie, one after another, with nothing but zeros between them.
template <class... T>
struct Packed {
  static_assert((std::is_trivially_copyable_v<T> && ...));
  static_assert((whole<T>() && ...), "a member is missing where the struct has a gap");
  static constexpr std::array<std::size_t, sizeof...(T) + 1> kAt = [] {
    std::array<std::size_t, sizeof...(T) + 1> at{};
    std::size_t i = 0, next = 0;
    ((next = (next + alignof(T) - 1) / alignof(T) * alignof(T), at[i++] = next, next += sizeof(T)),
     ...);
    at[i] = next;
    return at;
  }();
  static constexpr std::size_t kBytes = kAt.back();

  static void write(std::byte* to, const T&... values) {
    std::size_t i = 0;
    ((new (to + kAt[i++]) T(values)), ...);
  }
  // f(const T*...).
  template <class F>
  static void read(const std::byte* from, F&& f) {
    [&]<std::size_t... i>(std::index_sequence<i...>) {
      f(reinterpret_cast<const T*>(from + kAt[i])...);
    }
    (std::index_sequence_for<T...>{});
  }
};

// Does call(values...) now, or notes it. `call` has no state of its own.
template <class Call, class... T>
void command(Call call, const T&... values) {
  static_assert(std::is_empty_v<Call>);
  if (!noting()) return call(values...);
  using All = Packed<T...>;
  const Start start = [](const std::byte* given, const std::byte*) {
    All::read(given, [](const T*... each) { Call{}(*each...); });
  };
  All::write(note(start, All::kBytes), values...);
}

}  // namespace graft::cuda
