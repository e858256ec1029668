// What the commands that train share.
#pragma once

#include "experiments/cli/cli.h"
#include "experiments/runs/finetune.h"
#include "nn/text/json_entry.h"

namespace graft::cli {

// The optimizer's options, the batch's and the texts'.
void add_training_options(const Command&, RunSpec&, EncodeSpec&);

// Throw where a record was made by other kernels, or on another device: its bits would differ.
void check_core(Entry& record, const std::string& file);
void check_device(Entry& record, const std::string& device, const std::string& file);

// Runs a record of `graft multitask` again; throws where a bit differs. `file`: for messages.
void replay_multitask(const std::string& file, const nlohmann::json& record, const Methods&);

}  // namespace graft::cli
