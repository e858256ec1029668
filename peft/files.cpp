#include "peft/files.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <set>

#include "nn/files/atomic.h"
#include "nn/files/safetensors.h"
#include "nn/files/strict_json.h"

namespace graft {
namespace {
namespace fs = std::filesystem;
constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kValuesFile = "adapter_model.safetensors";

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

AdapterValues read_adapter_values(const fs::path& folder) {
  const SafetensorsReader reader(folder / kValuesFile);
  AdapterValues values;
  for (const auto& [name, info] : reader.tensors()) {
    check(is_floating(info.dtype), "adapter: '{}': {} is {} in the file; need a floating type",
          folder.string(), name, name_of(info.dtype));
    Array value = Array::empty(info.shape);
    reader.read_f32(name, value);
    values[name] = std::move(value);
  }
  return values;
}

std::string not_finite(const Array& given) {
  if (kernels::all_finite(given)) return {};
  const std::vector<double> values = given.to_vector();
  const auto at = std::ranges::find_if(values, [](double x) { return !std::isfinite(x); });
  std::int64_t left = at - values.begin();
  std::vector<std::int64_t> index;
  for (int d = given.ndim() - 1; d >= 0; --d) {
    index.insert(index.begin(), left % given.dim(d));
    left /= given.dim(d);
  }
  return fmt::format("{} at [{}]", std::isnan(*at) ? "NaN" : "infinite", fmt::join(index, ", "));
}

void set_adapter_values(const AdapterValues& values, const Parameters& parameters,
                        const std::string& from) {
  std::string differences;
  std::set<std::string> used;
  for (const auto& p : parameters) {
    used.insert(p->label());
    const auto at = values.find(p->label());
    if (at == values.end())
      differences += fmt::format("\n  missing: {} {}", p->label(), p->value.shape());
    else if (at->second.shape() != p->value.shape())
      differences += fmt::format("\n  {}: the file has {}, the model needs {}", p->label(),
                                 at->second.shape(), p->value.shape());
    else if (const std::string bad = not_finite(at->second); !bad.empty())
      differences += fmt::format(
          "\n  {} {}: {}; the run that wrote it went astray or the file is damaged; train it "
          "again, "
          "at a lower rate",
          p->label(), at->second.shape(), bad);
  }
  for (const auto& [name, value] : values)
    if (!used.contains(name))
      differences += fmt::format("\n  unexpected: {} {}", name, value.shape());
  check(differences.empty(), "adapter: '{}' does not fit the model and spec:{}", from, differences);
  for (const auto& p : parameters) p->value.value().copy_from(values.at(p->label()));
}

void load_adapter_values(const fs::path& folder, const Parameters& parameters) {
  set_adapter_values(read_adapter_values(folder), parameters, folder.string());
}

}  // namespace graft
