// Model folders and what lies in them: weights, config.json, the index of shards, adapters.
#include <filesystem>
#include <string>
#include <vector>

#include "nn/files/safetensors.h"
#include "nn/model.h"
#include "nn/models/config.h"
#include "nn/models/folder.h"
#include "nn/models/heads.h"
#include "nn/models/stored.h"
#include "peft/files.h"
#include "peft/training_state.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path kLlama = fs::path(__FILE__).parent_path() / "../fixtures/models/llama";

std::shared_ptr<Parameter> parameter(const char* name, Shape shape) {
  return std::make_shared<Parameter>(Parameter{Site{Stack::decoder, 0, Part::q}, name,
                                               Tensor(Array::zeros(std::move(shape))), true, 1});
}

}  // namespace

void read_safetensors(std::string_view bytes) {
  const Scratch folder;
  folder.put("x.safetensors", bytes);
  const SafetensorsReader reader(folder / "x.safetensors");
  for (const auto& [name, info] : reader.tensors()) {
    [[maybe_unused]] volatile std::byte seen{};  // every byte must be within the file
    for (const std::byte b : reader.bytes(name)) seen = b;
    std::vector<float> values(info.count());
    if (is_floating(info.dtype)) reader.read_f32(name, values);
  }
  (void)reader.at("no such tensor");  // throws, and names the nearest
}

// What a config.json says must be a model that can be laid out, and written again.
void read_config(std::string_view bytes) {
  const Scratch folder;
  folder.put("config.json", bytes);
  const Arch arch = graft::read_config(folder / "config.json");
  Model model(arch, {.storage = false});
  add_saved_head(model, folder / "config.json");
  (void)stored_tensors(model, model.has_head());
  (void)model.parameters();
  const auto head = head_to_save(model);
  (void)config_text(arch, "float32", head ? &*head : nullptr);
}

// Parts: config.json, or the fixture's; tokenizer.json; model.safetensors.index.json;
// model.safetensors, or beside an index "a.safetensors". The fixture's file is there as
// "llama.safetensors".
void read_folder(std::string_view bytes) {
  const auto part = parts(bytes, 4);
  const Scratch folder;
  if (part[0].empty()) fs::copy(kLlama / "config.json", folder / "config.json");
  folder.put("config.json", part[0]);
  folder.put("tokenizer.json", part[1]);
  folder.put("model.safetensors.index.json", part[2]);
  folder.put(part[2].empty() ? "model.safetensors" : "a.safetensors", part[3]);
  fs::create_symlink(fs::absolute(kLlama / "model.safetensors"), folder / "llama.safetensors");
  (void)load_model(folder.path())->hash();
}

// Parts: adapter_config.json, adapter_model.safetensors, training_state.safetensors.
void read_adapter(std::string_view bytes) {
  const auto part = parts(bytes, 3);
  const Scratch folder;
  folder.put("adapter_config.json", part[0]);
  folder.put("adapter_model.safetensors", part[1]);
  try {
    (void)read_adapter_config(folder.path());
  } catch (const Error&) {
    if (part[1].empty()) throw;
  }
  const Parameters two{parameter("lora_A", {2, 3}), parameter("lora_B", {3, 2})};
  if (!part[2].empty()) {
    folder.put(kTrainingState, part[2]);
    for (const auto& p : two) p->value = Tensor::leaf(p->value.value(), p->label());
    Optimizer optimizer(two, {.kind = OptimSpec::Kind::sgd});
    resume(read_training_state(folder / kTrainingState), optimizer, folder.path());
  }
  load_adapter_values(folder.path(), two);
}

}  // namespace graft::fuzz
