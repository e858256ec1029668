// Claims with made-up measurements.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "experiments/harness/verdict.h"

namespace graft::testing {

inline Effect effect_of(double value, double spread) {
  Scores scores;
  for (double s : {-1.0, -0.5, 0.0, 0.5, 1.0})
    scores.push_back(std::vector<float>(50, static_cast<float>(value + s * spread)));
  return bootstrap({{{scores}}}, {.draws = 2000});
}

inline Case case_of(const std::string& id, const Test& test, Measured measured) {
  return {{.id = id, .text = "text of " + id, .paper = "", .parts = {{"part", test}}, .regime = ""},
          {.parts = {std::move(measured)}, .regime_note = ""}};
}

}  // namespace graft::testing
