// Adapters taken out layer by layer after training, without training again (Houlsby et al. 2019,
// figure 6 and section 3.6).
#pragma once

#include "experiments/ablations/experiment.h"

namespace graft {

Experiment adapter_layer_pruning();

// Layers first..last, both included.
struct Span {
  int first = 0, last = 0;
  auto operator<=>(const Span&) const = default;
};
std::string name(const Span&);  // "span 3-7": names its scores and its metric in a run
// Spans whose scores are kept example by example, because claims rest on them: single layers, all
// layers, the lower 5/12, the lower third and the upper third.
std::vector<Span> claimed_spans(int layers);

// What the model predicts for each example with the edits in each span switched off. All spans
// share the blocks below them, and all spans that begin alike share the blocks inside them: for L
// layers about L^3 / 6 blocks run instead of L^3 / 2. Afterwards all edits are on. The bits are
// those of evaluate() with the same edits off.
std::map<Span, std::vector<float>> predictions_without(Model&, Adaptation&, const EncodedTask&,
                                                       const std::vector<EncodedExample>&);

}  // namespace graft
