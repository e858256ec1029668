// What runs will take, from recorded ones.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "experiments/harness/record.h"

namespace graft {

// What a run takes, from recorded runs: of the same configuration, or else of the same method on
// the same task, by their work. Runs recorded `elsewhere` count in the pace of this place: by how
// much the runs here took longer than the like there, by their work.
class Costs {
 public:
  explicit Costs(const Records& here, const Records& elsewhere = Records(std::filesystem::path()));
  std::optional<double> seconds(const nlohmann::json& config) const;
  static double rough(const nlohmann::json& config);  // where nothing is recorded

 private:
  struct Sum {
    double seconds = 0, work = 0;
    int runs = 0;
  };
  struct Sums {
    std::map<std::string, Sum> exact, alike;
  };
  static Sums sums_of(const Records&);
  Sums here_, elsewhere_;
  double pace_ = 1;
};

// What is still to run.
struct Prediction {
  double seconds = 0;
  int runs = 0, unknown = 0;  // of them by guess

  void add(const Costs&, const nlohmann::json& config, int more_runs);
};
void print_prediction(const std::string& name, const Prediction&, int jobs);

}  // namespace graft
