// The program of one ablation; see experiments/ablations/lora_rank_sweep.h.
#include "experiments/ablations/program.h"

int main(int argc, char** argv) {
  return graft::experiment_main(argc, argv, "lora_rank_sweep", graft::all_methods());
}
