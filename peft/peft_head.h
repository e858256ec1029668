// The head of a task in a folder of PEFT's: whose class it is of, and under which names it lies.
#pragma once

#include "peft/peft_folder.h"

namespace graft {

// Whether a tensor's name is that of a head's, in whatever class.
bool names_head(const std::string& tensor);
// Takes the head out of a folder that is read: its tensors, what modules_to_save says of it, and
// into `r.saved` the modules to save that are no head's. What does not fit is a problem.
void read_head(PeftReading& r);
// Whether the adapter has a head at all.
bool has_head_values(const PeftSource&);
// Puts the source's head into a folder that is written, with the task type it takes.
void write_head(PeftWriting& w);

}  // namespace graft
