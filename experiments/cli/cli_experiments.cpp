#include "experiments/cli/cli.h"

namespace graft::cli {
void add_experiment_commands(CLI::App&, const Methods&) {}
}  // namespace graft::cli
