#include "nn/files/strict_json.h"

#include <set>
#include <vector>

#include "tensor/error.h"

namespace graft {

namespace {

template <class Json>
Json parse(const std::string& name, std::string_view text, int deepest, std::size_t most_keys) {
  // The library takes a zero byte for the end and would leave what follows unread.
  const std::size_t zero = text.find('\0');
  check(zero == std::string_view::npos, "{}: not JSON: byte {} is zero", name, zero);
  check(!text.starts_with("version https://git-lfs"),
        "{}: this is a Git LFS pointer, not the file itself; run git lfs pull in its folder", name);
  std::vector<std::set<std::string>> open;
  const auto watch = [&](int depth, typename Json::parse_event_t event, Json& value) {
    using Event = typename Json::parse_event_t;
    check(depth < deepest, "{}: objects and arrays are nested {} deep", name, deepest);
    if (event == Event::object_start) open.emplace_back();
    if (event == Event::object_end) open.pop_back();
    if (event == Event::key) {
      const auto& key = value.template get_ref<const std::string&>();
      check(open.back().insert(key).second, "{}: key '{}' is there twice", name, key);
      check(open.back().size() <= most_keys, "{}: an object has more than {} keys", name,
            most_keys);
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const typename Json::exception& error) {
    fail("{}: not JSON: {}", name, error.what());
  }
}

}  // namespace

nlohmann::json parse_strict(const std::string& name, std::string_view text, int deepest) {
  return parse<nlohmann::json>(name, text, deepest, text.size());
}

nlohmann::ordered_json parse_strict_ordered(const std::string& name, std::string_view text) {
  return parse<nlohmann::ordered_json>(name, text, 64, 10'000);
}

}  // namespace graft
