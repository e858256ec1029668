// Adapters in the folders of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors
// under the names that PEFT's modules have there. A method that PEFT has, too, is one row of
// peft_methods(); what the two cannot both say is an Error, never left out.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "nn/files/safetensors.h"
#include "peft/adapter.h"

namespace graft {

// The head of a task, as far as a folder of PEFT's tells it.
struct PeftHead {
  // "family", the one of the family's class; "linear" or "dense", of a module of one's own, which
  // PEFT does not know the pooling of (experiments/runs/finetune.h); "": there is none
  std::string head;
  int rows = 0;  // classes
  // The head begins with the base's matrix for pooling, which is not in the folder.
  bool base_pooler = false;
};

// A folder of PEFT's in words of ours.
struct PeftAdapter {
  std::string spec;
  std::map<std::string, Array> values;  // by Parameter::label(), the head's among them
  PeftHead head;
  std::string task_type;           // PEFT's; "" where it has none
  std::vector<std::string> notes;  // where training from here goes otherwise than in PEFT
};

// Whether adapter_config.json has a "peft_type".
bool is_peft_folder(const std::filesystem::path&);

// Throws one Error that lists every tensor and option that the model, the spec or the head have no
// counterpart for. Values of any floating type become f32.
PeftAdapter read_peft_folder(const std::filesystem::path&, const Arch&);

// What write_peft_folder needs to know of an adapter.
struct PeftSource {
  const Arch& arch;
  std::string spec;
  Parameters parameters;           // the adapter's and then the head's, with their values
  std::string head, pool;          // as in a run's spec; "": the adapter has no head
  bool language = false;           // trained to write text
  std::string base;                // what the base model is called in the folder
  const Linear* pooler = nullptr;  // the base's matrix for pooling (saved_pooler), if it has one
};

// Writes a folder that PeftModel.from_pretrained opens on the base. A head that is the family's own
// goes under its names, with task type SEQ_CLS; another one as `classifier` of a module that its
// user wraps around the base. Throws Error, and writes nothing, where PEFT cannot say what the
// adapter is. Returns what a user should know.
std::vector<std::string> write_peft_folder(const std::filesystem::path&, const PeftSource&);

// --- for the rows of the table -------------------------------------------------------------------

// A PEFT folder being read. Rows take tensors out of it and ask for the keys that they follow; what
// is left is a problem.
struct PeftReading {
  const Arch& arch;
  nlohmann::json config;
  std::map<std::string, Array> tensors;  // by name, from the family's prefix on
  PeftAdapter& out;
  std::set<std::string> asked;
  std::vector<std::string> problems;
  std::vector<std::string> saved;  // names of modules_to_save that are no head's; a row takes them
  // The names in the configuration's patterns as they stand in the file: the first that fits
  // counts.
  std::map<std::string, std::vector<std::string>> order = {};

  void problem(std::string text) { problems.push_back(std::move(text)); }
  // The value of a key, or `otherwise` where it is absent or null; a problem where it has another
  // type. T: bool, int, double, std::string.
  template <class T>
  T get(const char* key, T otherwise);
  // A list of texts, or one of them; empty where it is absent or null.
  std::vector<std::string> texts(const char* key);
  // Keys, separated by spaces, that must be off (absent, null, false, empty); keys that do not
  // matter here.
  void off(const std::string& keys);
  void unused(const std::string& keys);
};

struct PeftWriting {
  const PeftSource& source;
  nlohmann::json config;
  std::map<std::string, Array> tensors;  // f32, contiguous, by name as above
  std::vector<std::string> notes;
};

struct PeftMethod {
  std::string peft_type;  // as adapter_config.json has it
  std::string method;     // as a spec has it
  void (*read)(PeftReading&);
  void (*write)(PeftWriting&);
  // PEFT's "prompt learning": the folder has `prompt_embeddings` and perhaps a head, whose names
  // lack "model."; it works for the task types alone that PEFT has a class for.
  bool prompt = false;
};
const std::vector<PeftMethod>& peft_methods();

void read_peft_lora(PeftReading&);
void write_peft_lora(PeftWriting&);
void read_peft_prompt(PeftReading&);
void write_peft_prompt(PeftWriting&);
void read_peft_prefix(PeftReading&);
void write_peft_prefix(PeftWriting&);
void read_peft_ptuning(PeftReading&);
void write_peft_ptuning(PeftWriting&);
void read_peft_llama_adapter(PeftReading&);
void write_peft_llama_adapter(PeftWriting&);
void read_peft_ia3(PeftReading&);
void write_peft_ia3(PeftWriting&);
void read_peft_norms(PeftReading&);
void write_peft_norms(PeftWriting&);

}  // namespace graft
