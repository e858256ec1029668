// Reading a JSON file from elsewhere without overlooking any of it: every key of an object must be
// asked for, and a message names the file and the key.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "nn/files/strict_json.h"

namespace graft {

using Json = nlohmann::ordered_json;

// One object of the file and the name it goes by in messages; every key must be asked for before
// done(). A key that is null counts as absent.
class Entry {
 public:
  Entry(std::string name, const nlohmann::json& value);

  const nlohmann::json* find(const std::string& key);
  const nlohmann::json& at(const std::string& key);
  bool flag(const std::string& key, bool otherwise);
  std::string text(const std::string& key);  // must be there
  std::string text(const std::string& key, const std::string& otherwise);
  // A whole number of 0..most; must be there.
  std::size_t count(const std::string& key, std::size_t most);
  const nlohmann::json& array(const std::string& key);
  Entry inner(const std::string& key) { return Entry(inside(key), at(key)); }
  void need_null(const std::string& key);
  void need(const std::string& key, const nlohmann::json& value, const nlohmann::json& otherwise);
  std::string inside(const std::string& key) const { return name_ + ": " + key; }
  std::string type() { return text("type"); }
  const std::string& name() const { return name_; }
  void done() const;

 private:
  std::string name_;
  const nlohmann::json& value_;
  std::set<std::string> asked_;
};

// A value as messages show it.
std::string shown(const nlohmann::json& value);

// The type that an object of tokenizer.json names; throws Error where it has none.
std::string type_of(const std::string& name, const nlohmann::json& value);

}  // namespace graft
