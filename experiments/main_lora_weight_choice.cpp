// The program of one ablation; see experiments/ablations/lora_weight_choice.h.
#include "experiments/ablations/program.h"

int main(int argc, char** argv) {
  return graft::experiment_main(argc, argv, "lora_weight_choice", graft::all_methods());
}
