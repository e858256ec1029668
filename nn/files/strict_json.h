// JSON that may come from anywhere, read so that none of it is overlooked.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace graft {

// Parses text; `name` is what messages call it. Throws Error for what is not JSON, a key that an
// object has twice (the library would keep one of the two without a word), and objects and arrays
// nested `deepest` or more deep, at which a recursive reader could fall.
nlohmann::json parse_strict(const std::string& name, std::string_view text, int deepest = 64);

// The same with the keys in the file's order. An object may have 10,000 keys at most, since the
// library searches all of them for each that it adds.
nlohmann::ordered_json parse_strict_ordered(const std::string& name, std::string_view text);

}  // namespace graft
