// What merging an adapter changed: the model's outputs, by rounding alone, and its memory.
#pragma once

#include <functional>

#include "peft/adapter.h"

namespace graft {

struct MergeReport {
  std::int64_t outputs = 0;      // numbers compared
  double largest = 0;            // |merged - unmerged|
  double size = 0;               // the largest |unmerged|
  double ulps = 0;               // `largest` in units of f32's last place at `size`
  int tensors = 0;               // that stand in the base's place
  std::int64_t added_bytes = 0;  // of these
  // What unmerging keeps in memory: the base's tensors under them. Those of a model that was loaded
  // lie in its mapped file and are read from there again: 0.
  std::int64_t kept_bytes = 0;
};

// Where unmerging has the base's tensors from: the file that they are mapped from (nothing to do
// for a model in memory), or copies in memory that no longer need it, of those that merging covers.
enum class Unmerge { from_file, from_copy };

// Merges, and compares what `outputs` gives before and after. Throws as Adaptation::merge does, and
// then nothing has changed. Unmerging gives back the base's bits.
MergeReport merge_reported(Adaptation&, Model&, const std::function<Array()>& outputs,
                           Unmerge = Unmerge::from_file);
// In words, one line.
std::string to_string(const MergeReport&);

// "yes", or for each adapter of the spec that cannot be merged its name and why. From shapes alone.
std::string merges_in_words(const Adaptation&);

}  // namespace graft
