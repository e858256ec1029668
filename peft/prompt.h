// What a spec of prompt tuning says: read by the method (prompt.cpp) and by PEFT's folders
// (peft_prompts.cpp).
#pragma once

#include "peft/virtual_rows.h"

namespace graft {

struct PromptOptions {
  PromptOptions(Options&, const Arch&);

  std::vector<Stack> stacks;
  int length;
  std::string init;
  std::vector<std::vector<std::int32_t>> tokens;  // of init=text and init=labels
  int top;                                        // init=vocab draws ids below it
  bool pooled;
};

}  // namespace graft
