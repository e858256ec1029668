// The `graft` program.
#include "experiments/cli/cli.h"

int main(int argc, char** argv) { return graft::cli_main(argc, argv, graft::all_methods()); }
