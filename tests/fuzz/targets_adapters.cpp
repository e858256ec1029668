// Folders of adapters from elsewhere: PEFT's and AdapterHub's, read onto bases of the tests.
#include <filesystem>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>

#include "nn/models/config.h"
#include "peft/adapterhub.h"
#include "peft/peft_folder.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {
namespace {

namespace fs = std::filesystem;

// The fixture of this family; that of llama where there is none.
const Arch& base(std::string_view family) {
  static const auto all = [] {
    std::map<std::string, Arch, std::less<>> archs;
    for (const char* name : {"llama", "bert", "gpt2", "t5"})
      archs.emplace(name, graft::read_config(fs::path(__FILE__).parent_path() /
                                             "../fixtures/models" / name / "config.json"));
    return archs;
  }();
  const auto at = all.find(family);
  return at == all.end() ? all.at("llama") : at->second;
}

// Every value that was read must be there to the last byte, under a name.
void use(const PeftAdapter& adapter) {
  for (const auto& [name, value] : adapter.values) {
    if (name.empty() || !value.defined()) throw std::logic_error("no value for '" + name + "'");
    [[maybe_unused]] volatile double seen{};
    for (const double x : value.to_vector()) seen = x;
  }
}

}  // namespace

// Parts: the base's family; adapter_config.json; adapter_model.safetensors.
void read_peft(std::string_view bytes) {
  const auto part = parts(bytes, 3);
  const Scratch folder;
  folder.put("adapter_config.json", part[1]);
  folder.put("adapter_model.safetensors", part[2]);
  use(read_peft_folder(folder.path(), base(part[0])));
}

// Parts: the base's family; adapter_config.json; adapter.safetensors.
void read_adapterhub(std::string_view bytes) {
  const auto part = parts(bytes, 3);
  const Scratch folder;
  folder.put("adapter_config.json", part[1]);
  folder.put("adapter.safetensors", part[2]);
  use(read_adapterhub_folder(folder.path(), base(part[0])));
}

}  // namespace graft::fuzz
