// Words that a prompt starts from, as a spec records them: by their tokens.
#pragma once

#include <string>

#include "experiments/data/tasks.h"
#include "nn/text/tokenizer.h"

namespace graft {

// The spec with every `text=WORDS` made `tokens=IDS`, and with the ids of the task's labels where a
// method has init=labels and no tokens=. Other specs stay as they are. Throws where there are no
// labels or a text has no tokens. A text has no ',' or '|': these separate options and methods.
std::string with_tokens(const std::string& spec, const Tokenizer&, const TaskData&);

}  // namespace graft
