#include "peft/values.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "nn/files/safetensors.h"

namespace graft {

AdapterValues read_adapter_values(const std::filesystem::path& folder) {
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

void load_adapter_values(const std::filesystem::path& folder, const Parameters& parameters) {
  set_adapter_values(read_adapter_values(folder), parameters, folder.string());
}

}  // namespace graft
