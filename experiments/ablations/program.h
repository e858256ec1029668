// What the programs of the experiments and the `graft` commands main, sweep and report share.
#pragma once

#include <filesystem>
#include <string>

#include "experiments/runs/computing.h"
#include "peft/methods.h"

namespace graft {

// The whole program of one experiment: options, checks, runs, page. Returns the exit code.
int experiment_main(int argc, const char* const* argv, const std::string& experiment,
                    const Methods&);

// All experiments in so many minutes, a part of their arms each: DIR/EXPERIMENT/ and
// DIR/report.html.
struct MainOptions {
  std::string base = "encoder", decoder;  // decoder: "" for the base of that name, if there is one
  std::filesystem::path out;
  double minutes = 30;
  bool quick = false;  // the smallest scale
  Computing where;
};
void run_main(const MainOptions&, const Methods&);

// Where results that came with the source lie, a folder for each experiment.
std::filesystem::path results_shelf();

}  // namespace graft
