#include "nn/text/json_entry.h"

#include <cstdint>

#include "tensor/error.h"

namespace graft {

using nlohmann::json;

namespace {
constexpr std::size_t kShown = 80;
}  // namespace

std::string shown(const json& value) {
  if (value.is_object() && value.contains("type")) return value["type"].dump();
  if (value.is_structured()) return value.type_name();
  const std::string text = value.dump();
  return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
}

std::string type_of(const std::string& name, const json& value) {
  return Entry(name, value).type();
}

Entry::Entry(std::string name, const json& value) : name_(std::move(name)), value_(value) {
  check(value.is_object(), "{} is {}; need an object", name_, shown(value));
}

const json* Entry::find(const std::string& key) {
  asked_.insert(key);
  const auto at = value_.find(key);
  return at == value_.end() || at->is_null() ? nullptr : &*at;
}

const json& Entry::at(const std::string& key) {
  const json* found = find(key);
  check(found != nullptr, "{} has no {}", name_, key);
  return *found;
}

bool Entry::flag(const std::string& key, bool otherwise) {
  const json* found = find(key);
  check(found == nullptr || found->is_boolean(), "{}: {} is not true or false", name_, key);
  return found == nullptr ? otherwise : found->get<bool>();
}

std::string Entry::text(const std::string& key) {
  const json& found = at(key);
  check(found.is_string(), "{}: {} is {}; need a string", name_, key, shown(found));
  return found.get<std::string>();
}

std::string Entry::text(const std::string& key, const std::string& otherwise) {
  return find(key) == nullptr ? otherwise : text(key);
}

std::size_t Entry::count(const std::string& key, std::size_t most) {
  const json& found = at(key);
  check(found.is_number_unsigned() && found.get<std::uint64_t>() <= most,
        "{}: {} is {}; need 0..{}", name_, key, shown(found), most);
  return found.get<std::size_t>();
}

const json& Entry::array(const std::string& key) {
  const json& found = at(key);
  check(found.is_array(), "{} is not an array", inside(key));
  return found;
}

void Entry::need_null(const std::string& key) {
  const json* found = find(key);
  check(found == nullptr, "{}: {} is {}; this version reads only null", name_, key,
        found == nullptr ? "" : shown(*found));
}

void Entry::need(const std::string& key, const json& value, const json& otherwise) {
  const json* found = find(key);
  check((found == nullptr ? otherwise : *found) == value,
        "{}: {} is {}; this version reads only {}", name_, key,
        found == nullptr ? "absent" : shown(*found), value.dump());
}

void Entry::done() const {
  for (const auto& item : value_.items())
    check(asked_.contains(item.key()), "{}: unknown key {}", name_, item.key());
}

}  // namespace graft
