// Text files line by line, as any system writes them.
#pragma once

#include <istream>
#include <string>
#include <string_view>

namespace graft {

// What Windows programs begin a UTF-8 file with; it is no part of the text.
inline constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// Lines without their ends, Windows' too; the first without a byte order mark.
class Lines {
 public:
  explicit Lines(std::istream& in) : in_(in) {}
  bool next(std::string& line) {
    if (!std::getline(in_, line)) return false;
    if (line.ends_with('\r')) line.pop_back();
    if (++number_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
    return true;
  }
  int number() const { return number_; }  // of the last line, from 1

 private:
  std::istream& in_;
  int number_ = 0;
};

}  // namespace graft
