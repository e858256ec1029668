// What the tests of tokenizers share: the fixtures of tests/fixtures/tokenizer/kinds.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "nn/files/atomic.h"

namespace graft::testing::kinds {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(__FILE__).parent_path() / "../fixtures/tokenizer/kinds" / name;
}

inline nlohmann::json fixture_json(const std::string& name) {
  return nlohmann::json::parse(read_file(fixture(name)));
}

}  // namespace graft::testing::kinds
