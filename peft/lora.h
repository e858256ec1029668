// What a spec of LoRA says: read by the method (lora.cpp) and by PEFT's folders (peft_lora.cpp).
#pragma once

#include "peft/spec.h"

namespace graft {

struct LoraOptions {
  LoraOptions(Options&, const Arch&);
  double scale() const;  // what B A is multiplied by

  Where where;
  int r;
  double alpha, dropout_rate;
  bool kaiming, rank_stabilised;
};

}  // namespace graft
