// The program of one experiment; see experiments/ablations/method_comparison.h.
#include "experiments/ablations/program.h"

int main(int argc, char** argv) {
  return graft::experiment_main(argc, argv, "method_comparison", graft::all_methods());
}
