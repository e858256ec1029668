// The program of one ablation; see experiments/ablations/adapter_layer_pruning.h.
#include "experiments/ablations/program.h"

int main(int argc, char** argv) {
  return graft::experiment_main(argc, argv, "adapter_layer_pruning", graft::all_methods());
}
