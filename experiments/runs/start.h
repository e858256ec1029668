// A run that starts from a saved adapter: one of ours, or one in a folder of PEFT's.
#pragma once

#include <filesystem>

#include "experiments/runs/finetune.h"
#include "peft/values.h"

namespace graft {

struct Start {
  std::string folder, spec;
  std::string head, pool;           // of the saved head; "": none, or not said
  std::vector<std::string> labels;  // of its classes
  bool names_labels = false;        // whether the folder says them; PEFT's do not
  int rows = 0;                     // of its last matrix
  bool base_pooler = false;         // it begins with the base's matrix for pooling
  AdapterValues values;
  std::vector<std::string> notes;
  std::string hash;       // of all values
  std::string base_hash;  // of the base that it was trained on; "": not said, as in PEFT's folders
};

Start read_start(const std::filesystem::path& folder, const Arch&);

// Settles method, head and pool of a run by the start. `given`: which of these the user asked for;
// throws where that is something else. A method may differ in what adds tasks to a saved adapter:
// new=, use=, and how a new task is described.
struct Given {
  bool method = false, head = false, pool = false;
};
void settle(const Start&, RunSpec&, const Given&);

// Whether the start's head is one for this task; says in `notes` what becomes of it.
bool keeps_head(const Start&, const RunSpec&, const EncodedTask&, std::vector<std::string>& notes);

// Throws where the saved head begins with a matrix of its base that this base lacks.
void check_pooler(const Start&, const Model& base);

// Fills a run's parameters, without the head's where it is a new one, nor the base's matrix that it
// begins with: a head=family has that already. Throws as set_adapter_values.
void begin_at(const Start&, const Parameters&, bool with_head);

}  // namespace graft
