// The `graft` command line: one file for each group of commands. Every command takes the table of
// methods as an argument, so a program of one's own with one more method gets all of them.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>

#include "experiments/cli/main.h"
#include "peft/methods.h"

namespace graft {

namespace cli {
void add_pretrain(CLI::App&, const Methods&);
void add_ngram(CLI::App&);
void add_model_commands(CLI::App&, const Methods&);  // methods, count, explain, check
void add_run_commands(CLI::App&, const Methods&);    // train, replay
void add_multitask(CLI::App&, const Methods&);
void add_adapter_commands(CLI::App&, const Methods&);  // eval, merge
void add_generate(CLI::App&, const Methods&);
void add_embed(CLI::App&);
void add_combine(CLI::App&);
void add_exchange_commands(CLI::App&, const Methods&);    // import, export
void add_data_commands(CLI::App&);                        // corpus, tokenizer, tasks
void add_experiment_commands(CLI::App&, const Methods&);  // sweep, report, main
}  // namespace cli

}  // namespace graft
