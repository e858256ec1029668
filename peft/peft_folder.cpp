#include "peft/peft_folder.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "nn/models/family.h"
#include "nn/models/heads.h"
#include "nn/text/json_entry.h"
#include "peft/files.h"
#include "peft/peft_head.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char *kConfig = "adapter_config.json", *kValues = "adapter_model.safetensors",
                     *kPromptTensor = "prompt_embeddings";

std::string prefix_of(bool prompt) { return prompt ? "base_model." : "base_model.model."; }

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    if (end > at) all.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return all;
}

bool is_off(const json& value) {
  return value.is_null() || value == false || value == "" || value == "none" ||
         (value.is_structured() && value.empty());
}

std::map<std::string, Array> read_tensors(const fs::path& file, const Arch& arch, bool prompt,
                                          std::vector<std::string>& problems) {
  const SafetensorsReader reader(file);
  const std::string &base = family_named(arch.family).prefix, prefix = prefix_of(prompt);
  std::map<std::string, Array> tensors;
  // A body that was wrapped alone has names without the family's prefix.
  bool whole = base.empty() || prompt;
  for (const auto& [name, info] : reader.tensors()) whole |= name.starts_with(prefix + base);
  for (const auto& [name, info] : reader.tensors()) {
    const bool rows = prompt && name == kPromptTensor;
    if (!(rows || name.starts_with(prefix)) || !is_floating(info.dtype) || info.shape.empty()) {
      problems.push_back(
          fmt::format("unexpected tensor {} {} {}", name, name_of(info.dtype), info.shape));
      continue;
    }
    Array value = Array::empty(info.shape);
    reader.read_f32(name, value);
    if (const std::string bad = not_finite(value); !bad.empty())
      problems.push_back(
          fmt::format("{} {}: {}; the run that wrote it went astray or the file is "
                      "damaged; train it again, at a lower rate",
                      name, value.shape(), bad));
    std::string inside = rows ? name : name.substr(prefix.size());
    if (!whole && !names_head(inside)) inside = base + inside;
    tensors[inside] = std::move(value);
  }
  return tensors;
}

const PeftMethod* row_of(const std::string& peft_type) {
  for (const PeftMethod& row : peft_methods())
    if (row.peft_type == peft_type) return &row;
  return nullptr;
}

std::string known_types() {
  std::vector<std::string> names;
  for (const PeftMethod& row : peft_methods()) names.push_back(row.peft_type);
  return fmt::format("{}", fmt::join(names, ", "));
}

// For a body that PEFT is to wrap alone: names without the family's prefix.
void as_bare(PeftWriting& w) {
  const std::string& base = family_named(w.source.arch.family).prefix;
  const auto bare = [&](const std::string& name) {
    return name.starts_with(base) ? name.substr(base.size()) : name;
  };
  std::map<std::string, Array> tensors;
  for (auto& [name, value] : w.tensors) tensors[bare(name)] = value;
  w.tensors = std::move(tensors);
  for (const char* key : {"target_modules", "feedforward_modules", "modules_to_save"})
    if (const auto at = w.config.find(key); at != w.config.end() && at->is_array())
      for (json& target : *at) target = bare(target);
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    if (!w.config.contains(key)) continue;
    const json patterns = w.config[key];  // items() refers to what it is called on
    json renamed = json::object();
    for (const auto& [name, value] : patterns.items()) renamed[bare(name)] = value;
    w.config[key] = renamed;
  }
  w.config["task_type"] = "FEATURE_EXTRACTION";
}

json read_config(const fs::path& folder) {
  const std::string file = (folder / kConfig).string();
  return parse_strict(file, read_file(file));
}

