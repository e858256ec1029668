// What greedy decoding and beam search share: sequences in the making, and the model that reads on.
#pragma once

#include "nn/generate.h"

namespace graft {

// Runs the model over new tokens and keeps the cache. A prompt is what a decoder goes on from; of
// an encoder-decoder it is what the encoder reads, and the answer begins with arch().start.
class Reader {
 public:
  // Refers to the prompts and the spec.
  Reader(const Model& model, const std::vector<std::vector<std::int32_t>>& prompts,
         const GenerateSpec& spec);
  // What sequence i of the answers starts from.
  std::vector<std::int32_t> beginning(std::size_t i) const;

  // Scores [V] of each sequence's next token, after `news` has been read; `names` are the
  // sequences' numbers, for what depends on an example.
  std::vector<std::vector<double>> read(const std::vector<std::vector<std::int32_t>>& news,
                                        const std::vector<int>& names);
  void select(const std::vector<int>& from) { cache_.select(from); }
  // How many more tokens sequence i may be given.
  int room(int i) const;

 private:
  const Model& model_;
  const std::vector<std::vector<std::int32_t>>& prompts_;
  const std::vector<std::int32_t>& adapter_;
  KvCache cache_;
};

std::vector<double> log_softmax(const std::vector<double>& scores);

std::vector<Generated> beam_search(const Model&,
                                   const std::vector<std::vector<std::int32_t>>& prompts,
                                   const GenerateSpec&);

}  // namespace graft
