// The work that bench_train and PyTorch both do: shapes and weights, batches, methods.
//
// Everything is in files, so that neither side draws a number that the other does not have: model
// folders as the hub lays them out, a cell's batches, the adapter's first values in PEFT's folder
// where PEFT has the method, and under graft's own names in any case.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "nn/batch.h"
#include "nn/model.h"

namespace graft {

struct Workload {
  std::string name, base;    // base: the model folder's name, which workloads may share
  std::string about;         // in words
  int sequences, length;     // length 0: as the texts are
  bool for_devices = false;  // too large for a host, where it must be asked for with its methods
};
// gpt2, bert, encoder-8, encoder-32, llama, llama-1b. Throws for another name, listing these.
const std::vector<Workload>& workloads();
const Workload& workload_named(const std::string&);
Arch arch_of(const Workload&);

// full, lora-qv, lora-all, houlsby, prefix, prompt, llama-adapter, bitfit.
const std::vector<std::string>& method_names();

// A workload with a method. `why_not` is set where the two do not go together.
struct Cell {
  Workload workload;
  std::string method, spec, why_not;
  double rate;  // of learning, constant
};
Cell cell_named(const std::string& workload, const std::string& method);

// Where the lengths of bert's texts come from.
struct TextSource {
  std::string sst2;       // a folder of GLUE's SST-2 as published; "": sentences of our own tasks
  std::string tokenizer;  // a folder of the hub; "": the shipped encoder's
};

// Writes OUT/models/BASE, unless it is there, and OUT/cells/WORKLOAD-METHOD with `batches` batches.
// Returns the cell's folder. Throws for a cell with `why_not`.
std::filesystem::path prepare(const Cell&, const std::filesystem::path& out, int batches,
                              const TextSource&);

// A prepared cell, as training needs it.
struct PreparedCell {
  std::filesystem::path model;
  std::string spec;
  double rate;
  std::vector<Batch> batches;
};
PreparedCell read_cell(const std::filesystem::path& folder);

}  // namespace graft