// A problem for each key that nothing asked for and each tensor that nothing took.
void note_leftovers(PeftReading& r) {
  const bool pooler = r.out.task_type == "SEQ_CLS" && head_begins_with_pooler(r.arch);
  for (const std::string& name : r.saved)
    r.problem(fmt::format(
        "modules_to_save has {}; only a head may be there: classifier or score{}, or with LoRA a "
        "module of the base",
        name, pooler ? ", and pooler" : ""));
  for (const auto& [key, value] : r.config.items())
    if (!r.asked.contains(key) && !is_off(value))
      r.problem(fmt::format("option {} = {} is not followed here", key, shown(value)));
  for (const auto& [name, value] : r.tensors)
    r.problem(fmt::format("unexpected tensor {} {}", name, value.shape()));
}

}  // namespace

const std::vector<PeftMethod>& peft_methods() {
  static const std::vector<PeftMethod> table{
      {"LORA", "lora", read_peft_lora, write_peft_lora},
      {"PROMPT_TUNING", "prompt", read_peft_prompt, write_peft_prompt, true},
      {"PREFIX_TUNING", "prefix", read_peft_prefix, write_peft_prefix, true},
      {"P_TUNING", "ptuning", read_peft_ptuning, write_peft_ptuning, true},
      {"ADAPTION_PROMPT", "llama_adapter", read_peft_llama_adapter, write_peft_llama_adapter},
      {"IA3", "ia3", read_peft_ia3, write_peft_ia3},
      {"LN_TUNING", "layernorm", read_peft_norms, write_peft_norms}};
  return table;
}

template <class T>
T PeftReading::get(const char* key, T otherwise) {
  asked.insert(key);
  const auto at = config.find(key);
  if (at == config.end() || at->is_null()) return otherwise;
  const bool fits = std::is_same_v<T, bool>          ? at->is_boolean()
                    : std::is_same_v<T, std::string> ? at->is_string()
                    : std::is_same_v<T, int>         ? at->is_number_integer()
                                                     : at->is_number();
  if (fits) {
    const double number = at->is_number() ? at->get<double>() : 0;
    if (std::abs(number) < 1e9) return at->get<T>();
  }
  problem(fmt::format("option {} = {} has another type or size than it should", key, shown(*at)));
  return otherwise;
}
template bool PeftReading::get(const char*, bool);
template int PeftReading::get(const char*, int);
template double PeftReading::get(const char*, double);
template std::string PeftReading::get(const char*, std::string);

std::vector<std::string> PeftReading::texts(const char* key) {
  asked.insert(key);
  const auto at = config.find(key);
  if (at == config.end() || at->is_null()) return {};
  if (at->is_string()) return {at->get<std::string>()};
  std::vector<std::string> all;
  bool fits = at->is_array();
  for (const json& one : fits ? *at : json::array()) {
    fits &= one.is_string();
    if (one.is_string()) all.push_back(one);
  }
  if (!fits) problem(fmt::format("option {} = {} is not a list of names", key, shown(*at)));
  return all;
}

void PeftReading::off(const std::string& keys) {
  for (const std::string& key : words(keys)) {
    asked.insert(key);
    const auto at = config.find(key);
    if (at != config.end() && !is_off(*at))
      problem(fmt::format("option {} = {} is not followed here", key, shown(*at)));
  }
}

void PeftReading::unused(const std::string& keys) {
  for (const std::string& key : words(keys)) asked.insert(key);
}

namespace {

// Without a task PEFT names the class that it adapted, and that says what the task is.
std::string task_of_class(const json& config, const Arch& arch) {
  const auto mapping = config.find("auto_mapping");
  if (mapping == config.end() || !mapping->is_object()) return "";
  const std::string name = mapping->value("base_model_class", json()).is_string()
                               ? mapping->at("base_model_class").get<std::string>()
                               : "";
  const Family& family = family_named(arch.family);
  if (name.empty()) return "";
  if (name == family.head.architecture) return "SEQ_CLS";
  if (name == family.architecture && arch.crosses()) return "SEQ_2_SEQ_LM";
  if (name == family.architecture && arch.causal) return "CAUSAL_LM";
  return "";
}

std::map<std::string, std::vector<std::string>> names_in_order(const fs::path& file) {
  std::map<std::string, std::vector<std::string>> order;
  const auto config = nlohmann::ordered_json::parse(read_file(file));
  for (const auto& [key, value] : config.items())
    if (key.ends_with("_pattern") && value.is_object())
      for (const auto& [name, number] : value.items()) order[key].push_back(name);
  return order;
}

}  // namespace

