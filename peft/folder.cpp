#include "peft/folder.h"

#include "peft/files.h"

namespace graft {

void save_adapter(const std::filesystem::path& folder, const Adaptation& adaptation,
                  const std::string& base, std::uint64_t base_hash) {
  // What commands ask of a folder even if the adapter has no head: a standard one, without labels.
  save_adapter(folder, adaptation.spec(), adaptation.stored(),
               {{"model", base},
                {"base_hash", fmt::format("{:016x}", base_hash)},
                {"head", "linear"},
                {"pool", "mean"},
                {"labels", nlohmann::json::array()},
                {"language", true},
                {"text", false},
                {"joined", true}});
}

std::unique_ptr<Adaptation> load_adapter(const std::filesystem::path& folder,
                                         const Methods& methods, Model& base) {
  const AdapterFile file = read_adapter_config(folder);
  check(file.more.contains("base_hash"), "adapter: '{}' lacks 'base_hash' in its configuration",
        folder.string());
  check(file.more.at("base_hash") == fmt::format("{:016x}", base.hash()),
        "adapter: '{}' was trained on a base with other weights than this one, '{}'",
        folder.string(), file.more.value("model", ""));
  auto adaptation = std::make_unique<Adaptation>(methods, file.spec, base);
  load_adapter_values(folder, adaptation->stored());
  return adaptation;
}

}  // namespace graft
