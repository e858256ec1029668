// The `graft` command line: one file for each group of commands. Every command takes the table of
// methods as an argument, so a program of one's own with one more method gets all of them.
#pragma once

#include "experiments/cli/command.h"
#include "experiments/cli/main.h"
#include "peft/methods.h"

namespace graft {

namespace cli {
void add_pretrain(const Command&, const Methods&);
void add_ngram(const Command&);
void add_model_commands(const Command&, const Methods&);  // methods, count, explain, check
void add_run_commands(const Command&, const Methods&);    // train, replay
void add_multitask(const Command&, const Methods&);
void add_adapter_commands(const Command&, const Methods&);  // eval, merge
void add_predict(const Command&, const Methods&);
void add_generate(const Command&, const Methods&);
void add_embed(const Command&);
void add_combine(const Command&);
void add_exchange_commands(const Command&, const Methods&);    // import, export
void add_data_commands(const Command&);                        // corpus, tokenizer, tasks
void add_experiment_commands(const Command&, const Methods&);  // sweep, report, main
}  // namespace cli

}  // namespace graft
