// The one way this project reports bad input: where, what was given, what is needed, a hint.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace graft {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws Error with a message made fit to print, since what a file holds may stand in it: control
// characters but tabs and line breaks, and bytes that are not UTF-8, become \x1b and the like, and
// of a very long message the middle is left out.
[[noreturn]] void throw_error(std::string message);

// Throws Error with a formatted message, e.g. fail("lora: r is {}; need 1..{}", r, most).
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw_error(fmt::format(format, std::forward<Args>(args)...));
}

// fail() unless `ok`. The message is only built when it is thrown.
template <class... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]]
    fail(format, std::forward<Args>(args)...);
}

}  // namespace graft
