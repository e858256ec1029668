// Feature-based transfer: the frozen base turns a text into a vector, and a small model of its own
// learns on these vectors. Nothing is trained inside the base, and it runs once per example.
#pragma once

#include "experiments/runs/finetune.h"

namespace graft {

struct FeatureResult {
  Score dev, test;
  std::int64_t parameters = 0;                   // of the model on top
  double rate = 0;                               // the best on dev, the first tried of equal ones
  std::vector<std::pair<double, double>> tried;  // each rate and its score on dev, ascending
};

// `features:layer=k,pool=mean,model=linear`: rows after k blocks (0: the embedding; the standard is
// the last block; of an encoder-decoder the encoder's), pooled by mean, cls or last; model=linear
// or mlp (one hidden layer of `hidden` units). Vectors are standardised with the training rows'
// mean and deviation. The model on top is trained with AdamW; its rate is chosen on dev among five,
// or with rates=grow among further ones while the best lies at an end, up to four beyond each.
FeatureResult feature_transfer(Model& base, const EncodedTask&, Options&, std::uint64_t seed);

}  // namespace graft