bool is_peft_folder(const fs::path& folder) {
  if (!fs::exists(folder / kConfig)) return false;
  const json config = read_config(folder);
  return config.is_object() && config.contains("peft_type");
}

PeftAdapter read_peft_folder(const fs::path& folder, const Arch& arch) {
  PeftAdapter out;
  PeftReading r{arch, read_config(folder), {}, out, {}, {}, {}};
  check(r.config.is_object(), "{}: need an object", (folder / kConfig).string());
  const std::string type = r.get("peft_type", std::string());
  const PeftMethod* row = row_of(type);
  check(row != nullptr, "{}: peft_type is '{}'; this version follows {}",
        (folder / kConfig).string(), type, known_types());
  check(fs::exists(folder / kValues), "{}: has no {}; older files (.bin) are not read",
        folder.string(), kValues);
  r.order = names_in_order(folder / kConfig);
  out.task_type = r.get("task_type", std::string());
  const bool told = !out.task_type.empty();
  if (!told) out.task_type = task_of_class(r.config, arch);
  const std::set<std::string> tasks{"", "SEQ_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM",
                                    "FEATURE_EXTRACTION"};
  if (!tasks.contains(out.task_type))
    r.problem(fmt::format("task_type {} is not followed here", out.task_type));
  r.unused(
      "auto_mapping base_model_name_or_path revision inference_mode peft_version runtime_config");
  r.tensors = read_tensors(folder / kValues, arch, row->prompt, r.problems);
  if (row->prompt && !told)
    r.problem("no task_type: PEFT reads a prompt in only for the tasks that it has a class for");
  read_head(r);
  row->read(r);
  note_leftovers(r);
  check(r.problems.empty(), "PEFT folder '{}' does not fit the model ({}):\n  {}", folder.string(),
        arch.family, fmt::join(r.problems, "\n  "));
  return out;
}

std::vector<std::string> write_peft_folder(const fs::path& folder, const PeftSource& source) {
  const std::vector<Options> methods = parse_spec(source.spec);
  const auto row = std::ranges::find_if(
      peft_methods(), [&](const PeftMethod& m) { return m.method == methods.front().method(); });
  for (const Options& o : methods)
    check(row != peft_methods().end() && o.method() == row->method,
          "export: '{}' has no counterpart in PEFT that this version writes; it writes {}",
          source.spec, known_types());
  PeftWriting w{source, json::object(), {}, {}};
  w.config["peft_type"] = row->peft_type;
  w.config["task_type"] = nullptr;
  if (source.language) w.config["task_type"] = source.arch.crosses() ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";
  w.config["base_model_name_or_path"] = source.base;
  w.config["inference_mode"] = true;
  w.config["modules_to_save"] = nullptr;
  row->write(w);
  write_head(w);
  if (!source.arch.lm && !has_head_values(source)) as_bare(w);
  check(!row->prompt || !w.config["task_type"].is_null(),
        "export: PEFT puts a prompt in only for a task that it has a class for: text, or "
        "classification with head=family, not head={}",
        source.head.empty() ? "none" : source.head);
  check(!fs::exists(folder / kConfig), "export: '{}' has an adapter already; give another folder",
        folder.string());
  SafetensorsWriter writer;
  for (const auto& [name, value] : w.tensors)
    writer.add(row->prompt && name == kPromptTensor ? name : prefix_of(row->prompt) + name, value);
  std::error_code error;
  fs::create_directories(folder, error);
  check(!error, "export: cannot make folder '{}': {}", folder.string(), error.message());
  writer.write(folder / kValues);
  write_file_atomically(folder / kConfig, w.config.dump(2) + "\n");
  return w.notes;
}

}  // namespace graft
