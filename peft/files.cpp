#include "peft/files.h"

#include <algorithm>
#include <climits>

#include "nn/files/atomic.h"
#include "nn/files/safetensors.h"
#include "nn/files/strict_json.h"

namespace graft {
namespace {
namespace fs = std::filesystem;
constexpr const char* kConfigFile = "adapter_config.json";

using nlohmann::json;

bool is_text_list(const json& value) {
  return value.is_array() &&
         std::ranges::all_of(value, [](const json& item) { return item.is_string(); });
}

// What stands beside the spec: which keys must be there is for their readers to say.
void check_kinds(const std::string& file, const json& more) {
  const auto is = [&](const char* key, auto kind, const char* needed) {
    const auto at = more.find(key);
    check(at == more.end() || kind(*at), "adapter: '{}': {} is {}; need {}", file, key,
          at == more.end() ? "" : at->dump(), needed);
  };
  for (const char* key : {"model", "task", "task_folder", "base_hash", "head", "pool"})
    is(
        key, [](const json& value) { return value.is_string(); }, "a text");
  for (const char* key : {"language", "joined"})
    is(
        key, [](const json& value) { return value.is_boolean(); }, "true or false");
  is("labels", is_text_list, "a list of texts");
  is(
      "max_tokens",
      [](const json& value) {
        return value.is_number_unsigned() && value.get<std::uint64_t>() <= INT_MAX;
      },
      "a number of tokens");
}

}  // namespace

void save_adapter(const fs::path& folder, const std::string& spec, const Parameters& trained,
                  const nlohmann::json& more) {
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error, "adapter: cannot make folder '{}': {}", folder.string(), error.message());
  SafetensorsWriter writer;
  for (const auto& p : trained)
    writer.add(p->label(), p->value.value().to(Dtype::f32).as_contiguous());
  writer.write(folder / kValuesFile);
  const nlohmann::json config{{"format", "graft-adapter-1"},
                              {"spec", spec},
                              {"more", more.is_null() ? json::object() : more}};
  write_file_atomically(folder / kConfigFile, config.dump(2) + "\n");
}

AdapterFile read_adapter_config(const fs::path& folder) {
  const std::string file = (folder / kConfigFile).string();
  const json config = parse_strict(file, read_file(folder / kConfigFile));
  check(config.is_object() && config.contains("format") && config["format"] == "graft-adapter-1",
        "adapter: '{}' is not an adapter_config.json of this program", file);
  check(config.contains("spec") && config["spec"].is_string() && config.contains("more") &&
            config["more"].is_object(),
        "adapter: '{}' lacks 'spec' or 'more'", file);
  check_kinds(file, config["more"]);
  return {config["spec"], config["more"]};
}

}  // namespace graft
